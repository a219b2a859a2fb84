"""The words of report cards: which are withheld below C4, and what no card can say.

Words for an accomplished fact stand on a card from C4 on only (``withhold``): below it, a test no longer tells things
apart, and that is all.
"""

import re
from typing import Any

NOT_RECORDED = "NOT RECORDED"
WRONG_REFERENCE = "wrong reference for this goal"
WITHHELD = "[word withheld below C4]"
FORBIDDEN = re.compile("deleted|removed|compliant|certified|gdpr", re.IGNORECASE)


def withhold(tree: Any) -> Any:
    """Return a JSON tree without the words for an accomplished fact, in keys and quoted text alike."""
    if isinstance(tree, dict):
        return {withhold(key): withhold(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [withhold(value) for value in tree]
    return FORBIDDEN.sub(WITHHELD, tree) if isinstance(tree, str) else tree


def cannot_say(supplying: str) -> list[str]:
    """Return the lines that stand on every card; ``supplying`` says how users may bring the content back."""
    return [
        "Anything about other copies of the model, or models derived from it.",
        "That the information cannot be derived again from the data that is retained.",
        f"That users cannot bring the content back by supplying it, {supplying}.",
        "That attacks stronger than those listed would find nothing.",
        "That this is sufficient in law.",
    ]


def unsaid_of_goal(goal: str, reached: str) -> list[str]:
    """Return what the goal, removal or suppression, leaves open at the level reached."""
    if goal == "suppression":
        return ["Suppression was asked for: what outputs do not show, the weights may still hold."]
    if reached < "C4":
        return ["Removal was asked for: that the information has left the weights is shown by no test here."]
    return []
