"""The memory that this machine has left."""

import psutil


def available() -> int:
    """Return the bytes of memory that can be taken without swapping, as the operating system estimates them."""
    return int(psutil.virtual_memory().available)


def gigabytes(size: float) -> str:
    """Return bytes as text in units of 10^9, such as ``13.4 GB``."""
    return f"{size / 1e9:.1f} GB"
