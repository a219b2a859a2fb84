"""The swappable losses, one idea a file. Pure functions of (network view, batches), importable alone."""

from msgm.objectives.amnesia import SelectiveAmnesia
from msgm.objectives.anchors import Anchor, Held
from msgm.objectives.base import OBJECTIVES, Card, Matched, Mixed, Noised, Objective, Phase, Term, mean_square, noised
from msgm.objectives.concept_ablation import ConceptAblation
from msgm.objectives.denoising import Standard, Unseen
from msgm.objectives.erasediff import EraseDiff
from msgm.objectives.esd import ESD
from msgm.objectives.gradient_moments import Moments, moments
from msgm.objectives.guided import GuidedTarget
from msgm.objectives.masks import Mask, kept_shares
from msgm.objectives.matching import MATCHING, FiniteDifference, Matching, Sliced
from msgm.objectives.obtuse import Obtuse
from msgm.objectives.orthogonal import Orthogonal
from msgm.objectives.redirect import Redirect
from msgm.objectives.salun import SalUn
from msgm.objectives.setup import Drawn, Setup
from msgm.objectives.sfron import SFRon
from msgm.objectives.subtract import Subtract, shared_losses
from msgm.objectives.surgery import AGEM, SURGERY, Cap, Cone, PCGrad, Surgery, inner

__all__ = [
    "AGEM",
    "ESD",
    "MATCHING",
    "OBJECTIVES",
    "SURGERY",
    "Anchor",
    "Cap",
    "Card",
    "ConceptAblation",
    "Cone",
    "Drawn",
    "EraseDiff",
    "FiniteDifference",
    "GuidedTarget",
    "Held",
    "Mask",
    "Matched",
    "Matching",
    "Mixed",
    "Moments",
    "Noised",
    "Objective",
    "Obtuse",
    "Orthogonal",
    "PCGrad",
    "Phase",
    "Redirect",
    "SFRon",
    "SalUn",
    "SelectiveAmnesia",
    "Setup",
    "Sliced",
    "Standard",
    "Subtract",
    "Surgery",
    "Term",
    "Unseen",
    "inner",
    "kept_shares",
    "mean_square",
    "moments",
    "noised",
    "shared_losses",
]
