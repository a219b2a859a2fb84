"""The rows of a report of generators: every metric's numbers over seeds, beside those of retrained models.

``judged`` gives them the form that ``msgm.study.judging`` reads and judges. A report of an earlier version, which holds
what was measured alone, is judged in the same way.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from msgm.cards.history import held_checks
from msgm.evaluation.metrics.base import METRICS, Metric, Report, Row
from msgm.study.judging import Criteria, judge
from msgm.study.parts import UNIT, Number, Section
from msgm.study.rows import described

REQUEST = "request"
"""The name of the one request that a report of generators is about."""
FACTS = ("seed", "seconds", "cached", "folder", "model")

TESTS: dict[str, tuple[Section, str]] = {
    "ur": ("forgetting", "how often samples show the content"),
    "c2st": ("forgetting", "whether a classifier tells the samples from those of retrained models"),
    "sample-distance": ("forgetting", "distance of the samples' features from those of retrained models' samples"),
    "score-distance": ("forgetting", "how far the score lies from those of retrained models"),
    "conditions": ("forgetting", "what is given when a forgotten class is asked for, another one, or none"),
    "prompts": ("forgetting", "what prompts bring: the forgotten word, others for it, compositions, other prompts"),
    "nll": ("forgetting", "how likely real items are under the model"),
    "vlb": ("forgetting", "the same by the variational bound, of a DDPM only"),
    "inpainting": ("forgetting", "what fills the hole in an item to forget"),
    "reconstruction": ("forgetting", "whether an item to forget comes back through its own latent"),
    "fid": ("utility", "distance of the samples' features from those of items to retain"),
    "kid": ("utility", "the same, unbiased in small samples"),
    "inception-score": ("utility", "sharpness and variety of the samples"),
    "precision-recall": ("utility", "fidelity and coverage apart"),
    "clip-distance": ("utility", "distance of the samples in CLIP's features"),
    "membership": ("privacy", "whether the likelihood or loss tells training items from held-out ones"),
    "pia": ("privacy", "the same by the noise predicted at a clean item, and predicted again"),
    "secmi": ("privacy", "the same by a deterministic step up and back"),
    "sima": ("privacy", "the same by the noise predicted at a clean item"),
    "extraction": ("privacy", "whether samples copy items to forget, by how often these stand in the data"),
    "lira": ("privacy", "the same by the loss beside those of retrained models"),
    "neighbours": ("privacy", "whether samples repeat training items"),
    "relearning": ("residue", "how fast training on a few items to forget brings the content back"),
    "resurgence": ("residue", "whether training on items to retain brings it back"),
    "partial-noise": ("residue", "whether an item to forget, partly noised, is returned"),
    "latent-inversion": ("residue", "whether the latent of an item to forget is decoded to it"),
    "guided-recall": ("residue", "whether guidance by a classifier of real items brings it back"),
    "noise-search": ("residue", "whether some noise still leads to it"),
    "embedding": ("residue", "whether another embedding of a word to forget still leads to it"),
    "token-search": ("residue", "whether other words lead to it"),
    "prefix-search": ("residue", "whether a few words before a word to forget lead to it"),
    "guidance-sweep": ("residue", "whether other guidance scales and negative prompts bring it back"),
    "weights": ("residue", "whether raw weights show what averaged ones hide"),
    "quantisation": ("residue", "whether coarser weights bring it back"),
    "course": ("residue", "UR and junk in the course of unlearning"),
}
"""Every test of the house: section and what it would show. A plugin's metric stands under forgetting."""

ELSEWHERE: dict[str, Section] = {
    "NLL retain": "utility",
    "VLB retain": "utility",
    "junk %": "utility",
    "junk % asked for forgotten": "utility",
    "junk % asked for others": "utility",
    "IRA %": "utility",
    "accuracy % others": "utility",
    **{f"junk % {name}": "utility" for name in ("word", "synonyms", "compositions", "others")},
    "score distance retain": "utility",
    "copy %": "privacy",
}
"""Numbers that belong to another section than their metric's; so do those of restored items to retain, ``D_g``."""


def section_of(metric: str, heading: str) -> Section:
    """Return the section of a card that a number stands in."""
    if "D_g" in heading:
        return "utility"
    return ELSEWHERE.get(heading, TESTS.get(metric, ("forgetting", ""))[0])


def numbers(row: Row, report: Report) -> dict[str, float | None]:
    """Return the numbers of a model, by heading; None for a number that could not be measured."""
    return {heading: value for metric in _metrics(row) for heading, value in metric.numbers(row, report).items()}


def _metrics(row: Row) -> list[type[Metric]]:
    """Return the metrics that a row was measured with, except those of plugins that are not loaded."""
    return [METRICS.entries[name] for name in row["measured"] if name in METRICS.entries]


def headings_of(name: str, row: Row, report: Report) -> list[str]:
    """Return the headings of a metric's numbers, where the row was measured by it."""
    known = name in row["measured"] and name in METRICS.entries
    return list(METRICS.entries[name].numbers(row, report)) if known else []


