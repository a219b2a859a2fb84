"""How the report of a comparison of recommenders is shown."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from msgm.cards.pages import listed
from msgm.cards.solves import NOT_CONVERGED, converged, solver_notes
from msgm.recommender.card import WORDS
from msgm.recommender.figures import request_figures
from msgm.recommender.ladder import EXACT
from msgm.study import views
from msgm.study.judging import CONTROLS, Report, Row
from msgm.study.views import Views

LEGEND = (
    f"{views.LEGEND} A number may lie outside its band by .005. time: of a stream, per request. prepared: seconds "
    "spent before any request, shards above all. A method that fits shards makes another model: its exactness is "
    "against the same shards fitted to the rest, not against the retrained models of the band."
)


class RecommenderViews(Views):
    """Rows are methods, model by model; each model has a band of its own."""

    kind: ClassVar = "recommenders"
    words: ClassVar = WORDS
    columns: ClassVar = {
        "ndcg": ("NDCG", 1),
        "recall": ("Recall", 1),
        "rmse": ("RMSE", 1),
        "completeness_auc": ("AUC", 1),
        "membership_scores_auc": ("MIA", 1),
        "score_distance": ("distance", 1),
        "score_distance_units": ("in units", 1),
        "lists_with_forgotten_items": ("items served", 1),
        "forgotten_users_served": ("users served", 1),
        "promoted_exposure": ("exposure", 1),
    }
    axes: ClassVar = (
        ("ndcg", "NDCG of retained users"),
        ("completeness_auc", "AUC, forgotten against held-out"),
    )
    choosing: ClassVar = (
        "Across stands what is left of the model's use, up how far it still ranks forgotten interactions above "
        "held-out ones (AUC; 0.5: it does not). Look for a row inside the band: further up it knows more than "
        "retrained models, further left it has lost something."
    )
    names: ClassVar = ("model", "method")
    folder: ClassVar = ("model", "request", "method")

    def rows(self, report: Report, request: str) -> list[Row]:
        """Return a request's rows: model by model, the controls first, then the methods in the config's order."""
        rows = [row for row in report["rows"] if row["request"] == request]
        models = list(report["models"])
        return sorted(rows, key=lambda row: (models.index(row["model"]), _place(row["method"])))

    def extras(self, rows: Sequence[Row]) -> Mapping[str, Callable[[Row], str]]:
        return {"exactness": _exactness, "prepared": lambda row: f"{row['preparation_seconds']:.2f}"}

    def heading(self, report: Report, request: str) -> str:
        return f"{super().heading(report, request)}, {report['requests'][request]['cells']} training cells"

    def notes(self, report: Report, request: str) -> list[str]:
        return [*self.left_out(report, request), *solver_notes(self.rows(report, request))]

    def left_out(self, report: Report, request: str) -> list[str]:
        """Return why rows have no numbers, methods that are not for several models together."""
        reasons: dict[tuple[str, str], list[str]] = {}
        for line in report["left_out"]:
            if line["request"] == request:
                text = line["reason"].rstrip(".")
                reasons.setdefault((line["method"], f"{line['status']}: {text}"), []).append(line["model"])
        return [f"{method} on {', '.join(models)} {text}." for (method, text), models in reasons.items()]

    def legend(self, report: Report) -> list[str]:
        """Return the legend: descriptions of the shown numbers, how to read them, and what is left out."""
        texts = {
            name: number["text"]
            for row in report["rows"]
            for name, number in row["metrics"].items()
            if number["value"] is not None
        }
        known = "; ".join(f"{heading}: {texts[name]}" for name, (heading, _) in self.columns.items() if name in texts)
        others = report.get("other_settings", 0)
        many = f"{others} rows of other settings left out." if others > 1 else "1 row of other settings left out."
        return [f"{known}.", LEGEND, *([many] if others else [])]

    def summary(self, report: Report) -> list[str]:
        """Return a line a request: how many answers are exact, and the fastest of them."""
        return [f"{request}: {_exact(self.rows(report, request))}." for request in self.tables(report)]

    def figures(self, rows: Sequence[Row]) -> Mapping[str, bytes]:
        return request_figures(rows)

    def facts(self, report: Report) -> dict[str, dict[str, str]]:
        return super().facts(report) | {"Models": {name: listed(own) for name, own in report["models"].items()}}

    def own_facts(self, report: Report) -> dict[str, str]:
        data = report["data"]
        size = f"{data['users']} users, {data['items']} items, {data['interactions']} interactions"
        return {"data": f"{data['name']} (digest {data['digest']}): {size}"}


VIEWS = RecommenderViews()


def _place(method: str) -> int:
    return CONTROLS.index(method) if method in CONTROLS else len(CONTROLS)


def _exactness(row: Row) -> str:
    """Return the exactness of an answer; a sharded answer equals refitted shards, not a refit on all data."""
    of_shards = row["exactness"] == "bit-exact" and "shards_refitted" in row["facts"]
    shown = f"{row['exactness']} (of its shards)" if of_shards else str(row["exactness"])
    return shown if converged(row) else f"{shown}, {NOT_CONVERGED}"


def _share(row: Row) -> str:
    share = row["share_of_retraining"]
    return "-" if share is None else f"{share:.1%}"


def _exact(rows: Sequence[Row]) -> str:
    answers = [row for row in rows if row["method"] not in CONTROLS]
    exact = [row for row in answers if row["exactness"] in EXACT]
    if not exact:
        return f"none of {len(answers)} answers is exact"
    fastest: dict[str, Any] = min(exact, key=lambda row: _order(row["share_of_retraining"]))
    name = f"{fastest['method']} on {fastest['model']}, {_exactness(fastest)}"
    return (
        f"{len(exact)} of {len(answers)} answers exact; the fastest takes {_share(fastest)} of a refit's time: {name}"
    )


def _order(share: float | None) -> float:
    return math.inf if share is None else share
