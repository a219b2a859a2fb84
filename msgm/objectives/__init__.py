"""The swappable losses, one idea a file. Pure functions of (network view, batches), importable alone."""

from msgm.objectives.base import OBJECTIVES, Card, Mixed, Noised, Objective, Setup, Term, mean_square, noised
from msgm.objectives.denoising import Standard, Unseen
from msgm.objectives.erasediff import EraseDiff
from msgm.objectives.moments import Moments, merged_moments, moments
from msgm.objectives.obtuse import Obtuse
from msgm.objectives.orthogonal import Orthogonal
from msgm.objectives.redirect import Redirect

__all__ = [
    "OBJECTIVES",
    "Card",
    "EraseDiff",
    "Mixed",
    "Moments",
    "Noised",
    "Objective",
    "Obtuse",
    "Orthogonal",
    "Redirect",
    "Setup",
    "Standard",
    "Term",
    "Unseen",
    "mean_square",
    "merged_moments",
    "moments",
    "noised",
]
