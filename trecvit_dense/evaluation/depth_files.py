"""Depth clips on disk: truth and predictions of anybody's program, paired by name and read one clip at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..io.depth_writer import CODE_FILE, read_saved_depth
from .depth_maps import SUFFIXES, is_video, read_maps, stack_maps
from .depth_protocols import Clip

_SHOWN = 3


@dataclass
class ClipFiles:
    """One clip on disk.

    Args:
        truth: A file for each frame, or one for the clip.
        predictions: The same; None where a frame has no prediction.
        units: Units per metre of each frame of truth (16-bit files).
        intrinsics, camera_to_world: ``(3, 3)`` or ``(T, 3, 3)``, ``(T, 4, 4)``, where they are known.
    """

    name: str
    truth: list[Path]
    predictions: list[Path | None]
    units: list[float]
    intrinsics: np.ndarray | None = None
    camera_to_world: np.ndarray | None = None


def find_clips(
    truth: Path, predictions: Path, *, units_per_metre: float, dataset: str | None = None, allow_missing: bool = False
) -> list[ClipFiles]:
    """Pair the files of every clip; ``trecvit eval-depth --help`` lists the layouts.

    Args:
        units_per_metre: Of truth in 16-bit PNGs, where no list says it.
        dataset: Key in a JSON list that has several.
        allow_missing: A frame may be without a prediction.

    Raises:
        FileNotFoundError: a folder, clip or frame is missing; it is named.
        ValueError: a list that cannot be read, or nothing in it.
    """
    if not predictions.is_dir():
        raise FileNotFoundError(f'{predictions}: no such folder; wanted the predictions')
    if truth.suffix.lower() == '.json':
        return _clips_of_list(truth, predictions, dataset, allow_missing)
    if not truth.is_dir():
        raise FileNotFoundError(f'{truth}: no such folder or JSON list; wanted the truth')
    names = _clip_names(truth)
    if not names:
        return [_clip(truth.resolve().name, truth, predictions, units_per_metre, allow_missing)]
    clips = []
    for name in names:
        place = _existing(predictions, name)
        if place is None:
            raise FileNotFoundError(
                f'{predictions}: no prediction of clip {name}; wanted a folder {name}, or {name}.npz or .npy'
            )
        clips.append(_clip(name, _existing(truth, name) or truth, place, units_per_metre, allow_missing))
    return clips


def read_clip(
    files: ClipFiles, *, kind: str, prediction_units: float | None = None, max_frames: int | None = None
) -> Clip:
    """Load one clip, or its first frames.

    Args:
        kind: What the predictions are.
        prediction_units: What 16-bit predictions count, per metre or per unit of disparity. None: such files are
            refused.

    Raises:
        ValueError: a file cannot be read, frames differ in size, or a prediction is not finite; it is named.
    """
    chosen = files.truth[:max_frames]
    maps = [read_maps(path, units) for path, units in zip(chosen, files.units, strict=False)]
    truth = stack_maps(chosen, maps, files.name, 'truth')[:max_frames]
    truth = np.where(np.isfinite(truth) & (truth > 0), truth, -1.0)
    values, missing = _read_predictions(files, prediction_units, max_frames)
    if len(values) < len(truth):
        raise ValueError(f'clip {files.name}: {len(values)} frames of prediction, {len(truth)} of truth')
    values = values[: len(truth)]
    _check_finite(values, files)
    return Clip(values, truth, missing, kind, files.intrinsics, files.camera_to_world)


def saved_kind(files: ClipFiles) -> str | None:
    """``'disparity'`` or ``'depth'`` where the predictions say it, as those do that ``trecvit demo depth`` saves."""
    first = next(path for path in files.predictions if path is not None)
    if (first.parent / CODE_FILE).is_file():
        return json.loads((first.parent / CODE_FILE).read_text(encoding='utf-8')).get('kind')
    if first.suffix.lower() != '.npz':
        return None
    with np.load(first, allow_pickle=False) as arrays:
        return str(arrays['kind']) if 'kind' in arrays.files else None


def _read_predictions(
    files: ClipFiles, units: float | None, max_frames: int | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """``(T, h, w)``, and which frames have none (their values mean nothing)."""
    paths = files.predictions[:max_frames]
    found = [path for path in paths if path is not None]
    if not found:
        raise FileNotFoundError(f'clip {files.name}: no frame has a prediction')
    if (found[0].parent / CODE_FILE).is_file():
        maps = list(read_saved_depth(found[0].parent))[:max_frames]
    else:
        maps = [read_maps(path, units, floats=True) for path in found]
    values = stack_maps(found, maps, files.name, 'prediction')
    missing = tuple(t for t, path in enumerate(paths) if path is None)
    if missing:
        whole = np.ones((len(paths), *values.shape[1:]), values.dtype)
        whole[[t for t in range(len(paths)) if t not in missing]] = values
        values = whole
    return values[:max_frames], missing


def _check_finite(values: np.ndarray, files: ClipFiles) -> None:
    for t, frame in enumerate(values):
        bad = frame.size - np.count_nonzero(np.isfinite(frame))
        if bad:
            path = files.predictions[t] if len(files.predictions) == len(values) else files.predictions[0]
            raise ValueError(f'clip {files.name}, frame {t}: {bad} of {frame.size} values are NaN or infinite ({path})')


def _clip_names(root: Path) -> list[str]:
    """Clips below ``root``; none where it is a clip itself."""
    if _maps_of(root):
        whole = [path for path in _maps_of(root) if path.suffix.lower() in ('.npz', '.npy') and is_video(path)]
        return sorted(path.stem for path in whole)
    return sorted(path.name for path in root.iterdir() if path.is_dir() and _maps_of(path))


def _maps_of(folder: Path) -> list[Path]:
    """The depth files of a clip, in natural order of their names; those of ``depth/`` where there is one."""
    from ..io.frame_source import natural_key

    for place in (folder / 'depth', folder):
        if place.is_dir():
            files = [path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != '.']
            for suffix in SUFFIXES:
                chosen = [path for path in files if path.suffix.lower() == suffix]
                if chosen:
                    return sorted(chosen, key=natural_key)
    return []


def _existing(root: Path, name: str) -> Path | None:
    places = (root / name, *(root / f'{name}{suffix}' for suffix in ('.npz', '.npy')))
    return next((place for place in places if place.exists()), None)


def _clip(name: str, truth: Path, prediction: Path, units: float, allow_missing: bool) -> ClipFiles:
    files = [truth] if truth.is_file() else _maps_of(truth)
    if not files:
        raise FileNotFoundError(f'{truth}: no depth in it; wanted {", ".join(SUFFIXES)}')
    found = _predictions(name, files, prediction, allow_missing)
    clip = ClipFiles(name, files, found, [units] * len(files))
    if truth.is_dir() and (truth / 'poses.txt').is_file() and (truth / 'K.txt').is_file():
        _add_cameras(clip, truth, units)
    elif len(files) == 1 and files[0].suffix == '.npz':
        with np.load(files[0], allow_pickle=False) as arrays:
            clip.intrinsics, clip.camera_to_world = (arrays.get(key) for key in ('intrinsics', 'camera_to_world'))
    return clip


def _predictions(name: str, truth: list[Path], prediction: Path, allow_missing: bool) -> list[Path | None]:
    """The file of each frame of truth; or the one file of the clip."""
    files = [prediction] if prediction.is_file() else _maps_of(prediction)
    if not files:
        raise FileNotFoundError(f'{prediction}: no depth in it; wanted the predictions of clip {name}')
    if len(files) == 1 and len(truth) != 1 or len(truth) == 1:
        return list(files)
    if (files[0].parent / CODE_FILE).is_file():  # numbered from 0, whatever the frames of the video are called
        if len(files) != len(truth):
            raise ValueError(f'clip {name}: {len(files)} frames of prediction in {prediction}, {len(truth)} of truth')
        return list(files)
    by_stem = {path.stem: path for path in files}
    missing = [path.stem for path in truth if path.stem not in by_stem]
    if not missing:
        return [by_stem[path.stem] for path in truth]
    if len(missing) == len(truth) and len(files) == len(truth):
        return list(files)  # other names, the same number: in order
    if allow_missing and len(missing) < len(truth):
        return [by_stem.get(path.stem) for path in truth]
    shown = ', '.join(missing[:_SHOWN]) + (', ...' if len(missing) > _SHOWN else '')
    raise FileNotFoundError(
        f'clip {name}: {len(missing)} of {len(truth)} frames have no prediction: {shown} (in {prediction}; '
        f'--allow-missing leaves them out)'
    )


def _add_cameras(clip: ClipFiles, folder: Path, units: float) -> None:
    from ..datasets.rgbd_recording import RGBDRecording

    recording = RGBDRecording(folder, depth_scale=units, same_size=False)
    clip.intrinsics, clip.camera_to_world = recording.depth_intrinsics, recording.camera_to_world


def _clips_of_list(path: Path, predictions: Path, dataset: str | None, allow_missing: bool) -> list[ClipFiles]:
    """Video Depth Anything's: ``{dataset: [{scene: [{image, gt_depth, factor, K, pose}, ...]}, ...]}``."""
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such list')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        names = [dataset] if dataset in content else list(content)
        if len(names) != 1:
            raise ValueError(f'{path}: holds {", ".join(names)}; choose one with --dataset')
        scenes = [(name, frames) for scene in content[names[0]] for name, frames in scene.items()]
        options = (path.parent, predictions, names[0], allow_missing)
        clips = [_clip_of_scene(name, frames, *options) for name, frames in scenes]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: not a list of scenes ({type(error).__name__}: {error}); wanted '
            f'{{dataset: [{{scene: [{{image, gt_depth, factor}}]}}]}}'
        ) from None
    if not clips:
        raise ValueError(f'{path}: no scene in it')
    return clips


