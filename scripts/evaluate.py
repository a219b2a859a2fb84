"""Measure trained models: ``python scripts/evaluate.py RUN [RUN ...] [--config CONFIG]``."""

import sys

from msgm.cli import script

if __name__ == "__main__":
    sys.exit(script("evaluate"))
