"""The report card of one row of a report: one unlearned model and one request.

It is made from report.json alone. Its columns are this model, the original, the band of retrained models, whether this
model lies in it, and the smallest shift that would have been noticed. The schema is that of ``msgm.cards.views``; the
rules of the levels are in ``ladder``; a domain's words and facts are data (``Words``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from msgm.cards.claims import NOT_TESTED, PASS, Control, claim_tree, level
from msgm.cards.history import card_history, notes
from msgm.cards.parts import SECTIONS, metric_of
from msgm.cards.solves import solver_lines, solver_text
from msgm.cards.views import Card, card_html, card_markdown
from msgm.cards.words import WRONG_REFERENCE, cannot_say, unsaid_of_goal
from msgm.folders import write_json, write_text
from msgm.study.band import FALSE_ALARMS, LEAST
from msgm.study.judging import INSIDE, TOO_FEW, Entry, Report, Row, enough_retrained, retrained, shown_limits
from msgm.study.ladder import Ladder, asked, observed
from msgm.traces import of_request

OVERSHOOTING_SHOWN = 3
TARGETS = ("observed", "latent", "concept")
Facts = dict[str, Any]
Table = tuple[dict[str, str], dict[str, list[Facts]]]


@dataclass(frozen=True, kw_only=True)
class Words:
    """The texts and facts of a domain's cards.

    Attributes:
        ladder: of the domain.
        metrics: by name, each with ``numbers``.
        name: keys of a row that make the card's name.
        things: what is forgotten: items, cells.
        body: the part of the model that tests say nothing about: the weights, the model's tables.
        where: where the data still are.
        supplying: how users may bring the content back.
        targets: kind of target to words.
        alike: numbers that are equal to the original's for a method that does nothing.
        tested: description of the tests behind C1 and C2, by level.
        exact: the statement of a row that reached C4.
        bound: the statement of a row that reached C5.
        header: facts of the report.
        request: facts of a row's request.
        method: facts of a row's method, its costs among them.
        not_tested: tests that a row lacks, apart from metrics, controls and retrained models.
        statement: the card's sentence of a row from C1 to C3 in the domain's own words; by default one for all domains.
        oracles: number of retrained models that a row is compared with.
        table: the numbers' columns with their headings, and by section their lines; by default this model, the original
            and the band, a line a number.
        figures: by name, each with caption and look.
        cannot_say: caveats of a row, apart from those on every card.
        unstated: why a number is not stated of a row; None where it is.
    """

    ladder: Ladder
    metrics: Mapping[str, Any]
    name: tuple[str, ...] = ("method", "request")
    things: str
    body: str
    where: str
    supplying: str
    targets: Mapping[str, str] = field(default_factory=lambda: {kind: kind for kind in TARGETS})
    alike: tuple[str, ...]
    tested: Callable[[Report, Row], Mapping[str, str]]
    exact: Callable[[Row], str] = lambda row: "Exact by algorithm."
    bound: Callable[[Row], str] = lambda row: "A proven bound."
    header: Callable[[Report], Facts] = lambda report: report_facts(report)
    request: Callable[[Facts], Facts] = lambda asked: {}
    method: Callable[[Row], Facts] = lambda row: {"settings": row["settings"]}
    not_tested: Callable[[Report, Row], list[str]] = lambda report, row: []
    statement: Callable[[Report, Row, str], str] = lambda report, row, reached: ""
    oracles: Callable[[Report, Row], int] = lambda report, row: len(retrained(row))
    table: Callable[[Report, Row], Table] | None = None
    figures: Mapping[str, Facts] = field(default_factory=dict)
    cannot_say: Callable[[Report, Row], list[str]] = lambda report, row: []
    unstated: Callable[[Row, str], str | None] = lambda row, name: None


def write_card(folder: Path, report: Report, row: Row, words: Words) -> Card:
    """Write card.json, card.md and card.html of a row into a folder, and return the card."""
    made = make_card(report, row, words)
    write_json(folder / "card.json", made)
    write_text(folder / "card.md", card_markdown(made, {}))
    write_text(folder / "card.html", card_html(made, {}))
    return made


def make_card(report: Report, row: Row, words: Words) -> Card:
    """Return the card of one row of a report, as a JSON tree; null means not tested or not recorded."""
    ladder = words.ladder
    found, checked = ladder.claims(report, row), ladder.controls(report, row)
    reached = level(found)
    columns, numbers = words.table(report, row) if words.table else _table(report, row, words)
    return {
        "name": ", ".join(row[key] for key in words.name),
        "title": report["title"],
        "level": reached,
        "level_name": ladder.rules[reached][0],
        "statement": _statement(report, row, reached, words),
        "header": {"tool": "msgm"} | words.header(report) | {"energy": None},
        "request": _request(report, row, words),
        "history": card_history(row),
        "method": _method(row, words),
        "artifacts": {
            "purged": False,
            "found": of_request(report.get("artifacts"), row["request"], asked(report, row)["text"]),
            "note": _kept(row, words.where),
        },
        "claims": [claim_tree(claim, ladder.rules) for claim in found],
        "controls": [asdict(control) for control in checked],
        "reference": _reference(report, row, checked, words),
        "columns": columns,
        "numbers": numbers,
        "figures": dict(words.figures),
        "protocol": {name: text for name, text in report["protocol"].items() if name not in row["metrics"]},
        "not_tested": _not_tested(report, row, checked, words),
        "cannot_say": _cannot_say(report, row, reached, words),
    }


def _statement(report: Report, row: Row, reached: str, words: Words) -> str:
    """Return the card's statement, one sentence that claims no more than its level."""
    if reached == "C0":
        return "Nothing is shown."
    if reached == "C4":
        return words.exact(row)
    if reached == "C5":
        return words.bound(row)
    own = words.statement(report, row, reached)
    if own:
        return own + _telling(report, row, reached, words)
    count, seeds = len(retrained(row)), len(row["per_seed"])
    power = f"{count} retrained models and {seeds} seed{'s' if seeds > 1 else ''}"
    tests = {"C3": "any judged number", **words.tested(report, row)}
    where = ", from outputs alone" if report.get("outputs_only") else ""
    return (
        f"Not told from models retrained without the {words.things} by {tests[reached]}: {power}{where}. This is a "
        f"statement about these tests at this number of models, not about {words.body}."
        f"{_telling(report, row, reached, words)}{_overshooting(row, words)}"
    )


