"""Weights in and out: our own files (:mod:`io`) and the official ones (:mod:`official`)."""

from .io import CheckpointError, LoadReport, load_model, load_state, read_checkpoint, save_model

__all__ = ['CheckpointError', 'LoadReport', 'load_model', 'load_state', 'read_checkpoint', 'save_model']
