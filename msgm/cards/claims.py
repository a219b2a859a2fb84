"""Claims by level, their conditions, and the controls that claims from tests require.

The ladder follows Cooper et al., "Machine Unlearning Doesn't Do What You Think" (arXiv 2412.06966), which keeps removal
from the weights and suppression of the outputs apart; its levels are ours: C0 nothing shown, C1 behavioural, C2
attack-bounded, C3 oracle-indistinguishable within a band, C4 exact by algorithm, C5 a proven bound.

A claim fails when one of its conditions is known not to hold, and is inconclusive when one is unknown. A failed control
makes every claim from tests (C1 to C3) inconclusive; so does a missing control that the claim needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
NOT_TESTED = "NOT TESTED"

Rules = Mapping[str, tuple[str, str]]
"""Level to its name and its rule in words."""


@dataclass(frozen=True)
class Check:
    """One condition of a claim.

    Attributes:
        name: the condition.
        holds: whether it holds; None: unknown.
        evidence: the numbers that decide it, or why there are none.
        unknown: why it is unknown, if the evidence does not state it.
    """

    name: str
    holds: bool | None
    evidence: str
    unknown: str = ""


@dataclass(frozen=True)
class Control:
    """A control: a case with a known answer that the tests have to give.

    Attributes:
        name: of the control.
        expected: the known answer, in words.
        verdict: PASS, FAIL or NOT TESTED.
        evidence: the numbers.
        needed_by: the claims that are inconclusive without it.
    """

    name: str
    expected: str
    verdict: str
    evidence: str
    needed_by: tuple[str, ...] = ("C1", "C2", "C3")


@dataclass(frozen=True)
class Claim:
    """A level with its verdict.

    Attributes:
        level: C1 to C5.
        verdict: PASS, FAIL or INCONCLUSIVE.
        checks: its conditions.
        reasons: why it did not pass.
        claimed: whether the method's kind makes this claim at all. Otherwise, as for fine-tuning at C4, FAIL is shown
            as "not claimed".
    """

    level: str
    verdict: str
    checks: list[Check]
    reasons: list[str]
    claimed: bool = True


def verdict_of(holds: bool) -> str:
    """Return PASS or FAIL."""
    return PASS if holds else FAIL


def decide(level: str, checks: Sequence[Check], controls: Sequence[Control], claimed: bool = True) -> Claim:
    """Decide a claim by its conditions and controls.

    Args:
        level: C1 to C5.
        checks: all have to hold.
        controls: none for a claim that rests on no test.
        claimed: as in ``Claim``.
    """
    found = list(checks)
    reasons = [f"{c.name} failed: expected {c.expected}; {c.evidence}." for c in controls if c.verdict == FAIL]
    missing = [c for c in controls if c.verdict == NOT_TESTED and level in c.needed_by]
    reasons += [f"{c.name} was not tested: {c.evidence}." for c in missing]
    if reasons:
        return Claim(level, INCONCLUSIVE, found, reasons, claimed)
    if any(check.holds is False for check in checks):
        failed = [f"{c.name}: {c.evidence}." for c in checks if c.holds is False]
        return Claim(level, FAIL, found, failed, claimed)
    unknown: dict[str, list[str]] = {}
    for check in checks:
        if check.holds is None:
            unknown.setdefault(check.unknown or check.evidence, []).append(check.name)
    reasons = [f"{reason}: {'; '.join(names)}." for reason, names in unknown.items()]
    return Claim(level, INCONCLUSIVE if unknown else PASS, found, reasons, claimed)


def holds_before(claim: Claim) -> Check:
    """Return the condition that the claim one level below holds."""
    holds = {PASS: True, FAIL: False, INCONCLUSIVE: None}[claim.verdict]
    return Check(f"{claim.level} holds", holds, claim.verdict)


def level(found: Sequence[Claim]) -> str:
    """Return the highest level whose claim passed; else C0."""
    return max((claim.level for claim in found if claim.verdict == PASS), default="C0")


def claim_tree(claim: Claim, rules: Rules) -> dict[str, Any]:
    """Return a claim as JSON tree of a card: its name, rule, verdict and checks."""
    name, rule = rules[claim.level]
    return {"level": claim.level, "name": name, "rule": rule} | asdict(claim)
