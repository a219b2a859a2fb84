"""Public names of a package that are imported when they are first asked for."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def on_first_use(package: str, home: "Mapping[str, str]") -> "Callable[[str], Any]":
    """Return the ``__getattr__`` of a package.

    Args:
        package: its name.
        home: public names to the modules that define them; a name that is its own module's is the module.
    """

    def find(name: str) -> "Any":
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        import sys
        from importlib import import_module

        module = import_module(home[name])
        found = module if home[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    return find
