#!/usr/bin/env python3
"""The same as ``trecvit extract-features``, from a checkout and any working directory."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trecvit_dense.cli import run
from trecvit_dense.cli.extract_features import main

if __name__ == '__main__':
    sys.exit(run(main))
