"""``python -m msgm`` and the command ``msgm``; even while modules are imported, Ctrl-C ends it without a traceback."""

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from msgm.cli import main as run

        return run()
    except KeyboardInterrupt:
        print("msgm: stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
