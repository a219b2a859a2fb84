"""Audit of any unlearned classifier from saved logits: what its outputs still show of the forgotten items.

It needs only files of logits (``outputs``): of the model, of the original before unlearning, and of at least five
models retrained without the forgotten items. All metrics that need only logits are measured, except costly ones. The
original has to be flagged and held-out retrained models must not be (``claims``); otherwise no conclusion is drawn.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from msgm.cards.history import history
from msgm.cards.views import Card
from msgm.classifier.card import WORDS
from msgm.classifier.ladder import LADDER, TARGETS
from msgm.classifier.metrics import METRICS, Case, Metric
from msgm.classifier.metrics.scores import controls, forgotten_classes
from msgm.classifier.outputs import NEEDED, Outputs, load_outputs
from msgm.digests import file_digest, short_digest
from msgm.errors import UserError
from msgm.folders import locked, write_json
from msgm.runs import Run, environment, refuse_served
from msgm.study.card import write_card
from msgm.study.judging import BAND_RULE, Numbers, judge, means
from msgm.study.measuring import measure, measure_retrains
from msgm.traces import seal_views

SEED = 0
"""A file is one model: the report has one seed, which means nothing."""


@dataclass(frozen=True)
class Asked:
    """The forget request of the audited model, which files of logits do not contain.

    Attributes:
        goal: ``removal`` of information from the model, or ``suppression`` of its outputs.
        target: ``observed`` items, a ``latent`` attribute, or a ``concept``.
        scope: ``instances`` or ``class``; None reads it off the labels.
    """

    goal: Literal["removal", "suppression"] = "removal"
    target: Literal["observed", "latent", "concept"] = "observed"
    scope: Literal["instances", "class"] | None = None


@dataclass(frozen=True)
class Audit:
    """A finished audit: its folder, the report and the target's card."""

    run: Run
    report: dict[str, Any]
    card: Card


def audit(target: Path, original: Path, retrains: Sequence[Path], out: Path, asked: Asked | None = None) -> Audit:
    """Audit a model by its logits and write report.json and card.{json,md,html}.

    Args:
        target: file of the model to audit.
        original: file of the model before unlearning; it may be the target, which is then flagged.
        retrains: files of models trained without the items to forget; from fewer than five no band is made.
        out: folder for the report.
        asked: the request.

    Raises:
        UserError: a file that cannot be read, lacks an array or does not fit the others, no retrained model, one
            identical to the target, the original or another retrained model, or a scope that the labels contradict.
    """
    files = _read(target, original, retrains)
    models = [files[path] for path in retrains]
    case = Case(files[target], files[original], models)
    case = replace(case, scope=_scope(case.target, (asked or Asked()).scope))
    metrics = [metric() for metric in METRICS.entries.values() if not metric.live and not metric.costly]
    band = measure_retrains(case, metrics)
    rows = [
        _row(target.stem if target.stem != LADDER.original else "target", measure(case, metrics), band, metrics)
        | {"history": case.target.history or history(None)},
        _row(LADDER.original, measure(replace(case, target=case.original), metrics), band, metrics),
    ]
    report = judge(_report(case, asked or Asked(), rows, [target, original, *retrains]), LADDER)
    run = Run(out)
    with locked(run.path):
        refuse_served(run.path)
        write_json(run.report, report)
        card = write_card(run.path, report, report["rows"][0], WORDS)
        seal_views(run.path)
    return Audit(run, report, card)


def _read(target: Path, original: Path, retrains: Sequence[Path]) -> dict[Path, Outputs]:
    """Read all files and refuse those that cannot be compared."""
    if not retrains:
        raise UserError("an audit needs retrained models: give their files of logits to --retrains.")
    files = {path: _needed(load_outputs(path)) for path in dict.fromkeys([target, original, *retrains])}
    for path, outputs in files.items():
        _no_probabilities(path, outputs)
        _same_items(target, files[target], path, outputs)
    seen = {
        _logits_digest(files[original]): f"--original ({original})",
        _logits_digest(files[target]): f"the target ({target})",
    }
    for path in retrains:
        twin = seen.get(_logits_digest(files[path]))
        if twin is not None:
            raise UserError(
                f"--retrains: {path} holds the same logits as {twin}; a retrained model must be another one."
            )
        seen[_logits_digest(files[path])] = f"another one of --retrains ({path})"
    return files