def over_seeds(rows: Sequence[Row], report: Report) -> list[Row]:
    """Return one row for each name: the fields shared by its seeds, and every seed's numbers under ``per_seed``.

    Other entries, such as histograms, are the first seed's; the history is that of the seed at which earlier requests
    hold least. Metrics that some seed lacks are left out for all seeds.

    Args:
        rows: measured models, one a name and ``seed``.
        report: the report that numbers are compared in.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return [_of_name(seeds, report) for seeds in found.values()]


def _of_name(seeds: Sequence[Row], report: Report) -> Row:
    shared = {name: how for name, how in seeds[0]["measured"].items() if all(name in row["measured"] for row in seeds)}
    seeds = [row | {"measured": shared} for row in seeds]
    return seeds[0] | _worst_history(seeds) | {"per_seed": [_of_seed(row, report) for row in seeds]}


def _worst_history(rows: Sequence[Row]) -> Row:
    order = (False, None, True)
    worst = min(rows, key=lambda row: min((order.index(check.holds) for check in held_checks(row)), default=len(order)))
    return {"history": worst["history"]} if "history" in worst else {}


def _of_seed(row: Row, report: Report) -> dict[str, Any]:
    found = {"found": row["found"]} if row.get("found") else {}
    return {key: row.get(key) for key in FACTS} | found | {"metrics": numbers(row, report)}


def judged(report: Report, criteria: Criteria) -> Report:
    """Return a report with the rows' numbers over seeds, judged beside the band of its retrained models.

    Args:
        report: rows and ``retrains`` as ``over_seeds`` gives them, or as an earlier version wrote them.
        criteria: of generators.
    """
    models = report.get("retrains", [])
    band = [
        {"retrain": number, "of": 1, "metrics": _per_seed(row, report)[0]["metrics"]}
        for number, row in enumerate(models, 1)
    ]
    seconds = fmean(row["seconds"] for row in models) if models else None
    shared = {"request": REQUEST, "retrain_band": band, "retrain_seconds": seconds}
    costs = dict.fromkeys(("preparation_seconds", "storage_bytes"))  # which sharded generators alone have
    absent: Report = {"requests": {REQUEST: report.get("request")}, "seeds": [], "retrains": [], "failed": {}}
    report = absent | report
    rows = [costs | row | shared | _over(row, report) for row in report["rows"]]
    found = judge(report | {"rows": rows}, criteria)
    for row in found["rows"]:
        if row["start"] != "finetune":  # it is no way of fine-tuning, which could be without effect
            row["effect"] = None
    return found


def _over(row: Row, report: Report) -> Row:
    """Return a row's numbers over its seeds: means, intervals and descriptions."""
    parts = _per_seed(row, report)
    values = {number: part["metrics"] for number, part in enumerate(parts)}
    found = described(values, _known(row, report, [heading for tree in values.values() for heading in tree]))
    steps, of_pairs = _steps(row), _of_pairs(row, report)
    for heading, entry in found.items():
        if entry["seeds"] < len(parts):  # a mean of those that did not diverge would flatter
            entry |= {"value": None, "low": None, "high": None}
        entry["step"] = steps.get(heading, 0.0)
        if heading in of_pairs:
            entry["pairs"] = True
    seconds = fmean(part["seconds"] for part in parts) if all(part["seconds"] is not None for part in parts) else None
    return {"method": row["name"], "seconds": seconds, "per_seed": parts, "metrics": found}


def _per_seed(row: Row, report: Report) -> list[dict[str, Any]]:
    """Return a row's ``per_seed`` entries; earlier versions have one seed, or store its numbers under another name."""
    parts = row.get("per_seed") or [_of_seed(row, report)]
    return [part if "metrics" in part else part | {"metrics": part["numbers"]} for part in parts]


def _steps(row: Row) -> dict[str, float]:
    return {heading: step for metric in _metrics(row) for heading, step in metric.granularity(row).items()}


def _of_pairs(row: Row, report: Report) -> set[str]:
    """Return the headings of the numbers that are means over pairs of models."""
    return {heading for metric in _metrics(row) if metric.of_pairs for heading in metric.numbers(row, report)}


def _known(row: Row, report: Report, headings: Sequence[str]) -> dict[str, Number]:
    """Return the description of each number of a row."""
    metrics = {heading: metric.name for metric in _metrics(row) for heading in metric.numbers(row, report)}
    return {heading: number_of(metrics.get(heading, ""), heading) for heading in headings}


def number_of(metric: str, heading: str) -> Number:
    """Return the description of a number.

    >>> number_of("ur", "junk %").section, number_of("ur", "junk %").bounds
    ('utility', (0.0, 100.0))
    """
    columns = METRICS.entries[metric].columns if metric in METRICS.entries else []
    better: Any = next((column.better for column in columns if column.heading.split(" [")[0] == heading), "")
    bounds = (0.0, 100.0) if "%" in heading else UNIT if "AUC" in heading else None
    text = TESTS.get(metric, ("", metric))[1]
    return Number(text, section_of(metric, heading), better or "band", bounds)
