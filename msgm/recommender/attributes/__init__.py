"""Taking user attributes out of a recommender: before, in and after training. Every file registers itself."""

from importlib import import_module
from pkgutil import iter_modules

from msgm.recommender.attributes.base import ERASURES, Card, Context, Erasure, PluginErasure

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["ERASURES", "Card", "Context", "Erasure", "PluginErasure"]
