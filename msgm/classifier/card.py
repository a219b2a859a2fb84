"""The texts and facts of classifiers' cards (``msgm.study.card``).

An epsilon of forgetting quality is stated only where at least ``EPSILON_MODELS`` models of a kind stand behind it.
"""

from typing import Any

from msgm.cards.parts import method_lines
from msgm.classifier.ladder import LADDER, TARGETS, attacks_of, bound_of
from msgm.classifier.metrics import METRICS
from msgm.study.card import Facts, Words, report_facts
from msgm.study.judging import Report, Row
from msgm.study.ladder import asked

EPSILON_MODELS = 64


def _tested(report: Report, row: Row) -> dict[str, str]:
    simple = "" if asked(report, row)["scope"] == "class" else " and simple attacks"
    return {
        "C1": f"accuracy on the forget items{simple}",
        "C2": f"the attacks {', '.join(attacks_of(report, row))}",
    }


def _bound(row: Row) -> str:
    made: dict[str, Any] = bound_of(row) or {}
    return (
        f"Certified removal with epsilon {made['epsilon']:g} and delta {made['delta']:g}, under the assumptions that "
        f"the method's card names; it covers {made['covers']}."
    )


def _header(report: Report) -> Facts:
    own = {"data_items": report["data"]["n"], "network": report["network"], "training": report["training"]}
    return report_facts(report) | own


def _request(asked: Facts) -> Facts:
    selected = asked.get("selected")
    parts = f"{selected} selected, {asked['n']} in training; held-out ones were never learned"
    return {
        "scope": asked["scope"],
        "items": asked["n"] if selected in (None, asked["n"]) else parts,
        "forget_digest": asked.get("forget_digest"),
        "near_duplicates_searched": asked.get("near_duplicates"),
    }


def _method(row: Row) -> Facts:
    lines = method_lines(row["card"])
    return {
        "family": row["family"],
        **{key: lines.get(key) for key in ("formula", "source", "needs", "touches", "deviations")},
        "settings": row["settings"],
        "examples": row["examples"],
        "artefacts": row["artefacts"],
    }


def _models(row: Row) -> float:
    """Return the number of models of a kind behind forgetting quality."""
    found = row["metrics"].get("forgetting_quality_models") or {}
    return found.get("value") or 0.0


def _unstated(row: Row, name: str) -> str | None:
    if "epsilon" not in name or _models(row) >= EPSILON_MODELS:
        return None
    return f"no epsilon is stated from fewer than {EPSILON_MODELS} models"


def _not_tested(report: Report, row: Row) -> list[str]:
    searched = asked(report, row).get("near_duplicates") is not None
    return [
        *([] if searched else ["near-duplicates of the items to forget among those to retain"]),
        "an output filter as a baseline",
    ]


def _cannot_say(report: Report, row: Row) -> list[str]:
    lines = []
    if _models(row) < EPSILON_MODELS:
        lines.append(f"Any epsilon of forgetting quality: fewer than {EPSILON_MODELS} models of a kind are here.")
    if report.get("outputs_only"):
        lines.append("Anything about the weights and how the model was made: only its outputs are here.")
    request = asked(report, row)
    if request.get("without_controls"):
        lines.append(
            f"Whether {request['without_controls']} of the {request['n']} items to forget are given away by attacks on "
            "membership: no held-out item is of their class and source, so these leave them out."
        )
    found = request.get("near_duplicates")
    if found is not None and found["retained"] and not found["included"]:
        lines.append(
            f"That near-duplicates are forgotten: {found['retained']} were found among the items to retain, and stay."
        )
    return lines


WORDS = Words(
    ladder=LADDER,
    metrics=METRICS.entries,
    name=("method", "request"),
    things="items",
    body="the weights",
    where="Nothing was purged: the original model, its logits and the data themselves are where they were.",
    supplying="as by training the model on it again",
    targets=TARGETS,
    alike=("forget_accuracy", "mia_loss_auc"),
    tested=_tested,
    exact=lambda row: (
        "Exact by algorithm: the model was trained without the listed items, by its record. Near-duplicates of them "
        "among the items to retain are another matter."
    ),
    bound=_bound,
    header=_header,
    request=_request,
    method=_method,
    not_tested=_not_tested,
    cannot_say=_cannot_say,
    unstated=_unstated,
)
