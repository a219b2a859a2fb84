"""The texts and facts of recommenders' cards (``msgm.study.card``)."""

from msgm.cards.parts import method_lines
from msgm.recommender.ladder import LADDER, attacks_of
from msgm.recommender.metrics import METRICS
from msgm.study.card import Facts, Words, report_facts
from msgm.study.judging import Report, Row


def _method(row: Row) -> Facts:
    lines = method_lines(row["card"])
    return {
        "model": row["model"],
        "exactness": row["exactness"],
        **{key: lines.get(key) for key in ("formula", "source", "needs", "deviations", "defaults")},
        "rows_touched": row["touched"],
        "facts": row["facts"],
    }


def _header(report: Report) -> Facts:
    return report_facts(report) | {key: report["data"][key] for key in ("users", "items", "interactions")}


def _tested(report: Report, row: Row) -> dict[str, str]:
    return {
        "C1": "the scores of forgotten against held-out cells",
        "C2": f"the attacks {', '.join(attacks_of(report, row))}",
    }


WORDS = Words(
    ladder=LADDER,
    metrics=METRICS.entries,
    name=("model", "method", "request"),
    things="cells",
    body="the model's tables",
    where="Nothing was purged: the original model and the data themselves are where they were.",
    supplying="as by using the service again",
    alike=("completeness_auc", "ndcg"),
    tested=_tested,
    exact=lambda row: (
        f"Exact by algorithm ({row['exactness']}): the model is the one that fitting anew to the remaining cells "
        "gives, by the method's construction and its record. What other users' cells say of the same taste stays."
    ),
    header=_header,
    request=lambda asked: {key: asked[key] for key in ("users", "items", "cells")},
    method=_method,
    cannot_say=lambda report, row: [
        "Anything about lists, caches and logs outside the model: whoever serves it has to clear these."
    ],
)
