"""Train a model on one or many processes: ``accelerate launch scripts/train.py --config configs/digits/vp.yaml``."""

import sys

from msgm.cli import script

if __name__ == "__main__":
    sys.exit(script("train"))
