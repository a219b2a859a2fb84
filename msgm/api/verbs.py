"""``msgm.train``, ``unlearn``, ``compare`` and ``evaluate``: the command line's verbs, for generators and all others.

Each takes a config as the command line does and chooses the domain by what stands in it: generators (score-based
models), classifiers, recommenders, or the attributes of a recommender's users.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgm.api.experiments import ConfigLike, Named, Overrides, working
from msgm.api.report import Report
from msgm.config import load_config
from msgm.errors import UserError
from msgm.runs import Run

Folder = Path | str


def train(
    config: ConfigLike,
    out: Folder | None = None,
    resume: bool = False,
    device: str = "auto",
    *,
    seed: int | None = None,
    model: str | None = None,
    overrides: Overrides = (),
    download: bool = False,
    threads: int | None = None,
) -> Run:
    """Train the model of a config from random weights, as ``msgm train`` does.

    Example:
        >>> tiny = {"training.steps": 2, "training.trackers": [], "network.channels": [8]}
        >>> run = msgm.train({"data": {"name": "digits"}}, out / "base", overrides=tiny)
        base: standard, 2 steps on ...
        >>> run.model.name
        'model'

    Args:
        config: name of a shipped config, path of a YAML file, settings by name, or a config that was read.
        out: run folder; by default below ``runs/``, as on the command line.
        resume: go on with a generator's run that was stopped.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        seed: seed of the run; by default the config's.
        model: of a recommender's config, the model to fit; needed where it has several.
        overrides: settings over the config's.
        download: let data that is missing be fetched from the network.
        threads: threads to compute with, for the rest of the process.

    Returns:
        The run: ``path`` is its folder, ``model`` the model's. A recommender's folder is one to serve from.

    Raises:
        UserError: bad settings, data that do not fit, or a folder that holds another run.
    """
    named = Named.read(config, overrides, seed)
    own = named.options("train", {"resume": resume, "device": device, "model": model})
    with working(False, download, threads):
        return named.client.train(named.config(), out, **own)


def unlearn(
    config: ConfigLike,
    source: Folder,
    out: Folder | None = None,
    resume: bool = False,
    device: str = "auto",
    fresh_chain: bool = False,
    *,
    seed: int | None = None,
    method: str | None = None,
    request: str | None = None,
    trained_on: Folder | None = None,
    overrides: Overrides = (),
    trust: bool = False,
    download: bool = False,
    threads: int | None = None,
) -> Run:
    """Make a trained model forget what the config asks, as ``msgm unlearn`` and ``msgm classifier unlearn`` do.

    What ``source`` was asked to forget before stays forgotten.

    Example:
        >>> tiny = {"training.steps": 2, "training.trackers": [], "network.channels": [8]}
        >>> base = msgm.train({}, out / "base", overrides=tiny)
        base: standard, 2 steps on ...
        >>> wish = {"request": {"labels": [3, 7]}, "objective": {"name": "redirect"}}
        >>> run = msgm.unlearn(wish, base.path, out / "forgot", overrides=tiny)
        forgot: redirect, 2 steps on ...
        >>> run.model.name
        'model'

    Args:
        config: name of a shipped config, path of a YAML file, settings by name, or a config that was read.
        source: a run; for generators also a diffusers folder, for classifiers also a file of weights.
        out: run folder; by default below ``runs/``, as on the command line.
        resume: go on with a generator's run that was stopped.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        fresh_chain: start a new history: items of earlier requests are items to retain again, and the card says so.
        seed: seed of the run; for generators by default the config's, for classifiers the source's.
        method: of a classifier, the row of the config that forgets.
        request: of a classifier, the request of the config; needed where it has several.
        trained_on: of a classifier's file of weights, the file that names the items it was trained on.
        overrides: settings over the config's.
        trust: run the Python files, and open the files, that the source's folder names.
        download: let data that is missing be fetched from the network.
        threads: threads to compute with, for the rest of the process.

    Raises:
        UserError: bad settings, no model in ``source``, data that is not that of earlier requests, a folder that holds
            another run, or a recommender: those forget through ``msgm.recommender``.
    """
    named = Named.read(config, overrides)
    options = {
        "resume": resume,
        "device": device,
        "fresh_chain": fresh_chain,
        "seed": seed,
        "method": method,
        "request": request,
        "trained_on": trained_on,
    }
    own = named.options("unlearn", options)
    with working(trust, download, threads):
        return named.client.unlearn(named.config(), source, out, **own)


def compare(
    config: ConfigLike,
    out: Folder | None = None,
    only: Sequence[str] | None = None,
    source: Folder | None = None,
    device: str = "auto",
    fresh_chain: bool = False,
    *,
    seed: int | None = None,
    start: Literal["scratch", "finetune"] | None = None,
    sweep: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    requests: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    trained_on: Folder | None = None,
    tuned: Folder | None = None,
    cache: bool = True,
    jobs: int = 1,
    cluster: str | None = None,
    overrides: Overrides = (),
    trust: bool = False,
    download: bool = False,
    threads: int | None = None,
) -> Report:
    """Run and measure every row of a config, as ``msgm compare`` does, and return the report.

    The same call goes on where an earlier one stopped, and rows that are measured already are kept.

    Example:
        >>> report = msgm.compare({}, compared, only=["do-nothing", "obtuse"], overrides=tiny, device="cpu")
        judge: already trained...
        >>> sorted(row.name for row in report.rows)
        ['do-nothing', 'obtuse', 'unseen']
        >>> report.run.name
        'compared'

    Args:
        config: name of a shipped config, path of a YAML file, settings by name, or a config that was read.
        out: compare folder; by default ``runs/NAME``.
        only: rows (objectives, methods, erasures) to run; by default all that are not optional.
        source: where the base model comes from; by default it is trained. A run or a diffusers folder for generators, a
            file of weights for classifiers.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        fresh_chain: of generators: what ``source`` was asked to forget before is data to retain again.
        seed: the first seed; by default the config's.
        start: of generators, where rows start.
        sweep: of generators, ``objective.SETTING=V1,V2`` or ``training.SETTING=V1,V2``.
        metrics: what to measure; by default what the config says.
        requests: of classifiers and recommenders, the requests to run.
        models: of recommenders, the models to run.
        trained_on: of a classifier's file of weights, the file that names the items it was trained on.
        tuned: folder of ``msgm.tune``, whose chosen values are laid over the config and the overrides.
        cache: of generators and classifiers, take models that are retrained without the request from the user's
            cache, and keep them there; see ``msgm cache``.
        jobs: how many models are made and measured at a time, each in a process of its own. A script that gives more
            than one calls this below ``if __name__ == "__main__":``.
        cluster: address of a dask scheduler whose workers make and measure the models.
        overrides: settings over the config's.
        trust: run the Python files, and open the files, that the source's folder names.
        download: let data and weights that are missing be fetched from the network.
        threads: threads to compute with, for the rest of the process.

    Raises:
        UserError: bad settings, an unknown row, or a folder that holds another comparison.
    """
    named = Named.read(config, overrides, seed).with_tuned(tuned)
    options = {
        "only": only,
        "source": source,
        "device": device,
        "fresh_chain": fresh_chain,
        "jobs": None if jobs == 1 else jobs,
        "cluster": cluster,
        "start": start,
        "sweep": sweep if isinstance(sweep, str) else tuple(sweep),
        "metrics": metrics,
        "requests": requests,
        "models": models,
        "trained_on": trained_on,
    }
    for name in ("only", "metrics", "requests", "models", "sweep"):
        if isinstance(options[name], str):
            raise UserError(f"{name}: expected a list of names, got the one text {options[name]!r}.")
    own = named.options("compare", options)
    if "cache" in named.client.takes():
        own["cache"] = cache
    elif not cache:
        raise UserError(f"compare: a {named.domain} experiment shares no models through a cache; leave --no-cache out.")
    own.pop("metrics", None)  # these are a setting of the config
    with working(trust, download, threads):
        return Report.read(named.client.compare(named.measuring(metrics).config(), out, **own).path)


def evaluate(
    config: ConfigLike | None,
    sources: Folder | Sequence[Folder],
    out: Folder | None = None,
    device: str = "auto",
    *,
    seed: int | None = None,
    metrics: Sequence[str] | None = None,
    overrides: Overrides = (),
    trust: bool = False,
    download: bool = False,
    threads: int | None = None,
) -> Report:
    """Measure trained generators, as ``msgm evaluate`` does, and return the report.

    Example:
        >>> report = msgm.evaluate(None, compared / "rows" / "unseen", out=out / "measured", metrics=["nll"])
        judge: training...
        >>> [row.name for row in report.rows]
        ['unseen']

    Args:
        config: the experiment: data, request and protocol; None takes the first run's own.
        sources: one or several runs or diffusers folders.
        out: folder of the report; by default the run itself when one run is given, else ``runs/NAME-evaluation``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        seed: seed of the samples; by default the config's.
        metrics: what to measure; by default what the config says.
        overrides: settings over the config's.
        trust: run the Python files, and open the files, that the folders name.
        download: let data and weights that are missing be fetched from the network.
        threads: threads to compute with, for the rest of the process.

    Raises:
        UserError: bad settings, no model in a folder, or a config of classifiers or recommenders: those are measured
            by ``compare``.
    """
    from msgm.config import SECTIONS
    from msgm.generator.evaluate import evaluate as evaluate_runs
    from msgm.plugins import load_received

    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise UserError("evaluate: name at least one run to measure.")
    with working(trust, download, threads):
        named = Named.read(load_received(Path(given[0]), SECTIONS) if config is None else config, overrides, seed)
        if named.domain != "generator":
            raise UserError(f"evaluate measures generators; a {named.domain} experiment is measured by compare.")
        wanted = load_config(named.measuring(metrics).tree)
        return Report.read(evaluate_runs(wanted, list(map(str, given)), out, device).path)
