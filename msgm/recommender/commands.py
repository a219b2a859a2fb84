"""``msgm recommender ...`` on the command line. numpy, scipy and torch are imported when work starts."""

import argparse
import inspect
from typing import TYPE_CHECKING

from msgm.arguments import Commands, command, metrics, names, overrides, print_cards
from msgm.errors import UserError, nearest

if TYPE_CHECKING:
    from msgm.recommender.config import RecommenderConfig


def add(commands: Commands) -> None:
    """Add ``recommender`` and its own commands."""
    text = "make recommenders forget, exactly where mathematics allows it, and compare the ways"
    own = commands.add_parser("recommender", help=text, description=text).add_subparsers(
        title="commands", required=True, dest="recommender_command", metavar="COMMAND"
    )
    _add_compare(own)
    _add_cards(own)


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file of the experiment")
    overrides(parser)
    parser.add_argument("--seed", type=int, help="seed of the run")


def _add_compare(commands: Commands) -> None:
    compare = command(commands, "compare", _compare, "run every method on every model and request, against refits")
    _experiment(compare)
    compare.add_argument("--out", metavar="DIR", help="where to write; by default runs/NAME")
    compare.add_argument("--only", metavar="METHOD,METHOD", help="run only these; the report shows all that are there")
    compare.add_argument("--models", metavar="NAME,NAME", help="run only these models of the config")
    compare.add_argument("--requests", metavar="NAME,NAME", help="run only these requests of the config")
    metrics(compare, "what to measure; by default all")
    compare.set_defaults(go_on="Run the same command again to go on.")


def _add_cards(commands: Commands) -> None:
    methods = command(commands, "methods", _methods, "print the cards of the methods")
    methods.add_argument("names", metavar="NAME", nargs="*", help="all when none is given")
    models = command(commands, "models", _models, "print what the models are, and their settings")
    models.add_argument("names", metavar="NAME", nargs="*", help="all when none is given")


def _config(options: argparse.Namespace) -> "RecommenderConfig":
    from msgm.recommender.config import load_config

    seed = [] if options.seed is None else [f"seed={options.seed}"]
    measured = [f"metrics=[{options.metrics}]"] if getattr(options, "metrics", None) else []
    return load_config(options.config, options.set + seed + measured)


def _compare(options: argparse.Namespace) -> None:
    config = _config(options)
    from msgm.recommender.compare import compare

    chosen = (names(text) if text else None for text in (options.only, options.models, options.requests))
    run = compare(config, options.out, *chosen)
    print(f"\nwrote {run.path / 'report.html'}, report.md, report.json")


def _methods(options: argparse.Namespace) -> None:
    from msgm.recommender.methods import METHODS

    print_cards(options.names, METHODS.entries, "method")


def _models(options: argparse.Namespace) -> None:
    from msgm.recommender.models import MODELS

    for name in options.names or MODELS.entries:
        if name not in MODELS.entries:
            known = list(MODELS.entries)
            raise UserError(f"unknown model {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
        print(f"{name}\n" + "\n".join(f"  {line}" for line in _card(MODELS.entries[name])) + "\n")


def _card(model: type) -> list[str]:
    defaults = ", ".join(f"{key} {value}" for key, value in vars(model()).items()) or "no settings"
    return [*(inspect.getdoc(model) or "").split("\n"), f"defaults: {defaults}"]
