"""Settings of ``msgm recommender attributes``."""

from dataclasses import dataclass, field
from typing import Any

from msgm.checks import at_least
from msgm.errors import UserError, known
from msgm.fields import OptionalSettings
from msgm.folders import check_names
from msgm.recommender.config import BaseConfig
from msgm.recommender.erasure.erasures import CARDS, build_erasure, resolve_erasure
from msgm.recommender.metrics.attribute_attackers import AttributeAttackers
from msgm.recommender.metrics.ranking import Ranking
from msgm.study.config import resolved

SURFACES = ["embeddings", "scores", "lists"]
BEFORE, SHUFFLED = CONTROLS = ("before", "shuffled-labels")
"""Rows of every comparison: the model as it was fitted, and attackers on it who are given permuted values."""


@dataclass
class AttributeConfig(BaseConfig):
    """One comparison of erasures of users' attributes.

    Attributes:
        attribute: the one to take out; None takes every attribute of the data, each by itself.
        surfaces: what is attacked: ``embeddings``, ``scores``, ``lists``.
        folds: of the attackers' cross-validation; every value needs as many users.
        k: length of the lists.
        erasures: settings of the erasures, by the row's name; the key ``name`` picks one, by default the row's name.
            All erasures are rows; one that is set to null is left out, as is one that is not for a model,
            and ``combined``, which takes out all attributes at once, where there is one.
        tuned: origin of the erasures' values that ``msgm tune`` chose; shown in reports.
    """

    attribute: str | None = None
    surfaces: list[str] = field(default_factory=lambda: ["embeddings", "scores"])
    folds: int = 5
    k: int = 10
    erasures: dict[str, OptionalSettings] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(2, self, "", "seeds", "folds")
        at_least(1, self, "", "k")
        if not self.surfaces:
            raise UserError(f"surfaces: name at least one of {', '.join(SURFACES)}.")
        for surface in self.surfaces:
            known(surface, SURFACES, "surfaces", "surface")
        check_names(self.erasures, "erasures", CONTROLS)
        others: dict[str, Any] = {name: {} for name in CARDS if name not in self.erasures}
        self.erasures = resolved("erasures", self.erasures | others, resolve_erasure)
        for settings in self.erasures.values():
            if settings is not None:
                build_erasure(settings)

    def ranking(self) -> Ranking:
        """Return the metric of utility."""
        return Ranking(k=self.k)

    def attackers(self, attribute: str, surface: Any, seed: int) -> AttributeAttackers:
        """Return the metric of the attackers on one surface and attribute."""
        return AttributeAttackers(attribute, surface, self.k, self.folds, seed)
