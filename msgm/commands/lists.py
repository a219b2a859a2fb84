"""``msgm`` lists what can be named: ``configs``, ``datasets``, ``edits``, ``guidance``, ``objectives`` and so on.

Each prints a line for each name, made from the registry and the docstrings; with names it prints their cards.
"""

import argparse
import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from msgm import configs
from msgm.arguments import Commands, command, print_card
from msgm.errors import UserError, nearest
from msgm.markdown import line
from msgm.prose import first_sentence

REGISTRIES: dict[str, dict[str, str]] = {
    "datasets": {"images": "msgm.data:DATASETS", "recommender": "msgm.recommender.data:SOURCES"},
    "metrics": {
        "generator": "msgm.evaluation.metrics:METRICS",
        "classifier": "msgm.classifier.metrics:METRICS",
        "recommender": "msgm.recommender.metrics:METRICS",
    },
    "methods": {
        "classifier": "msgm.classifier.methods:METHODS",
        "recommender": "msgm.recommender.methods:METHODS",
    },
    "objectives": {"generator": "msgm.objectives:OBJECTIVES"},
    "edits": {"generator": "msgm.objectives.edits:EDITS"},
    "guidance": {"generator": "msgm.diffusion:GUIDANCE"},
    "samplers": {"generator": "msgm.diffusion:SAMPLERS"},
}
"""By command and by what it is for, where the registry is: a module, which is imported when it is asked for."""

WHAT = {
    "datasets": "the data sets; those of images also serve classifiers",
    "metrics": "what can be measured",
    "methods": "how classifiers and recommenders are made to forget; generators have objectives",
    "objectives": "the losses by which generators are trained and made to forget",
    "edits": "changes of a generator's weights without training steps",
    "guidance": "changes of a generator's score while it samples; its weights stay",
    "samplers": "how generators make samples",
}


class Entry(NamedTuple):
    """One name of a list: the domain that it belongs to, and its class."""

    domain: str
    name: str
    part: type[Any]


def add(commands: Commands) -> None:
    """Add the lists."""
    command(commands, "configs", _configs, "list the configs that msgm brings along; each may be given as CONFIG")
    for what, text in WHAT.items():
        listed = command(commands, what, partial(_listed, what), f"list {text}")
        listed.add_argument("names", metavar="NAME", nargs="*", help="print the cards of these, with their settings")


def entries(what: str) -> list[Entry]:
    """Return the entries of one of the lists, in the order of registration.

    Example:
        >>> [entry.name for entry in entries("objectives")][:2]
        ['standard', 'unseen']
    """
    found = []
    for domain, place in REGISTRIES[what].items():
        module, _, registry = place.partition(":")
        known: Mapping[str, type[Any]] = getattr(import_module(module), registry).entries
        found += [Entry(domain, name, part) for name, part in known.items()]
    return found


def aligned_left(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Yield rows as lines whose columns begin below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _configs(options: argparse.Namespace) -> None:
    from msgm.settings import domain_of, read_settings

    rows = []
    for name in configs.names():
        comments = "\n".join(configs.comments(name))
        rows.append([name, domain_of(read_settings(name)), first_sentence(comments)])
    print("\n".join(aligned_left([["config", "domain", "what it is"], *rows])))


def _listed(what: str, options: argparse.Namespace) -> None:
    known = entries(what)
    if options.names:
        _cards(what, known, options.names)
        return
    rows = [[entry.name, entry.domain, line(first_sentence(inspect.getdoc(entry.part) or ""))] for entry in known]
    table = [[what.removesuffix("s"), "domain", "what it is"], *rows]
    one_domain = len(REGISTRIES[what]) == 1
    print("\n".join(aligned_left([[row[0], *row[2:]] if one_domain else row for row in table])))
    print(f"\nmsgm {what} NAME prints a card with all settings.")


def _cards(what: str, known: Sequence[Entry], names: Sequence[str]) -> None:
    """Print the cards of ``names``; a name that several domains have is printed for each of them."""
    several = len(REGISTRIES[what]) > 1
    for name in names:
        found = [entry for entry in known if entry.name == name]
        if not found:
            all_names = list(dict.fromkeys(entry.name for entry in known))
            kind = what.removesuffix("s")
            raise UserError(f"unknown {kind} {name!r}; known: {', '.join(all_names)}.{nearest(name, all_names)}")
        for entry in found:
            print_card(f"{name} ({entry.domain})" if several else name, entry.part)
