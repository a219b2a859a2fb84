"""Metrics of forgetting, one idea a file; every file here registers itself.

Files import torch, and what needs it, where they use it: the audit reads logits alone and runs without.
"""

from importlib import import_module
from pkgutil import iter_modules

from msgm.classifier.metrics.base import METRICS, Case, Metric, Number

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METRICS", "Case", "Metric", "Number"]
