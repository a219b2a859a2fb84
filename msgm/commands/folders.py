"""``msgm data``, ``report``, ``forget-traces`` and ``verify``: commands on configs and folders of any domain."""

import argparse
from pathlib import Path

from msgm.arguments import Commands, command, config, names, received, seed, settings
from msgm.errors import UserError


def add(commands: Commands) -> None:
    """Add the commands."""
    _add_data(commands)
    _add_views(commands)


def _add_views(commands: Commands) -> None:
    report = command(commands, "report", _report, "rebuild the views of a comparison from its report.json")
    report.add_argument("run", metavar="RUN", help="a compare folder")
    received(report)

    listed = command(commands, "forget-traces", _forget_traces, "list what still holds items to forget, or delete it")
    listed.add_argument("run", metavar="RUN", help="a run or compare folder, of a generator, classifier or recommender")
    listed.add_argument("--delete", metavar="PATH", nargs="+", help="delete these, as the list names them")
    verified = command(
        commands, "verify", _verify, "hash weights, chains, reports and cards again: are they as written"
    )
    verified.add_argument("run", metavar="RUN", help="as of forget-traces")
    for parser in (listed, verified):
        parser.set_defaults(go_on="Run the same command again.")


def _add_data(commands: Commands) -> None:
    data = command(
        commands,
        "data",
        _data,
        "list what a config's requests would forget and retain, of generators, classifiers and recommenders, or what "
        "is read of a log of interactions; trains nothing",
    )
    config(data, "; or a run folder; or a log of interactions: CSV and the like, gzipped or not, or Parquet")
    seed(data)
    data.add_argument("--requests", metavar="NAME,NAME", help="only these requests of the config")
    data.add_argument("--list", action="store_true", help="list all items, not the first ones")
    received(data)
    data.set_defaults(go_on="Run the same command again.")


def _report(options: argparse.Namespace) -> None:
    from msgm.cards.stored import showing
    from msgm.domains import of_report, read_report
    from msgm.folders import locked
    from msgm.runs import Run
    from msgm.traces import seal_views

    run = Run(options.run)
    report = read_report(run.report)
    client = of_report(report)
    with locked(run.path), showing(run.report):
        client.write_views(run, report)
        seal_views(run.path, rebuilt=True)
        client.print_report(report)


def _data(options: argparse.Namespace) -> None:
    from msgm.commands.log import account_lines, is_log
    from msgm.commands.preview import preview

    path, requests = Path(options.config), names(options.requests) if options.requests else None
    if is_log(path):
        if requests is not None:
            raise UserError(f"--requests: {path} is a log, which has no requests; name a config.")
        lines = account_lines(path, settings(options))
    else:
        lines = preview(path, settings(options), requests, options.list)
    for line in lines:
        print(line, flush=True)


def _forget_traces(options: argparse.Namespace) -> None:
    from msgm.traces import delete, report_lines

    run = Path(options.run)
    for path in delete(run, options.delete) if options.delete else ():
        print(f"deleted {path}")
    print("\n".join(report_lines(run)))


def _verify(options: argparse.Namespace) -> None:
    from msgm.commands.answered import lines
    from msgm.traces import verify

    run = Path(options.run)
    checked, faults = verify(run)
    for fault in faults:
        print(fault)
    if faults:
        raise UserError(f"{run} is not as it was written: {faults[0]}")
    for line in lines(run):
        print(line)
    print(f"all {checked} files are as they were written: weights, chains, reports and cards")
