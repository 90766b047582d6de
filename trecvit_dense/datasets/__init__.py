"""One adapter per dataset; each yields VideoSample. ``synthetic`` is the embedded default."""

from .synthetic import SyntheticVideoDataset

__all__ = ['SyntheticVideoDataset']
