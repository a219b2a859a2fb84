"""Texts on a method's solvers for rows and cards; ``solve`` of a row is as ``msgm.solves`` makes it."""

from collections.abc import Mapping, Sequence
from typing import Any

NOT_CONVERGED = "not converged"


def converged(row: Mapping[str, Any]) -> bool:
    """Return whether the row's solver converged; true if it has none."""
    return not row.get("solve") or bool(row["solve"]["converged"])


def solver_text(row: Mapping[str, Any]) -> str | None:
    """Return the outcome of the row's solver as text; None if nothing was solved or it was not recorded."""
    found = row.get("solve")
    if not found:
        return None
    size = "not finite" if found["residual"] is None else f"{found['residual']:.1e}"
    word = "converged" if found["converged"] else NOT_CONVERGED
    return f"{word}: relative residual {size} after {found['steps']} steps, where {found['tolerance']:g} was asked for"


def solver_lines(row: Mapping[str, Any]) -> list[str]:
    """Return the caveats on the card of a row whose solver did not converge."""
    if converged(row):
        return []
    return [f"That the model is what the method's formula gives: the solver is {solver_text(row)}."]


def solver_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a note for each row of a table whose solver did not converge."""
    return [f"{row['method']}{_on(row)} is {solver_text(row)}." for row in rows if not converged(row)]


def _on(row: Mapping[str, Any]) -> str:
    return f" on {row['model']}" if "model" in row else ""