def _clip_of_scene(
    name: str, frames: list[dict], root: Path, predictions: Path, dataset: str, allow_missing: bool
) -> ClipFiles:
    # The program reads paths below the list's folder; the shipped extraction scripts write them below the one above.
    base = root if (root / frames[0]['gt_depth']).is_file() else root.parent
    truth = [base / frame['gt_depth'] for frame in frames]
    found: list[Path | None] = []
    for frame in frames:
        stem = Path(frame['image']).with_suffix('')
        folders = (predictions / dataset, predictions)
        places = [folder / f'{stem}{suffix}' for folder in folders for suffix in ('.npz', '.npy', '.png')]
        place = next((place for place in places if place.is_file()), None)
        if place is None and not allow_missing:
            raise FileNotFoundError(
                f'scene {name}: no prediction of {frame["image"]}; wanted {places[0]} or .npy (--allow-missing leaves '
                f'such frames out)'
            )
        found.append(place)
    clip = ClipFiles(name, truth, found, [float(frame['factor']) for frame in frames])
    if all('K' in frame and 'pose' in frame for frame in frames):
        clip.intrinsics = np.array([frame['K'] for frame in frames], np.float64)[:, :3, :3]
        clip.camera_to_world = np.array([frame['pose'] for frame in frames], np.float64).reshape(-1, 4, 4)
    return clip
