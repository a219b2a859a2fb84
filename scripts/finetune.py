"""Unlearn on one or many processes: ``accelerate launch scripts/finetune.py --config CONFIG --from RUN``."""

import sys

from msgm.cli import script

if __name__ == "__main__":
    sys.exit(script("unlearn"))
