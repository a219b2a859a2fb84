"""The texts and facts of generators' cards (``msgm.study.card``).

Their numbers stand as the report's tables have them, beside those of the base model, of a retrained model and of a
network with random weights; where five models were retrained, the band stands there too. No output filter runs as a
baseline, energy is not measured, and requests are answered one at a time; the card says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from msgm.cards.parts import SECTIONS, method_lines
from msgm.cards.words import WRONG_REFERENCE
from msgm.evaluation import near
from msgm.evaluation.band_table import without_band
from msgm.evaluation.deletion import SHARDED, cost_facts, deletion_text, duty
from msgm.evaluation.figures import FIGURES
from msgm.evaluation.found import found_text
from msgm.evaluation.ladder import (
    GUIDED,
    LADDER,
    OF_MEMBERSHIP,
    UNTOUCHED,
    measured_by,
    ratio_check,
    ratio_of,
    reason_untested,
    references,
    threshold,
)
from msgm.evaluation.metrics.base import METRICS, NOT_MEASURED, Column, Report, Row
from msgm.evaluation.metrics.unlearning_ratio import percent
from msgm.evaluation.rows import TESTS, headings_of, section_of
from msgm.study.band import LEAST
from msgm.study.card import Facts, Table, Words, band_columns, beside_the_band, make_card, value_text
from msgm.study.judging import Entry, enough_retrained, retrained
from msgm.study.ladder import observed

RETRAIN_BASED = set(OF_MEMBERSHIP)
"""Tests whose answer for anything but observed items has no meaning at all."""

COLUMNS = {"this": "this model", "base": "base", "retrain": "retrained", "random": "random weights"}
LOOKS = {"samples": "pixels", "neighbours": "wide"}
"""How figures that are no plots are shown."""


def card(report: Report, row: Row) -> dict[str, Any]:
    """Return the card of one row of a judged report; errors as of ``make_card``."""
    made, found = make_card(report, row, WORDS), references(report)
    singles = [one for one in (found.base, found.retrain_for(row)) if one is not None]
    made["method"] |= {"duty": duty(row, observed(report, row))} | cost_facts(row, singles)
    return made


def _statement(report: Report, row: Row, reached: str) -> str:
    """Return the statement of a row that reached C1 or more: what its samples cannot be told from, and why."""
    limit, check = threshold(report, row), ratio_check(report, row)
    if limit is None:
        return ""
    text = (
        f"By the judge's unlearning ratio, samples are no longer distinguishable from {limit.like}: "
        f"{check.evidence}, where at most {percent(limit.value)}% is allowed ({limit.source})."
    )
    if reached >= "C2":
        text += " No attack listed below tells the model from retrained ones."
    if reached == "C3":
        text += f" All {row['judged']['numbers']} numbers that are judged lie inside the band of retrained models."
    text += " This is a statement about these tests at this number of samples, not about the weights."
    return f"{text} {UNTOUCHED.capitalize()}." if row["start"] == GUIDED else text


def _exact(row: Row) -> str:
    """Return the statement of a row that reached C4."""
    how = (
        "the models of the shards that held them were trained from random weights without them, and the models of the "
        "other shards never saw them"
        if row["start"] == SHARDED
        else "the model was trained from random weights without them"
    )
    return (
        f"Exact by algorithm: the listed items were removed from the training data and {how}, by its log. "
        "Near-duplicates of them in the retain set are another matter."
    )


def _header(report: Report) -> Facts:
    return {
        "versions": report["environment"]["versions"],
        "date": report.get("date"),
        "data": report["data"]["name"],
        "data_digest": report["data"]["digest"],
        "data_items": report["data"]["items"],
        "seeds": ", ".join(map(str, report["seeds"])) or str(report["seed"]),
        "base_digest": ((references(report).base or {}).get("provenance") or {}).get("model_digest"),
    }


def _request(asked: Facts) -> Facts:
    return {
        "selection": _selection(asked),
        "forget_digest": asked.get("forget_digest"),
        "near_duplicates_searched": near.without_pairs(asked.get("near_duplicates")),
        "scope": {"observed": "instances", "latent": "attribute", "concept": "class or concept"}.get(asked["target"]),
    }


def _selection(asked: Facts) -> str | None:
    """Return how a request selects its items: its text without msgm's opening words; None if these are missing."""
    begin = f"{asked['goal']} of the {asked['target']} given by "
    return asked["text"][len(begin) :] if asked["text"].startswith(begin) else None


