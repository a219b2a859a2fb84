"""``msgm tune``: search the settings of a config's rows on the validation part, with as many trials for each row."""

import argparse
from pathlib import Path

from msgm.arguments import GO_ON, Commands, command, experiment, names, received, whole


def add(commands: Commands) -> None:
    """Add the command."""
    text = "search settings of a config's rows, of any domain, on the validation part alone; needs msgm[tune]"
    tune = command(commands, "tune", _tune, text)
    experiment(tune)
    tune.set_defaults(go_on=GO_ON)
    tune.add_argument("--trials", type=whole(1), default=20, metavar="N", help="for every row, in all (20)")
    tune.add_argument("--rows", metavar="ROW,ROW", help="tune only these; by default all that have a setting to search")
    tune.add_argument(
        "--metric",
        metavar="NAME",
        default="objective",
        help="the number to judge by (objective)",
    )
    tune.add_argument(
        "--from", dest="source", metavar="RUN", help="take the base model from there, as compare does; else train it"
    )
    received(tune)


def _tune(options: argparse.Namespace) -> None:
    from msgm.api.tuning import tune
    from msgm.domains import load
    from msgm.study.tuning import table

    out = Path(options.out or Path("runs") / f"{load(options.config, options.set).name}-tune")
    found = tune(
        options.config,
        options.trials,
        out,
        names(options.rows) if options.rows else None,
        options.metric,
        options.source,
        options.device,
        seed=options.seed,
        overrides=options.set,
    )
    print(f"\n{table(found).text()}\n")
    print(f"wrote {out / 'tune.json'}, tuned.yaml; msgm compare {options.config} --tuned {out} takes these values")
