"""Trained models at work: Predictor for files, Session for live video."""

from trecvit_dense.models.heads.point_slots import CapacityError

from .classify import ClassPrediction
from .predictor import Predictor
from .queries import grid_queries
from .runtime import FrameResult
from .session import Session

__all__ = ['CapacityError', 'ClassPrediction', 'FrameResult', 'Predictor', 'Session', 'grid_queries']
