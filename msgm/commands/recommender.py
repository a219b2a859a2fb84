"""``msgm recommender ...`` on the command line. numpy, scipy and torch are imported when work starts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from msgm.arguments import (
    GO_ON,
    Commands,
    command,
    config,
    metrics,
    print_cards,
    received,
    seed,
    settings,
    threads,
    tuned,
    whole,
    workers,
)
from msgm.commands import attributes, compare
from msgm.errors import RunError, UserError

if TYPE_CHECKING:
    from msgm.recommender.config import RecommenderConfig


def add(commands: Commands) -> None:
    """Add ``recommender`` and its own commands."""
    text = "make recommenders forget, exactly where mathematics allows it, and compare the ways"
    own = commands.add_parser("recommender", help=text, description=text).add_subparsers(
        title="commands", required=True, dest="recommender_command", metavar="COMMAND"
    )
    _add_compare(own)
    _add_service(own)
    _add_cards(own)
    attributes.add(own)


def _experiment(parser: argparse.ArgumentParser) -> None:
    config(parser)
    seed(parser)
    threads(parser)


def _add_compare(commands: Commands) -> None:
    parser = command(commands, "compare", compare.run, "run every method on every model and request, against refits")
    _experiment(parser)
    parser.add_argument("--out", metavar="DIR", help="where to write; by default runs/NAME")
    parser.add_argument("--only", metavar="METHOD,METHOD", help="run only these; the report shows all that are there")
    parser.add_argument("--models", metavar="NAME,NAME", help="run only these models of the config")
    parser.add_argument("--requests", metavar="NAME,NAME", help="run only these requests of the config")
    metrics(parser, "what to measure; by default all that are not costly")
    tuned(parser)
    workers(parser)
    parser.set_defaults(go_on=GO_ON)


def _add_service(commands: Commands) -> None:
    fit = command(commands, "fit", _fit, "fit a model of the config to all its data, into a folder to serve from")
    _experiment(fit)
    fit.add_argument("--model", metavar="NAME", help="of the config; needed where it has several")
    fit.add_argument("--out", metavar="DIR", help="where to write; by default runs/NAME/MODEL")

    forget = command(
        commands,
        "forget",
        _forget,
        "make a fitted model forget, one request a line of a file; the same command again goes on after a crash",
    )
    forget.add_argument("folder", metavar="MODEL", help="folder of msgm recommender fit")
    what = forget.add_mutually_exclusive_group(required=True)
    what.add_argument("--users", metavar="FILE", help="one user id a line")
    what.add_argument("--items", metavar="FILE", help="one item id a line")
    what.add_argument("--interactions", metavar="FILE", help="user and item a line, a tab or a comma between")
    what.add_argument("--resume", action="store_true", help="finish what a crash left")
    forget.add_argument("--together", action="store_true", help="make all lines one request, which is faster")
    threads(forget)

    recommend = command(commands, "recommend", _recommend, "print the items that are best for a user, one a line")
    recommend.add_argument("folder", metavar="MODEL", help="folder of msgm recommender fit")
    recommend.add_argument("--user", metavar="ID", required=True, help="the user's id")
    recommend.add_argument("-k", type=int, default=10, help="how many items (10)")
    whatif = command(
        commands, "whatif", _what_if, "print a user's list, and what it would be without some of their items"
    )
    whatif.add_argument("folder", metavar="MODEL", help="folder of msgm recommender fit, which is not changed")
    whatif.add_argument("--user", metavar="ID", required=True, help="the user's id")
    history = whatif.add_mutually_exclusive_group(required=True)
    history.add_argument("--items", metavar="ID", nargs="+", help="ids of items to withdraw from the user's history")
    history.add_argument("--all", action="store_true", help="withdraw the whole history")
    whatif.add_argument("-k", type=int, default=10, help="how many items (10)")
    serve = command(commands, "serve", _serve, "answer lists and requests to forget over HTTP; needs msgm[serve]")
    serve.add_argument("folder", metavar="MODEL", help="folder of msgm recommender fit")
    serve.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="other than loopback needs a token")
    serve.add_argument("--port", type=whole(0), metavar="N", default=8000, help="8000; 0 takes any that is free")
    serve.add_argument("--readers", type=whole(1), metavar="N", default=1, help="processes that compute lists (1)")
    serve.add_argument("--token-file", metavar="FILE", help="text that a caller must send as its bearer token")
    audited = command(commands, "audit", _audit, "check what a folder that has forgotten still shows, and only read it")
    audited.add_argument("folder", metavar="MODEL", help="folder of msgm recommender fit")
    audited.add_argument("--users", type=whole(1), default=200, metavar="N", help="users whose lists are sampled (200)")
    audited.add_argument(
        "--forgotten", metavar="FILE", help="ids of forgotten users, one a line, to time their refusals"
    )
    audited.add_argument(
        "--refit-seconds", type=whole(0), default=600, metavar="N", help="the longest that fitting anew may take (600)"
    )
    audited.add_argument("--json", action="store_true", help="print the same as JSON")
    seed(audited)
    threads(audited)
    for parser in (forget, recommend, whatif, audited, serve):
        received(parser)
    for parser in (fit, forget, recommend, whatif, audited, serve):
        parser.set_defaults(go_on="Run the same command again.")


def _add_cards(commands: Commands) -> None:
    methods = command(commands, "methods", _methods, "print the cards of the methods")
    methods.add_argument("names", metavar="NAME", nargs="*", help="all when none is given")
    models = command(commands, "models", _models, "print what the models are, and their settings")
    models.add_argument("names", metavar="NAME", nargs="*", help="all when none is given")


def _config(options: argparse.Namespace) -> "RecommenderConfig":
    from msgm.recommender.config import load_config

    return load_config(options.config, settings(options))


def _fit(options: argparse.Namespace) -> None:
    config = _config(options)
    from msgm.folders import place
    from msgm.recommender.fitting import fit

    out = options.out or place(Path("runs"), config.name, options.model or "model", key="--model")
    print(f"wrote {fit(config, options.model, Path(out))}")


def _forget(options: argparse.Namespace) -> None:
    from msgm.recommender.journal import NAME as JOURNAL
    from msgm.recommender.leftovers import not_searched
    from msgm.recommender.service import KINDS, Service
    from msgm.tabular import read_ids, read_pairs

    service = Service(Path(options.folder))
    if options.resume:
        outcome = service.resume()
    else:
        kind = next(kind for kind in KINDS if getattr(options, kind))
        read = read_pairs if kind == "interactions" else read_ids
        ids, places = read(Path(getattr(options, kind)), f"--{kind}")
        outcome = service.forget(kind, ids, options.together, places)
    for number in outcome.before:
        print(f"request {number}: was answered before")
    for path in outcome.unsearched:
        print(not_searched(path))
    seconds = sum(answer.seconds for answer in outcome.answers)
    if outcome.answers:
        exactness = ", ".join(dict.fromkeys(answer.exactness for answer in outcome.answers))
        count = len(outcome.answers)
        what = "request" if count == 1 else "requests"
        print(f"answered {count} {what} in {seconds:.3f} s ({exactness}); see {service.folder / JOURNAL}")
    elif not outcome.before and not outcome.refused:
        print("nothing was pending")
    if outcome.refused:
        reasons = "; ".join(f"request {number}: {reason}" for number, reason in outcome.refused.items())
        raise UserError(f"the model could not answer {reasons.rstrip('.')}.")


def _recommend(options: argparse.Namespace) -> None:
    from msgm.recommender.service import Service

    print("\n".join(Service(Path(options.folder)).recommend(options.user, options.k)))


def _what_if(options: argparse.Namespace) -> None:
    from itertools import zip_longest

    from msgm.recommender.service import Service
    from msgm.recommender.whatif import told

    found = Service(Path(options.folder)).what_if(options.user, None if options.all else options.items, options.k)
    print("now\twithout")
    for before, after in zip_longest(found.before, found.after, fillvalue="-"):
        print(f"{before}\t{after}")
    print("\n".join(told(found, options.items or [])))


def _serve(options: argparse.Namespace) -> None:
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {' and '.join(missing)}, not installed here: pip install 'msgm[serve]'.")
    from msgm.recommender.serving.server import serve

    token = None if options.token_file is None else Path(options.token_file)
    serve(Path(options.folder), options.host, options.port, options.readers, token)


def _audit(options: argparse.Namespace) -> None:
    import json

    from msgm.recommender.auditing.audit import audit, told
    from msgm.tabular import read_ids

    ids, places = read_ids(Path(options.forgotten), "--forgotten") if options.forgotten else ([], [])
    made = audit(Path(options.folder), options.users, options.seed or 0, ids, places, options.refit_seconds)
    print(json.dumps(made.to_dict(), indent=2) if options.json else "\n".join(told(made)))
    if made.failed:
        raise RunError(f"{options.folder} does not pass: {', '.join(made.failed)}.")


def _methods(options: argparse.Namespace) -> None:
    from msgm.recommender.methods import METHODS

    print_cards(options.names, METHODS.entries, "method")


def _models(options: argparse.Namespace) -> None:
    from msgm.recommender.models import MODELS

    print_cards(options.names, MODELS.entries, "model")