def _telling(report: Report, row: Row, reached: str, words: Words) -> str:
    """Return a sentence on the attacks that distinguish the original from retrained models."""
    if reached < "C2":
        return ""
    attacks, telling = words.ladder.attacks(report, row), words.ladder.telling(report, row)
    return f" {len(telling)} of {len(attacks)} attacks tell the original from retrained models: {', '.join(telling)}."


def _overshooting(row: Row, words: Words) -> str:
    """Return a sentence on numbers that lie outside the band opposite to the leaking side."""
    found = words.ladder.overshooting(row)
    if not found:
        return ""
    listed = "; ".join(words.ladder.outside(name, row["metrics"][name]) for name in found[:OVERSHOOTING_SHOWN])
    more = f"; and {len(found) - OVERSHOOTING_SHOWN} more" if len(found) > OVERSHOOTING_SHOWN else ""
    return f" It is distinguishable from retrained models by overshooting, on the other side: {listed}{more}."


def report_facts(report: Report) -> Facts:
    """Return the facts on the report that all domains share."""
    environment = report.get("environment") or {}
    return {
        "versions": environment.get("versions"),
        "date": report.get("date"),
        "data": report["data"]["name"],
        "data_digest": report["data"]["digest"],
        "seeds": ", ".join(map(str, report["seeds"])) if report["seeds"] else None,
        "platform": environment.get("platform"),
    }


def _request(report: Report, row: Row, words: Words) -> Facts:
    found = asked(report, row)
    facts = {"goal": found["goal"], "target_kind": found["target"], "target_definition": found["text"]}
    return facts | words.request(found)


def _method(row: Row, words: Words) -> Facts:
    solver = {"solver": solver_text(row)} if row.get("solve") else {}
    costs = {
        "seconds": row["seconds"],
        "seconds_over_retraining": row["share_of_retraining"],
        "preparation_seconds": row["preparation_seconds"],
        "storage_bytes": row["storage_bytes"],
    }
    return {"name": row["method"]} | words.method(row) | costs | {"tuning_oracle_access": None} | solver


def _kept(row: Row, where: str) -> str:
    """Return a text on where the data still are: ``where``, and the method's stored state."""
    if not row["storage_bytes"]:
        return where
    return f"{where} The method keeps {row['storage_bytes'] / 2**20:.2f} MB between requests, made from the data."


def _reference(report: Report, row: Row, checked: Sequence[Control], words: Words) -> Facts:
    """Return facts on the retrained models; the first two of ``checked`` are the positive and the negative control."""
    flagged, passed = ({PASS: True, NOT_TESTED: None}.get(control.verdict, False) for control in checked[:2])
    oracles = words.oracles(report, row)
    judged = row["judged"]
    alarms = judged["false_alarms"]
    joint = None if alarms is None else f"at most {FALSE_ALARMS:.0%}, {alarms:.1%} if numbers were independent"
    return {
        "oracle_kind": "retrain" if oracles else "none",
        "n_oracles": oracles,
        "numbers_judged_together": judged["numbers"],
        "joint_false_alarm_rate": joint,
        "oracle_passes_own_audit": passed,
        "original_flagged": flagged,
        "power_of_c3": words.ladder.strict_passes(row),
        "note": None if observed(report, row) else WRONG_REFERENCE,
    }


def _table(report: Report, row: Row, words: Words) -> Table:
    """Return the columns of the numbers, and a line a number."""
    columns = {"this": "this model", "original": "original"} | band_columns(report, row)
    return columns, {section: _numbers(report, row, section, words) for section in SECTIONS}


