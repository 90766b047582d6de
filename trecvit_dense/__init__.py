"""trecvit_dense: dense video perception (point tracking, segmentation, depth) on recurrent video transformers."""

__version__ = '0.1.0'
