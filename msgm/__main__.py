"""``python -m msgm`` is the command ``msgm``."""

import sys

from msgm.cli import main

sys.exit(main())
