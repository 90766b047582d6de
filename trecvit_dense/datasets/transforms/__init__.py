"""Transforms: ``transform(sample, rng) -> sample``; frames, points, masks and depth move together."""

from .tapnextpp import HomographyAugmentation, RollAugmentation

__all__ = ['HomographyAugmentation', 'RollAugmentation']
