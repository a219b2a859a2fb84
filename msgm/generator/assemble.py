"""From the measured models of a comparison, or of ``msgm evaluate``, to the report and its views."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypedDict

from msgm import traces
from msgm.cards.stored import showing
from msgm.config import BASE_ROW
from msgm.digests import positions_digest
from msgm.errors import RunError
from msgm.evaluation import Bench
from msgm.evaluation.card import card
from msgm.evaluation.card_views import draw_cards, write_cards
from msgm.evaluation.ladder import LADDER
from msgm.evaluation.measuring import comparable, protocol
from msgm.evaluation.metrics.unlearning_ratio import real_numbers
from msgm.evaluation.near import near
from msgm.evaluation.paper import paper_tables
from msgm.evaluation.provenance import provenance
from msgm.evaluation.report import tables, write_pages
from msgm.evaluation.rows import REQUEST, judged, numbers, over_seeds
from msgm.evaluation.sweeps import sweep_tables
from msgm.folders import place, write_json
from msgm.generator.cells import retrained_models, row_models, seeds_of, stored_failure, stored_row
from msgm.reading import read_json
from msgm.runs import Run, environment
from msgm.study.engine import told
from msgm.study.judging import SCHEMA, Report, means
from msgm.training.run import finished


def comparison_report(run: Run, bench: Bench) -> Report:
    """Return the report of all measured and failed models, of this call and earlier ones.

    Raises:
        RunError: none was measured.
    """
    config = bench.config
    of_rows = [model for name in config.rows for model in row_models(config, name)]
    of_band = retrained_models(config)
    found = {model: row for model in [*of_rows, *of_band] if (row := stored_row(run, model)) is not None}
    found = dict(zip(found, comparable(list(found.values()), bench), strict=True))
    waiting = [model for model in [*of_rows, *of_band] if model not in found]
    failed = {model.label: reason for model in waiting if (reason := stored_failure(run, model)) is not None}
    bases = [Run(run.path / model.folder) for model in row_models(config, BASE_ROW)]
    made = next((base for base in bases if finished(base)), None)
    rows = [found[model] for model in of_rows if model in found]
    if made is None or not rows:
        raise RunError(f"nothing could be measured: {told(failed)}.")
    manifest = made.finished_manifest()
    cost = {"seconds": manifest["seconds"], "source": manifest["source"]}
    return make_report(run, bench, rows, cost, [found[model] for model in of_band if model in found], failed)


def make_report(
    run: Run,
    bench: Bench,
    rows: list[dict[str, Any]],
    base: dict[str, Any] | None,
    retrains: Sequence[dict[str, Any]] = (),
    failed: Mapping[str, str] = MappingProxyType({}),
) -> Report:
    """Return the report.

    The protocol keeps the lines of metrics that were measured in an earlier call.

    Args:
        run: its folder.
        bench: what the models were measured against.
        rows: measured models, one a row and seed.
        base: cost of the base model, in a comparison.
        retrains: measured models that were retrained without the request, from seeds of their own.
        failed: reasons why other models were not measured, by label.
    """
    request = bench.config.request
    earlier = _earlier(run).get("protocol", {}) if base else {}
    report: dict[str, Any] = {
        "title": bench.config.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": bench.config.seed,
        "seeds": seeds_of(bench.config),
        "requests": {
            REQUEST: {
                "text": request.describe(),
                "goal": request.goal,
                "target": request.target,
                "forget_digest": positions_digest(run.path, bench.split.train.forget),
                "near_duplicates": near(bench),
            }
        },
        "data": {
            "name": bench.dataset.name,
            "digest": bench.dataset.digest(),
            "copies": bench.dataset.copies,
            "items": {
                part: {
                    "retain": len(getattr(bench.split, part).retain),
                    "forget": len(getattr(bench.split, part).forget),
                }
                for part in ("train", "validation", "test")
            },
        },
        "judge": bench.judge.summary(),
        "real": real_numbers(bench),
        "base": base,
        "protocol": earlier | protocol(bench),
        "environment": environment(),
        "retrains": [],
        "failed": dict(failed),
        "artifacts": [],
    }
    made = [row | {"provenance": provenance(run, row, bench.split.train.forget)} for row in (*rows, *retrains)]
    for row in made if base else []:  # some were measured by an earlier command, and are read
        with showing(run.path / row["folder"] / "report.json"):
            means([numbers(row, report)])  # each of them is a number
    report["rows"] = over_seeds(made[: len(rows)], report)
    report["retrains"] = over_seeds(made[len(rows) :], report)
    report = judged(report, LADDER)
    for row in report["rows"] if base else []:
        with showing(place(run.path, "rows", row["name"], "report.json")):
            tables(report | {"rows": [row]})
            card(report, row)
    report["paper"] = paper_tables(bench.config, report) + sweep_tables(bench.config, report) if base else []
    return report


def publish(run: Run, report: Report) -> None:
    """Write the report, report.md, report.html, the pictures and the cards.

    Pages and cards contain samples of the request themselves. They are therefore listed in the report and on the cards,
    and both are written a second time.
    """
    write_json(run.report, report)
    for name in ("samples.png", "report.html"):
        traces.register(run.path, run.path / name, *traces.KNOWN[name])
    write_pages(run, report)
    drawn = draw_cards(run, report)
    write_cards(run, report, drawn)
    report["artifacts"] = traces.of_request(traces.holders(run.path), report["requests"][REQUEST]["text"])
    write_json(run.report, report)
    write_cards(run, report, drawn)


def upgraded(report: Report) -> Report:
    """Return a report of an earlier version, judged by the rules of this version."""
    return report if report.get("schema", 1) >= SCHEMA else judged(report, LADDER)


class Earlier(TypedDict, total=False):
    """The keys that are read from the report of an earlier call."""

    protocol: dict[str, str]


def _earlier(run: Run) -> Earlier:
    earlier: Earlier = read_json(run.report, Earlier) if run.report.is_file() else {}
    return earlier
