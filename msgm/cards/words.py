"""Sentences on cards of every kind, and the marks for unknown values.

Below C4 a card claims only that tests cannot distinguish the model: none of msgm's sentences there says deleted,
removed, certified or compliant, which the tests check. Texts of users are shown unchanged.
"""

from collections.abc import Mapping

NOT_RECORDED = "NOT RECORDED"
WRONG_REFERENCE = "wrong reference for this goal"


def cannot_say(supplying: str) -> list[str]:
    """Return the lines that stand on every card; ``supplying`` says how users may bring the content back."""
    return [
        "Anything about other copies of the model, or models derived from it.",
        "That the information cannot be derived again from the data that is retained.",
        f"That users cannot bring the content back by supplying it, {supplying}.",
        "That attacks stronger than those listed would find nothing.",
        "That this is sufficient in law.",
    ]


def levels_reached(levels: Mapping[str, str]) -> str:
    """Return in words which rows reach which level of the ladder, the highest first.

    >>> levels_reached({"a": "C0", "b": "C2", "c": "C0"})
    'C2 of b; nothing of a, c'
    """
    found: dict[str, list[str]] = {}
    for name, level in levels.items():
        found.setdefault(level, []).append(name)
    texts = [f"{'nothing' if level == 'C0' else level} of {', '.join(names)}" for level, names in found.items()]
    return "; ".join(text for _, text in sorted(zip(found, texts, strict=True), reverse=True))


def unsaid_of_goal(goal: str, reached: str) -> list[str]:
    """Return the caveats that follow from the goal, removal or suppression, at the level reached."""
    if goal == "suppression":
        return ["Suppression was asked for: what outputs do not show, the weights may still hold."]
    if reached < "C4":
        return ["Removal was asked for: that the information has left the weights is shown by no test here."]
    return []