def _needed(outputs: Outputs) -> Outputs:
    """Return the parts that every file has."""
    logits = {part: outputs.logits[part] for part in NEEDED}
    strata = {part: codes for part, codes in outputs.strata.items() if part in NEEDED}
    return Outputs(logits, {part: outputs.labels[part] for part in NEEDED}, outputs.history, strata)


def _no_probabilities(path: Path, outputs: Outputs) -> None:
    """Refuse a file whose rows are probabilities instead of logits: a second softmax would give wrong probabilities."""
    if all(z.min() >= 0 and np.allclose(z.sum(1), 1, atol=1e-3) for z in outputs.logits.values()):
        raise UserError(
            f"{path}: every row lies in [0, 1] and sums to 1, so it holds probabilities p, not logits; give log(p)."
        )


def _same_items(first: Path, expected: Outputs, path: Path, found: Outputs) -> None:
    for part in NEEDED:
        shapes = [outputs.logits[part].shape for outputs in (expected, found)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{path}: logits_{part} has shape {shapes[1]}, where {first} has {shapes[0]}.")
        if not np.array_equal(expected.labels[part], found.labels[part]):
            raise UserError(
                f"{path}: labels_{part} differ from those of {first}; the items and their order must agree."
            )
        if not np.array_equal(expected.stratum(part), found.stratum(part)):
            raise UserError(f"{path}: strata_{part} differ from those of {first}; all files need the same ones.")


def _logits_digest(outputs: Outputs) -> str:
    return short_digest(np.ascontiguousarray(outputs.logits[part]).tobytes() for part in NEEDED)


def _scope(outputs: Outputs, given: str | None) -> str:
    """Return the scope of the request: ``class`` where a class to forget has no item to retain."""
    gone = forgotten_classes(outputs)
    if given == "class" and not len(gone):
        raise UserError("--scope class: every class of the forget items has items to retain; use --scope instances.")
    return given or ("class" if len(gone) else "instances")


def _row(name: str, numbers: Numbers, band: Sequence[Numbers], metrics: Sequence[Metric]) -> dict[str, Any]:
    described = {key: number for metric in metrics for key, number in metric.numbers.items()}
    return {
        "method": name,
        "request": "audit",
        **dict.fromkeys(("seconds", "preparation_seconds", "storage_bytes", "examples", "card", "artefacts")),
        "settings": {},
        "family": "none" if name == LADDER.original else "unknown: made elsewhere",
        "metrics": {key: entry | asdict(described[key]) for key, entry in means([numbers]).items()},
        "retrain_band": [{"retrain": k, "of": 1, "metrics": tree} for k, tree in enumerate(band)],
        "per_seed": [{"seed": SEED, "metrics": numbers, "seconds": None}],
    }


def _report(case: Case, asked: Asked, rows: list[dict[str, Any]], paths: list[Path]) -> dict[str, Any]:
    sizes = {part: len(labels) for part, labels in case.target.labels.items()}
    labels = short_digest(np.ascontiguousarray(case.target.labels[part]).tobytes() for part in NEEDED)
    request = {
        "text": f"{asked.goal} of the {TARGETS[asked.target]} of the file's forget part",
        "goal": asked.goal,
        "target": asked.target,
        "scope": case.scope,
        "n": sizes["forget"],
        "forget_digest": None,
        "near_duplicates": None,
        "without_controls": controls(case.target).unmatched,
    }
    return {
        "kind": "classifier",
        "title": "audit from saved logits",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "outputs_only": True,
        "data": {"name": "given by labels alone", "digest": f"labels {labels}", "n": sizes},
        "network": None,
        "training": None,
        "seeds": [],
        "requests": {"audit": request},
        "protocol": _protocol(paths),
        "environment": environment(),
        "rows": rows,
    }


def _protocol(paths: list[Path]) -> dict[str, str]:
    digests = [f"{path.name} (sha256 {file_digest(path)[:16]})" for path in paths]
    return {
        "model": digests[0],
        "original": digests[1],
        "retrained models": ", ".join(digests[2:]),
        "band": BAND_RULE,
        "held out": "each retrained model against the others, of which it needs four",
    }
