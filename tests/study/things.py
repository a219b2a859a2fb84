"""A small domain that forgets things: four numbers of which three give away a model that knows, and its ladder."""

from msgm.cards.claims import Check
from msgm.study.judging import ABOVE, BELOW, judge, means
from msgm.study.ladder import Ladder, is_inside, near_mean, rules_of

NAMES = ("seen", "rate_auc", "tail", "use")
SECTIONS = {"seen": "forgetting", "rate_auc": "privacy", "tail": "privacy", "use": "utility"}
LADDER = Ladder(
    keys=("request",),
    sides=((r"seen|_auc$", ABOVE), (r"tail", BELOW)),
    repeated=r"_gap$",
    size="n",
    retraining="retrain_seconds",
    effect=("seen",),
    rules=rules_of("things", "Behaves", "Exact"),
    behaviour=lambda report, row: [
        is_inside(row, "seen", also=(BELOW,)),
        near_mean(row, "use", "at most .2 below", lambda value, mean: value >= mean - 0.2),
    ],
    attacks=lambda report, row: {"rate": ["rate_auc"], "tail": ["tail"]},
    exactness=lambda report, row: [Check("a record", False, "")],
    exact=lambda row: False,
    bound=lambda report, row: [Check("a proven bound", False, "")],
    bounded=lambda row: False,
)


def tree(rng, knows=0.0):
    numbers = dict(zip(NAMES, rng.normal(0.5, 0.02, len(NAMES)).tolist(), strict=True))
    return numbers | {"seen": numbers["seen"] + knows, "rate_auc": numbers["rate_auc"] + knows}


def row_of(method, models, per_seed):
    summary = means(per_seed)
    return {
        "method": method,
        "request": "few",
        "seconds": 1.0,
        "retrain_seconds": 4.0,
        "metrics": {
            name: summary[name] | {"better": "band", "section": SECTIONS.get(name, "privacy")} for name in summary
        },
        "per_seed": [{"seed": k, "metrics": numbers} for k, numbers in enumerate(per_seed)],
        "retrain_band": [{"retrain": k, "of": 1, "metrics": numbers} for k, numbers in enumerate(models)],
    }


def report_of(rng, retrains=5, target="observed", knows=0.0, **numbers):
    models = [tree(rng) for _ in range(retrains)]
    mine = [tree(rng, knows) | numbers for _ in range(3)]
    rows = [row_of("do-nothing", models, [tree(rng, 0.3) for _ in range(3)]), row_of("edit", models, mine)]
    return judge({"rows": rows, "requests": {"few": {"n": 30, "target": target}}}, LADDER)


def edited(report, **numbers):
    """Return the edited row, judged again after some of what is known of its numbers was changed."""
    row = report["rows"][1]
    return row | {"metrics": row["metrics"] | {name: row["metrics"][name] | new for name, new in numbers.items()}}
