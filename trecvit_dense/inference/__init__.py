"""Trained models at work: Predictor for files, Session for live video."""

from trecvit_dense.models.heads.point_slots import CapacityError

from .classify import ClassPrediction
from .fast_linear import restore, speed_up
from .memory import keep_freed_memory
from .predictor import Predictor
from .queries import grid_queries
from .runtime import FrameResult
from .session import Session
from .static_step import StaticStep

__all__ = [
    'CapacityError',
    'ClassPrediction',
    'FrameResult',
    'Predictor',
    'Session',
    'StaticStep',
    'grid_queries',
    'keep_freed_memory',
    'restore',
    'speed_up',
]
