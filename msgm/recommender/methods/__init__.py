"""Methods that make a recommender forget, one file each; every file here registers itself."""

from importlib import import_module
from pkgutil import iter_modules

from msgm.recommender.methods.base import METHODS, Card, Method, Unlearned

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Card", "Method", "Unlearned"]