def _method(row: Row) -> Facts:
    lines, log = method_lines(row["card"]), row.get("provenance") or {}
    return {
        "objective": row["objective"],
        "family": _family(row),
        "formula": lines.get("formula"),
        "source": lines.get("source"),
        "deviations": lines.get("deviations"),
        "start": row["start"],
        "steps": row["steps"],
        "lr": row["lr"],
        "settings": row["settings"],
        "weights": row.get("weights"),
        "model_digest": log.get("model_digest"),
        "seed": log.get("seed"),
        "device": log.get("device"),
        "platform": log.get("platform"),
        "touches": _touched(row),
        "needs_retain_data": _needs_retain(lines, row.get("drawn")),
        "needs_nonmember_data": False if "data" in lines else None,
        **({"edited": row["edited"]} if row.get("edited") else {}),
        **({"found_in_preparation": text} if (text := found_text(row)) else {}),
        **({"deletion": text} if (text := deletion_text(row)) else {}),
        **_drawn(row.get("drawn")),
        **_cached(log),
    }


def _touched(row: Row) -> str:
    """Return which weights the method changed."""
    if row["start"] == GUIDED:
        return UNTOUCHED
    if row["start"] == SHARDED:
        return "the weights of the shards that held an item to forget, which were trained anew"
    if row["start"] == "edit" and not row["steps"]:
        share = (row.get("edited") or {}).get("changed_share")
        return "some weights" if share is None else f"{100 * share:.3g}% of the weights"
    return "all weights" if row["steps"] else "nothing"


def _needs_retain(lines: Facts, drawn: Mapping[str, int] | None) -> bool | None:
    """Return whether retain items were read: as the run counted, else as the objective's card has it."""
    if drawn:
        return any(drawn.get(part, 0) > 0 for part in ("retain", "all"))
    return "retain" in lines["data"] or lines["data"].startswith("all") if "data" in lines else None


def _drawn(drawn: Mapping[str, int] | None) -> Facts:
    """Return how many items of each part the run drew, repetitions counted; nothing if it did not count."""
    return {"items_drawn": ", ".join(f"{part} {count:,}" for part, count in drawn.items())} if drawn else {}


def _cached(log: Facts) -> Facts:
    """Return the training date of a model from the cache, which is when its seconds were measured; else nothing."""
    return {"from_cache": f"trained {log['cached']['trained']}"} if log.get("cached") else {}


def _family(row: Row) -> str:
    """Return the family of a row's method: exact, approximate update, edit, guidance, none, or unknown."""
    if row["start"] == "random":
        return "none: random weights"
    if row["start"] == "none":
        return "none: the base model" if row["name"] == LADDER.original else "unknown: made elsewhere"
    if row["start"] == "scratch":
        families = {"unseen": "exact: retrained", "standard": "none: trained on all data"}
        return families.get(row["objective"], "trained from random weights on the items to forget too")
    if row["start"] == SHARDED:
        return "exact: sharded"
    if row["start"] == "edit":
        return "edit, then fine-tuning" if row["steps"] else "edit"
    return "guidance of samples" if row["start"] == GUIDED else "approximate update"


def _table(report: Report, row: Row) -> Table:
    banded, found = enough_retrained(row), references(report)
    models = {"this": row, "base": found.base, "retrain": found.retrain_for(row), "random": found.random}
    columns = COLUMNS | ({} if observed(report, row) else {"retrain": f"{COLUMNS['retrain']} ({WRONG_REFERENCE})"})
    if banded:
        columns |= band_columns(report, row)
    lines: dict[str, list[Facts]] = {section: [] for section in SECTIONS}
    for metric, heading, column in _numbers(report, row):
        line = _line(report, row, metric, heading, column)
        line |= {key: _cell(heading, column, metric, model, report) for key, model in models.items()}
        line |= _beside(row["metrics"].get(heading)) if banded else {}
        lines[section_of(metric, heading)].append(line)
    return columns, lines


