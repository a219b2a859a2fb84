"""Erasures of attributes from a recommender, before, in and after training, behind one call.

After training: the entries of ``ERASURES``. Before: obfuscation, which refits the model to thinned-out profiles. In
training: ``adversarial-mult-vae`` replaces a MultVAE of the same settings.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError, nearest
from msgm.fields import structured
from msgm.recommender.attributes import ERASURES, Card, Erasure, PluginErasure
from msgm.recommender.attributes.apply import Erased, erase_attributes, plug
from msgm.recommender.attributes.obfuscation import Obfuscation
from msgm.recommender.models import MODELS
from msgm.recommender.models.adversarial_mult_vae import AdversarialMultVAE
from msgm.recommender.models.mult_vae import MultVAE
from msgm.recommender.originals import Original
from msgm.seeding import derive_seed

Attributes = Mapping[str, NDArray[np.str_]]
Settings = dict[str, Any]
OBFUSCATION, ADVERSARIAL, COMBINED = "obfuscation", "adversarial-mult-vae", "combined"
FACTOR_MODELS = ("als", "bpr", "lightgcn", "mf")
"""Models with a table of user embeddings, which erasures can exchange."""
CARDS: dict[str, Card] = {name: cls.card for name, cls in ERASURES.entries.items()} | {
    OBFUSCATION: Card(
        "keep a cell of typicality t > 0 for its user's class with probability exp(-strength t), then fit",
        'Escobedo et al., "Making Alice Appear Like Bob", RecSys 2024, the idea',
        deviations="log-ratio of smoothed shares for their score; cells go by chance; nothing is added to a profile",
    ),
    ADVERSARIAL: Card(
        "loss of MultVAE + cross-entropy of adversaries on the codes, its gradient reversed in the encoder",
        "Ganhor et al., SIGIR 2022 (Adv-MultVAE); Ganin and Lempitsky, ICML 2015",
        deviations="classes weigh alike; three heads, not ten; no reversal while the heads do no better than blindly",
    ),
}
"""What every erasure is, by its name."""


def has_users(model: str) -> bool:
    """Return whether models of this name have user embeddings or, as autoencoders, codes of users."""
    return model in (*FACTOR_MODELS, MultVAE.name) or hasattr(MODELS.entries[model], "user_factors")


class ModelErasure(ABC):
    """Erases attributes from a whole model; an ``Erasure`` changes only its user table.

    Attributes:
        name: of the erasure.
        reversible: whether it is a removable plug-in.
        several: whether it erases all attributes at once, rather than one.
    """

    name: str
    reversible: bool = False
    several: bool = False

    @abstractmethod
    def is_for(self, model: str) -> bool:
        """Return whether it works on models of this name."""

    @abstractmethod
    def erase(self, original: Original, attributes: Attributes, seed: int) -> Erased:
        """Return a new model that reveals less of the attributes; raises the erasure's own errors."""


class AfterTraining(ModelErasure):
    """An entry of ``ERASURES`` on the user table; plugged in where it is a plug-in."""

    def __init__(self, erasure: Erasure) -> None:
        self.name, self.erasure = erasure.name, erasure
        self.reversible, self.several = isinstance(erasure, PluginErasure), erasure.name == COMBINED

    def is_for(self, model: str) -> bool:
        return model != MultVAE.name

    def erase(self, original: Original, attributes: Attributes, seed: int) -> Erased:
        make = plug if self.reversible else erase_attributes
        return make(original.model, attributes, self.erasure, seed)


class BeforeTraining(ModelErasure):
    """Obfuscation of the training cells, and a fit with the original's settings and seed."""

    name = OBFUSCATION

    def __init__(self, obfuscation: Obfuscation) -> None:
        self.obfuscation = obfuscation

    def is_for(self, model: str) -> bool:
        return True

    def erase(self, original: Original, attributes: Attributes, seed: int) -> Erased:
        start = time.perf_counter()
        drawn = replace(self.obfuscation, seed=derive_seed(self.obfuscation.seed, seed))
        thinned = drawn.apply(original.split.train, attributes)
        model = MODELS.build(original.model.settings()).fit(thinned, original.seed)
        return Erased(model, time.perf_counter() - start, _missing(attributes))


class InTraining(ModelErasure):
    """The adversarial MultVAE, with the settings and the seed of the MultVAE that it stands beside."""

    name = ADVERSARIAL

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def is_for(self, model: str) -> bool:
        return model == MultVAE.name

    def erase(self, original: Original, attributes: Attributes, seed: int) -> Erased:
        start = time.perf_counter()
        model = MODELS.build(original.model.settings() | self.settings | {"name": ADVERSARIAL})
        assert isinstance(model, AdversarialMultVAE)
        model.hiding(attributes).fit(original.split.train, original.seed)
        return Erased(model, time.perf_counter() - start, _missing(attributes))


def _missing(attributes: Attributes) -> dict[str, int]:
    return {name: int((values == "").sum()) for name, values in attributes.items()}


def resolve_erasure(settings: Mapping[str, Any]) -> Settings:
    """Return the settings of an erasure with all its defaults; of the adversarial MultVAE, those that MultVAE lacks.

    Raises:
        UserError: an unknown name or key, or a value that the erasure refuses.
    """
    name, own = str(settings["name"]), {key: value for key, value in settings.items() if key != "name"}
    if name not in CARDS:
        known = sorted(CARDS)
        raise UserError(f"unknown erasure {name!r}; known: {', '.join(known)}.{nearest(name, known)}")
    if name == OBFUSCATION:
        return {"name": name} | vars(structured(Obfuscation, own, name))
    if name == ADVERSARIAL:
        shared = {field.name for field in fields(MultVAE)} - own.keys()
        return {key: value for key, value in MODELS.resolve(settings).items() if key not in shared}
    return ERASURES.resolve(settings)


def build_erasure(settings: Mapping[str, Any]) -> ModelErasure:
    """Return the erasure that resolved ``settings`` pick."""
    name, own = settings["name"], {key: value for key, value in settings.items() if key != "name"}
    if name == OBFUSCATION:
        return BeforeTraining(structured(Obfuscation, own, name))
    return InTraining(own) if name == ADVERSARIAL else AfterTraining(ERASURES.build(settings))
