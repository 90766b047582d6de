"""Videos with masks in the layouts of the public data sets, written by hand from their descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 40)


def moving_squares(frames: int = 6, ids: Sequence[int] = (1, 2), start: dict[int, int] | None = None) -> np.ndarray:
    """``(T, H, W)`` uint8: squares of 6 px, one under the other, that go right; ``start`` says when an id appears."""
    labels = np.zeros((frames, *SIZE), np.uint8)
    for row, i in enumerate(ids):
        for t in range((start or {}).get(i, 0), frames):
            labels[t, 2 + 8 * row : 8 + 8 * row, 3 * t : 3 * t + 6] = i
    return labels


def picture(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A frame whose colours follow its labels."""
    colours = np.random.default_rng(seed).integers(0, 256, (256, 3), np.uint8)
    return colours[labels]


def write_frames(folder: Path, labels: np.ndarray, names: Sequence[str] | None = None, suffix: str = '.jpg') -> None:
    folder.mkdir(parents=True)
    for t, frame in enumerate(labels):
        name = names[t] if names else f'{t:05d}'
        Image.fromarray(picture(frame)).save(folder / f'{name}{suffix}', quality=95)


def write_masks(folder: Path, labels: dict[str, np.ndarray], *, palette: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in labels.items():
        image = Image.fromarray(mask)
        if palette and mask.ndim == 2:
            image.putpalette([value for i in range(256) for value in (i, 255 - i, 77)])
        image.save(folder / f'{name}.png')


def named(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {f'{t:05d}': frame for t, frame in enumerate(labels)}


def write_davis(
    root: Path,
    videos: dict[str, np.ndarray],
    *,
    palette: bool = True,
    split: str | None = '2017/val.txt',
    text: str | None = None,
    resolution: str = '480p',
    kind: str = 'Annotations',
) -> Path:
    for name, labels in videos.items():
        if not (root / 'JPEGImages' / resolution / name).exists():
            write_frames(root / 'JPEGImages' / resolution / name, labels)
        write_masks(root / kind / resolution / name, named(labels), palette=palette)
    if split:
        file = root / 'ImageSets' / split
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\n'.join(videos) + '\n' if text is None else text)
    return root