def _numbers(report: Report, row: Row) -> Iterator[tuple[str, str, Column | None]]:
    """Yield (metric, heading, column) for all numbers that some row has; column is None for numbers in no table."""
    for name in dict.fromkeys(name for other in report["rows"] for name in other.get("measured", {})):
        columns = METRICS.entries[name].columns if name in METRICS.entries else []
        shown = {column.heading.split(" [")[0]: column for column in columns}
        followed = [] if reason_untested(row, name) else headings_of(name, row, report)
        yield from ((name, heading, shown.get(heading)) for heading in dict.fromkeys([*shown, *followed]))


def _line(report: Report, row: Row, metric: str, heading: str, column: Column | None) -> Facts:
    """Return the description of a number."""
    return {
        "test": metric,
        "number": column.heading if column else heading,
        "better": column.better if column else "",
        "note": WRONG_REFERENCE if metric in RETRAIN_BASED and not observed(report, row) else None,
    }


def _beside(entry: Entry | None) -> Facts:
    return dict(beside_the_band(entry)) if entry else dict.fromkeys(("band", "inside", "noticed"))


def _cell(heading: str, column: Column | None, metric: str, row: Row | None, report: Report) -> str | None:
    """Return a model's number as text: its mean over seeds if there are several, else as the report's table has it."""
    if row is None or reason_untested(row, metric) is not None:
        return None
    followed = row.get("metrics", {}).get(heading)
    if column is None or (followed is not None and len(row["per_seed"]) > 1):
        return value_text(followed)
    text = column.cell(row, report)
    return None if text == NOT_MEASURED else text


def _not_tested(report: Report, row: Row) -> list[str]:
    """Return a line for each test without numbers: what it measures and, if it was requested, why it has none."""
    reasons = {name: reason for name in TESTS if (reason := reason_untested(row, name)) is not None}
    return [
        *(
            f"{name}: {TESTS[name][1]}" + (f" ({reason})" if measured_by(row, name) else "")
            for name, reason in reasons.items()
        ),
        *([] if near.asked(report) else ["near-duplicates of the items to forget among those to retain"]),
        "an output filter as a baseline",
    ]


def _cannot_say(report: Report, row: Row) -> list[str]:
    found, lines = references(report), list[str]()
    if row["start"] == SHARDED:
        lines.append("Anything on the mixture by losses at single points or fine-tuning: they are of the shards' mean.")
    if row["start"] == GUIDED:
        lines.append(f"Anything about the weights: {UNTOUCHED}; who holds them has the base model.")
    if found.retrains and not enough_retrained(row):
        lines.append(f"What spread retrained models have: fewer than {LEAST} are here.")
    if measured_by(row, "nll"):
        lines.append("That items to forget are not generated because their NLL is higher: likelihood is no sampling.")
    if measured_by(row, "ur"):
        lines.append("That a low unlearning ratio is forgetting where junk is high: junk shows no content either.")
    if _like_the_base(found.base, row):
        lines.append("That the method did anything: do-nothing scores like it, by overlapping intervals of the UR.")
    return lines + without_band(report, row["name"]) + near.unsaid(report)


def _like_the_base(base: Row | None, row: Row) -> bool:
    if base is None or base["name"] == row["name"] or not (measured_by(base, "ur") and measured_by(row, "ur")):
        return False
    one, other = ratio_of(base), ratio_of(row)
    return bool(one["low"] <= other["high"] and other["low"] <= one["high"])


WORDS = Words(
    ladder=LADDER,
    metrics={},
    name=("name",),
    things="items",
    body="the weights",
    where="Nothing was purged. Only this folder and the models' runs were looked into.",
    supplying="as in inpainting or partly noised items",
    alike=(),
    tested=lambda report, row: {},
    exact=_exact,
    header=_header,
    request=_request,
    method=_method,
    not_tested=_not_tested,
    cannot_say=_cannot_say,
    statement=_statement,
    oracles=lambda report, row: len(retrained(row)) or len(references(report).retrains),
    table=_table,
    figures={name: {"caption": text, "look": LOOKS.get(name, "plot")} for name, text in FIGURES.items()},
)
