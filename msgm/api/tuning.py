"""``msgm.tune``: the search behind ``msgm tune``, for every domain."""

from collections.abc import Sequence
from pathlib import Path

from msgm.api.experiments import ConfigLike, Named, Overrides, working
from msgm.errors import UserError
from msgm.fields import Tree
from msgm.runs import Run
from msgm.study.tuning import OBJECTIVE
from msgm.study.tuning import tune as search


def tune(
    config: ConfigLike,
    trials: int = 20,
    out: Path | str | None = None,
    rows: Sequence[str] | None = None,
    metric: str = OBJECTIVE,
    source: Path | str | None = None,
    device: str = "auto",
    *,
    seed: int | None = None,
    overrides: Overrides = (),
    trust: bool = False,
    download: bool = False,
    threads: int | None = None,
) -> Tree:
    """Search the settings of a config's rows on the validation part, as ``msgm tune`` does; needs ``msgm[tune]``.

    The same call goes on where an earlier one stopped. ``compare(config, tuned=out)`` takes what was chosen.

    Example:
        >>> found = msgm.tune({}, trials=1, out=out / "tuned", rows=["redirect"], overrides=tiny)
        judge: training...
        >>> found["rows"]["redirect"]["trials"]
        1

    Args:
        config: name of a shipped config, path of a YAML file, settings by name, or a config that was read.
        trials: for every row, in all; the first has the config's own values.
        out: folder of the search; by default ``runs/NAME-tune``.
        rows: rows (objectives, methods, erasures) to tune; by default all that have a setting to search.
        metric: the number to judge by; by default the domain's objective.
        source: where the base model comes from: for generators a run or a diffusers folder, for classifiers a file of
            weights; by default it is trained.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        seed: seed of models and draws; by default the config's.
        overrides: settings over the config's.
        trust: run the Python files, and open the files, that the source's folder names.
        download: let data that is missing be fetched from the network.
        threads: threads to compute with, for the rest of the process.

    Returns:
        What ``tune.json`` in the folder holds: ``objective`` in words, and by row ``own`` (the objective at the
        config's values), ``best``, ``values``, ``numbers``, ``trials`` and ``failed``.

    Raises:
        UserError: bad settings, an unknown row or number, no Optuna, or a folder that holds another search.
        RunError: all trials of a row failed.
    """
    if trials < 1:
        raise UserError(f"trials must be at least 1, got {trials}.")
    named = Named.read(config, overrides, seed)
    named.options("tune", {"source": source, "device": device})
    with working(trust, download, threads):
        experiment = named.config()
        run = Run(out or Path("runs") / f"{experiment.name}-tune")
        tunable = named.client.tunable(experiment, run, source, device)
        return search(tunable, run, experiment.name, experiment.seed, trials, rows, metric)
