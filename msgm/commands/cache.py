"""``msgm cache``: which retrained models comparisons share, how large they are, and how to remove them."""

import argparse
from typing import TYPE_CHECKING

from msgm.arguments import Commands, command

if TYPE_CHECKING:
    from msgm.cache import Cached


def add(commands: Commands) -> None:
    """Add the command."""
    text = "list the retrained models that comparisons share, or remove them"
    parser = command(commands, "cache", _cache, text)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--delete", metavar="NAME", nargs="+", help="remove these, as the list names them")
    which.add_argument("--clear", action="store_true", help="remove all")
    parser.set_defaults(go_on="Run the same command again.")


def _cache(options: argparse.Namespace) -> None:
    from msgm.cache import Cache

    cache = Cache.of_user()
    removed = cache.clear() if options.clear else cache.remove(options.delete) if options.delete else []
    for path in removed:
        print(f"removed {path}")
    print("\n".join(lines(cache.entries(), str(cache.folder))))


def lines(cached: "list[Cached]", folder: str) -> list[str]:
    """Return the lines that the command prints on the cache in ``folder``: one for each model, and the sum."""
    found = [
        f"{each.folder.name}  {each.megabytes():g} MB, {each.made}: {each.model.what}; without {each.model.request}"
        for each in cached
    ]
    count = "1 retrained model" if len(cached) == 1 else f"{len(cached)} retrained models"
    return [*found, f"{count}, {round(sum(each.megabytes() for each in cached), 3):g} MB in {folder}"]
