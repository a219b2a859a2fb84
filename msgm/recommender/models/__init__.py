"""Recommenders, one file each; every file here registers itself."""

from importlib import import_module
from pkgutil import iter_modules

from msgm.recommender.models.base import EXACTNESS, MODELS, Answer, Recommender, load_recommender

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["EXACTNESS", "MODELS", "Answer", "Recommender", "load_recommender"]