def band_columns(report: Report, row: Row) -> dict[str, str]:
    """Return the headings of the columns that ``beside_the_band`` fills."""
    note = "" if observed(report, row) else f" ({WRONG_REFERENCE})"
    return {
        "band": f"band of retrained models{note}",
        "inside": f"inside the band{note}",
        "noticed": "smallest shift noticed",
    }


def beside_the_band(entry: Entry) -> dict[str, str | None]:
    """Return a number's cells in the columns of the band."""
    noticed = None if entry["noticed"] is None else f"{entry['noticed']:.2g}"
    return {"band": _band(entry), "inside": inside_text(entry), "noticed": noticed}


def _numbers(report: Report, row: Row, section: str, words: Words) -> list[Facts]:
    """Return one line a number of the section."""
    before = (words.ladder.original_of(report, row) or {}).get("metrics", {})
    wrong = [WRONG_REFERENCE] if section == "privacy" and not observed(report, row) else []
    lines = []
    for name, entry in row["metrics"].items():
        if entry["section"] != section:
            continue
        unstated = words.unstated(row, name)
        cells = {
            "this": value_text(entry),
            "original": value_text(before.get(name)),
            **beside_the_band(entry),
        }
        about = {
            "test": metric_of(name, words.metrics),
            "number": name,
            "better": "" if entry["better"] == "band" else entry["better"],
            "note": "; ".join([entry["text"], *([unstated] if unstated else []), *wrong]),
        }
        lines.append(about | (dict.fromkeys(cells) if unstated else cells))
    return lines


def value_text(entry: Entry | None) -> str | None:
    """Return a number's mean over seeds with its interval, as text; None where there is none."""
    if entry is None or entry["value"] is None:
        return None
    if entry["low"] is None:
        return f"{entry['value']:z.3g}"
    low, high = shown_limits(entry, entry)
    return f"{entry['value']:z.3g} [{low:z.3g}, {high:z.3g}]"


def _band(entry: Entry) -> str | None:
    if entry["band"] is None:
        return None
    low, high = shown_limits(entry, entry["band"])
    return f"{entry['band']['mean']:z.3g} [{low:z.3g}, {high:z.3g}]"


def inside_text(entry: Entry) -> str | None:
    """Return whether a number lies inside its band, as text; None without a band."""
    if entry["band"] is None:
        return None
    texts = {None: "not judged", INSIDE: "yes", TOO_FEW: TOO_FEW}
    return texts.get(entry["place"], f"no: {entry['place']}")


def _not_tested(report: Report, row: Row, checked: Sequence[Control], words: Words) -> list[str]:
    lines = [f"{name}: {about(metric)}" for name, metric in words.metrics.items() if not _measured(row, metric)]
    lines += [f"{control.name}: {control.evidence}" for control in checked if control.verdict == NOT_TESTED]
    if not enough_retrained(row):
        lines.append(f"band of retrained models: {len(retrained(row))} of at least {LEAST}")
    return [*lines, *words.not_tested(report, row), "whether settings were tuned against the retrained models"]


def _measured(row: Row, metric: Any) -> bool:
    return any((row["metrics"].get(name) or {}).get("value") is not None for name in metric.numbers)


def about(metric: Any) -> str:
    """Return a description of a metric: the first line of its docstring."""
    lines = (metric.__doc__ or metric.name).strip().splitlines()
    return str(lines[0].rstrip(".")) + (" (needs the models)" if getattr(metric, "live", False) else "")


def _cannot_say(report: Report, row: Row, reached: str, words: Words) -> list[str]:
    request = asked(report, row)
    lines = cannot_say(words.supplying) + unsaid_of_goal(request["goal"], reached) + notes(row)
    if not observed(report, row):
        lines.append(
            f"How near this comes to having forgotten a {words.targets[request['target']]}: models retrained without "
            f"the selected {words.things} are the {WRONG_REFERENCE}, as is membership of these."
        )
    if not words.oracles(report, row):
        lines.append("Anything about closeness to a retrained model: none is here.")
    lines += words.cannot_say(report, row)
    if row["effect"]:
        lines.append(
            f"That the method did more than fine-tuning on what is retained: {row['effect']}, by "
            f"{', '.join(words.ladder.effect)} and the spread of seeds."
        )
    if _like_the_original(row, words.ladder.original_of(report, row), words.alike):
        lines.append(f"That the method did anything: {words.ladder.original} has the same {' and '.join(words.alike)}.")
    return lines + solver_lines(row)


def _like_the_original(row: Row, original: Row | None, numbers: Sequence[str]) -> bool:
    """Return whether a row's values equal the original's in all numbers that both have."""
    if original is None or original["method"] == row["method"]:
        return False
    mine, other = row["metrics"], original["metrics"]
    values = [(mine[name]["value"], other[name]["value"]) for name in numbers if name in mine and name in other]
    return bool(values) and all(a is not None and b is not None and abs(a - b) < 1e-3 for a, b in values)
