"""``msgm classifier ...`` on the command line. torch is imported when work starts."""

import argparse
from typing import TYPE_CHECKING

from msgm.arguments import (
    GO_ON,
    Commands,
    command,
    experiment,
    fresh_chain,
    metrics,
    print_cards,
    received,
    settings,
    tuned,
    workers,
)
from msgm.commands import audit, compare

if TYPE_CHECKING:
    from msgm.classifier.config import ClassifierConfig


def add(commands: Commands) -> None:
    """Add ``classifier`` and its own commands."""
    text = "make classifiers forget, and compare them with retrained ones"
    own = commands.add_parser("classifier", help=text, description=text).add_subparsers(
        title="commands", required=True, dest="classifier_command", metavar="COMMAND"
    )
    _add_compare(own)
    _add_models(own)
    audit.configure(command(own, "audit", audit.run, "audit a model by saved logits alone"))
    _add_cards(own)


def _add_compare(commands: Commands) -> None:
    parser = command(commands, "compare", compare.run, "run every method on every request, against a band of retrains")
    experiment(parser)
    parser.set_defaults(go_on=GO_ON)
    parser.add_argument("--only", metavar="METHOD,METHOD", help="run only these; the report shows all that are there")
    parser.add_argument("--requests", metavar="NAME,NAME", help="run only these requests of the config")
    metrics(parser, "what to measure; by default all that are not costly")
    parser.add_argument(
        "--from", dest="source", metavar="FILE", help="take weights that were trained elsewhere as the original"
    )
    compare.trained_on(parser)
    compare.no_cache(parser)
    tuned(parser)
    workers(parser)


def _add_models(commands: Commands) -> None:
    train = command(commands, "train", _train, "train the original model of an experiment")
    experiment(train)

    unlearn = command(commands, "unlearn", _unlearn, "make a trained model forget by one method")
    experiment(unlearn)
    unlearn.add_argument(
        "--from",
        dest="source",
        metavar="RUN",
        required=True,
        help="folder of msgm classifier train or unlearn, or a file of weights",
    )
    unlearn.add_argument("--method", required=True, metavar="NAME", help="see msgm classifier methods")
    unlearn.add_argument("--request", metavar="NAME", help="of the config; needed where it has several")
    compare.trained_on(unlearn)
    received(unlearn)
    fresh_chain(unlearn)
    for parser in (train, unlearn):
        parser.set_defaults(go_on="Run the same command again.")


def _add_cards(commands: Commands) -> None:
    methods = command(commands, "methods", _methods, "print the cards of the methods")
    methods.add_argument("names", metavar="NAME", nargs="*", help="all when none is given")
    shown = command(commands, "metrics", _metrics, "print the cards of the metrics")
    shown.add_argument("names", metavar="NAME", nargs="*", help="all when none is given")


def _config(options: argparse.Namespace) -> "ClassifierConfig":
    from msgm.classifier.config import load_config

    return load_config(options.config, settings(options))


def _train(options: argparse.Namespace) -> None:
    config = _config(options)
    from msgm.classifier.single import train

    print(f"wrote {train(config, options.out, options.device).path}")


def _unlearn(options: argparse.Namespace) -> None:
    from msgm.classifier.config import load_config
    from msgm.classifier.single import unlearn

    config = load_config(options.config, options.set)
    chosen = (options.method, options.request, options.seed)
    run = unlearn(config, options.source, *chosen, options.out, options.device, options.fresh_chain, options.trained_on)
    kept = (
        ""
        if (run.model / "network.json").is_file()
        else "; the model, which is not one of the config's network, is not stored"
    )
    print(f"wrote {run.path}{kept}")


def _methods(options: argparse.Namespace) -> None:
    from msgm.classifier.methods import METHODS

    print_cards(options.names, METHODS.entries, "method")


def _metrics(options: argparse.Namespace) -> None:
    from msgm.classifier.metrics import METRICS

    print_cards(options.names, METRICS.entries, "metric")
