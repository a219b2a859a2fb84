"""Sample a model on many processes: ``torchrun --standalone --nproc_per_node 2 scripts/sample.py RUN -n 50000``."""

import sys

from msgm.cli import script

if __name__ == "__main__":
    sys.exit(script("sample"))
