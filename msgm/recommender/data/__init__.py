"""Interaction data: readers of published formats, a synthetic generator, and splits. Every file registers itself."""

from importlib import import_module
from pkgutil import iter_modules

from msgm.recommender.data.base import SOURCES, IdMap, Interactions, Source, Split, load_interactions

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["SOURCES", "IdMap", "Interactions", "Source", "Split", "load_interactions"]
