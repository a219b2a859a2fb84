"""Sentences on cards of every kind, and the marks for unknown values.

Below C4 a card claims only that tests cannot distinguish the model: none of msgm's sentences there says deleted,
removed, certified or compliant, which the tests check. Texts of users are shown unchanged.
"""

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


def unsaid_of_goal(goal: str, reached: str) -> list[str]:
    """Return the caveats that follow from the goal, removal or suppression, at the level reached."""
    if goal == "suppression":
        return ["Suppression was asked for: what outputs do not show, the weights may still hold."]
    if reached < "C4":
        return ["Removal was asked for: that the information has left the weights is shown by no test here."]
    return []
