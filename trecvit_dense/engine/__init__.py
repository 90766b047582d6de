"""What MMEngine lacks on today's torch: bf16 on any device, plain checkpoints, exact resume, gloo, errors, Muon."""

from .checkpoint_hook import PlainCheckpointHook
from .compile_hook import CompileHook
from .config import config_names, find_config, load_config
from .curves_hook import CurvesHook
from .loops import FastResumeIterLoop, IterationSeedHook
from .muon import MuonAdamW
from .optim_wrapper import AutocastOptimWrapper
from .progress import ProgressBar, ProgressHook, track
from .reconstruction_hook import ReconstructionHook
from .runner import TrecvitRunner
from .sampler import DrawSampler

__all__ = [
    'AutocastOptimWrapper',
    'CompileHook',
    'CurvesHook',
    'DrawSampler',
    'FastResumeIterLoop',
    'IterationSeedHook',
    'MuonAdamW',
    'PlainCheckpointHook',
    'ProgressBar',
    'ProgressHook',
    'ReconstructionHook',
    'TrecvitRunner',
    'config_names',
    'find_config',
    'load_config',
    'track',
]
