"""``msgm compare``: run and measure every row of a config, of any domain; the domain's own commands do the same."""

import argparse
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from msgm import processes
from msgm.arguments import GO_ON, Commands, command, experiment, fresh_chain, metrics, names, received, tuned, workers
from msgm.errors import UserError
from msgm.tables import Table

LISTS = ("only", "requests", "models", "metrics")
VIEWS = ("report.md", "report.json", "samples.png", "sweep.png", "rows", "outputs", "cards")
GIVEN = ("source", "device", "fresh_chain", "start", "trained_on", "tuned", "jobs", "cluster", "seed")


def add(commands: Commands) -> None:
    """Add the command."""
    text = "run every row of a config (an objective, a method, an erasure), measure all, and write one report"
    compare = command(commands, "compare", run, text)
    experiment(compare)
    compare.set_defaults(go_on=GO_ON)
    compare.add_argument("--only", metavar="ROW,ROW", help="run only these rows; the report shows all that are there")
    compare.add_argument(
        "--from",
        dest="source",
        metavar="RUN",
        help="take the base model from a run or diffusers folder; of classifiers, from a file of weights",
    )
    fresh_chain(compare)
    tuned(compare)
    compare.add_argument("--start", choices=["scratch", "finetune"], help="where rows start; else the config says it")
    compare.add_argument(
        "--sweep",
        metavar="KEY=V1,V2",
        action="append",
        help="run rows once for every value of objective.SETTING, edit.SETTING or training.SETTING; --only says which",
    )
    compare.add_argument("--requests", metavar="NAME,NAME", help="run only these requests of the config")
    compare.add_argument("--models", metavar="NAME,NAME", help="of recommenders: run only these models of the config")
    trained_on(compare)
    metrics(compare, "what to measure; rows keep what was measured before")
    no_cache(compare)
    text = "of generators: build every row, make a few steps on random items, print what they take, and write nothing"
    compare.add_argument("--dry-run", action="store_true", help=text)
    workers(compare)
    received(compare)


def trained_on(parser: argparse.ArgumentParser) -> None:
    """Add ``--trained-on``."""
    text = "of a file of weights: the items it was trained on, one position or file name a line; others are held out"
    parser.add_argument("--trained-on", metavar="FILE", help=text)


def no_cache(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-cache``."""
    text = "train retrained models here, and do not keep them for other runs; of generators and classifiers"
    parser.add_argument("--no-cache", action="store_true", help=text)


def run(options: argparse.Namespace) -> None:
    """Compare, and print the written files; an option that a command lacks counts as not given."""
    from msgm.api.verbs import compare

    if options.command != "compare":
        _refuse_other_domains(options)
    if getattr(options, "dry_run", False):
        print(_dry_run(options).text())
        return
    given: dict[str, Any] = {name: getattr(options, name) for name in GIVEN if hasattr(options, name)}
    given |= {name: names(text) for name in LISTS if (text := getattr(options, name, None))}
    sweep, cache = getattr(options, "sweep", None) or (), not getattr(options, "no_cache", False)
    report = compare(options.config, options.out, sweep=sweep, cache=cache, overrides=options.set, **given)
    say_written(report.run)


def _dry_run(options: argparse.Namespace) -> Table:
    """Return what the rows of a config would take."""
    from msgm.domains import of_config
    from msgm.settings import read_settings

    for name, value in {"--from": options.source, "--start": options.start, "--sweep": options.sweep}.items():
        if value:
            raise UserError(f"--dry-run: it does not read {name}; leave it out.")
    own = read_settings(options.config)
    whole = read_settings(own, options.set)
    only = names(options.only) if options.only else None
    client = of_config(own, whole)
    with redirect_stdout(StringIO()):  # the steps' own lines
        return client.dry_run(client.load(whole), only, options.device)


def _refuse_other_domains(options: argparse.Namespace) -> None:
    """Refuse the config of another domain where a classifier's or a recommender's own command was given."""
    from msgm.settings import domain_of_config

    domain = domain_of_config(options.config, options.set)
    module = {"attributes": "recommender"}.get(domain, domain)
    if options.command != module:
        raise UserError(f"{options.config} is of the domain {domain}: use msgm compare {options.config}.")


def say_written(folder: Path) -> None:
    """Print which views a report has."""
    if processes.is_first():
        views = [name for name in VIEWS if (folder / name).exists()]
        print(f"\nwrote {folder / 'report.html'}, {', '.join(views)}")
