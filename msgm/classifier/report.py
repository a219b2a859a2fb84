"""How the report of a comparison of classifiers is shown."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from msgm.cards.pages import listed
from msgm.classifier.card import WORDS
from msgm.classifier.figures import report_figures, test_accuracy_of
from msgm.classifier.ladder import TARGETS
from msgm.study import views
from msgm.study.judging import CONTROLS, Report, Row
from msgm.study.views import Axis, Columns, Views

AXES = {
    "test_accuracy": "accuracy on test items",
    "test_accuracy_retained": "accuracy on test items of the other classes",
}
LEGEND = (
    "FA, RA, TA: accuracy on forget, retain and test items, TA where classes are forgotten that on test items of the "
    "others; FR: forgetting rate by the fixed attack; MIA, RMIA: AUC of forget items against held-out ones of their "
    "classes and sources by loss and by RMIA; ToW: tug-of-war, 1 is the retrained models' mean; JS: Jensen-Shannon "
    "divergence (nats) from the retrained models' posteriors on forget items."
)


class ClassifierViews(Views):
    """Rows are methods, those with most numbers inside their bands first."""

    kind: ClassVar = "classifiers"
    words: ClassVar = WORDS
    columns: ClassVar = {
        "forget_accuracy": ("FA %", 100),
        "retain_accuracy": ("RA %", 100),
        "test_accuracy": ("TA %", 100),
        "fr_fixed": ("FR %", 100),
        "mia_loss_auc": ("MIA", 1),
        "rmia_auc": ("RMIA", 1),
        "tow": ("ToW", 1),
        "js_forget": ("JS", 1),
    }
    axes: ClassVar = (("test_accuracy", AXES["test_accuracy"]), ("forget_accuracy", "accuracy on forget items"))
    choosing: ClassVar = (
        "Across stands what is left of the model's use, up what it still gets right of the items to forget. Look for a "
        "row inside the band: further up it knows more than retrained models, further down it gives away that it "
        "forgot, further left it has lost something."
    )

    def heading(self, report: Report, request: str) -> str:
        asked = report["requests"][request]
        return f"{request}: {asked['text']}, {asked['n']} items ({asked['scope']})"

    def columns_of(self, rows: Sequence[Row]) -> Columns:
        """Return ``columns``; where classes are forgotten, test accuracy is that of the others."""
        other = {"test_accuracy": test_accuracy_of(rows)}
        return {other.get(name, name): column for name, column in self.columns.items()}

    def axes_of(self, rows: Sequence[Row]) -> tuple[Axis, Axis]:
        test = test_accuracy_of(rows)
        return (test, AXES[test]), self.axes[1]

    def notes(self, report: Report, request: str) -> list[str]:
        asked = report["requests"][request]
        notes = []
        if asked["near_duplicates"]:
            found = asked["near_duplicates"]
            notes.append(
                f"Near-duplicates of the forget items elsewhere: {found['found']}, of which {found['retained']} among "
                f"the retain items; left in ({found['method']})."
            )
        if asked.get("without_controls"):
            notes.append(
                f"{asked['without_controls']} of the {asked['n']} items to forget have no control, a held-out item of "
                "their class and source: attacks on membership leave them out."
            )
        if asked["target"] != "observed":
            notes.append(
                f"A {TARGETS[asked['target']]} was asked for: a model retrained without its items is no full reference "
                "for it, and neither is an attack on membership."
            )
        notes += from_cache(self.rows(report, request))
        exact = [row["method"] for row in self.rows(report, request) if row["family"] == "exact"]
        notes += [
            f"{method} is exact by its algorithm, and its model is of another kind than those of the band: lying "
            "outside says how the two kinds differ."
            for method in exact
            if method not in CONTROLS
        ]
        return notes + super().notes(report, request)

    def legend(self, report: Report) -> list[str]:
        return [LEGEND, views.LEGEND]

    def figures(self, rows: Sequence[Row]) -> Mapping[str, bytes]:
        return report_figures(rows)

    def own_facts(self, report: Report) -> dict[str, str]:
        data = report["data"]
        return {
            "data": f"{data['name']} (digest {data['digest']}); {listed(data['n'])}",
            "network": listed(report["network"]),
            "training": listed(report["training"]),
        }


def from_cache(rows: Sequence[Row]) -> list[str]:
    """Return a note on the retrained models of a request that were taken from the cache, if any were."""
    models = {model["retrain"] for row in rows for model in row.get("retrain_band", []) if model.get("cached")}
    if not models:
        return []
    named = ", ".join(map(str, sorted(models)))
    return [f"Taken from the cache, with the seconds that training took when it was done: retrained models {named}."]


VIEWS = ClassifierViews()
