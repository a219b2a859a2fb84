"""Run every objective of a config and measure all: ``accelerate launch scripts/compare.py --config CONFIG``."""

import sys

from msgm.cli import script

if __name__ == "__main__":
    sys.exit(script("compare"))
