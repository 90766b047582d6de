"""The difference of frames as a backbone's input: what it sees, that it streams, what it refuses."""

from __future__ import annotations

import pytest
import torch

from trecvit_dense.models.backbones import RGBDifference
from trecvit_dense.registry import MODELS, use_scope

use_scope()
SMALL = dict(type='TRecViT', embed_dim=16, depth=1, num_heads=2, mlp_dim=32, patch_size=8, image_size=16)


def make_video(time: int = 5) -> torch.Tensor:
    return torch.rand(2, time, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_the_backbone_sees_differences() -> None:
    torch.manual_seed(0)
    model, video = RGBDifference(SMALL, gain=3.0).eval(), make_video()
    change = torch.zeros_like(video)
    change[:, 1:] = 3 * (video[:, 1:] - video[:, :-1])
    with torch.no_grad():
        found, wanted = model(video)[0], model.backbone(change)[0]
    torch.testing.assert_close(found.levels[-1].tokens, wanted.levels[-1].tokens)


def test_what_stands_still_is_not_seen() -> None:
    """A constant picture below the video changes nothing."""
    torch.manual_seed(0)
    model, video = RGBDifference(SMALL).eval(), make_video()
    ground = torch.rand(1, 1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        bare, covered = (model(x)[0].levels[-1].tokens for x in (video, video + ground))
    torch.testing.assert_close(bare, covered, atol=1e-4, rtol=1e-4)
    assert bare[:, 2:].std() > 0.1


def test_step_is_clip_and_the_state_is_constant() -> None:
    torch.manual_seed(0)
    model, video = RGBDifference(SMALL).eval(), make_video()
    with torch.no_grad():
        whole, last = model(video)
        state, tokens, sizes = None, [], set()
        for step in range(video.shape[1]):
            features, state = model(video[:, step : step + 1], state=state)
            tokens.append(features.levels[-1].tokens)
            sizes.add(state.nbytes)
    torch.testing.assert_close(torch.cat(tokens, 1), whole.levels[-1].tokens, atol=1e-5, rtol=1e-5)
    assert sizes == {last.nbytes} and torch.equal(state['last'], video[:, -1])


def test_refusals() -> None:
    model, video = RGBDifference(SMALL), make_video()
    _, state = model(video)
    with pytest.raises(ValueError, match='start a new state for another video'):
        model(video[..., :16], state=state)
    with pytest.raises(ValueError, match='gain is 0; wanted a number above 0'):
        RGBDifference(SMALL, gain=0)
    with pytest.raises(ValueError, match='StoredFeatures, which takes no video'):
        MODELS.build(
            dict(type='RGBDifference', backbone=dict(type='StoredFeatures', embed_dim=16, grid=(2, 3), stride=8))
        )
