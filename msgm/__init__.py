"""msgm: make a trained model forget, and show honestly what it forgot.

The public names below are imported on first use, so that ``import msgm`` and ``msgm --help`` stay fast
(and nothing of weight is imported before Ctrl-C is handled, in ``msgm.__main__``).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.2.0"

_PUBLIC = {
    "Config": "msgm.config",
    "ForgetRequest": "msgm.requests",
    "Objective": "msgm.objectives",
    "Process": "msgm.diffusion",
    "ScoreModel": "msgm.diffusion",
    "compare": "msgm.generator.compare",
    "load_config": "msgm.config",
    "load_dataset": "msgm.data",
    "log_likelihood": "msgm.diffusion",
    "sample": "msgm.diffusion",
    "train": "msgm.training",
    "unlearn": "msgm.training",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> "Any":
    if name not in _PUBLIC:
        raise AttributeError(f"module 'msgm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
