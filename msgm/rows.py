"""Rows of a comparison of generators: how a model is made, and those that every config has."""

from dataclasses import dataclass, field
from typing import Literal

from msgm.fields import Settings


@dataclass
class Row:
    """One row of ``msgm compare``.

    Example:
        >>> row = Row("finetune", {"name": "redirect"}, training={"steps": 200})
        >>> msgm.Config(rows={"mine": row}).row_training(row).steps
        200

    Attributes:
        start: ``none`` leaves the base model as it is, ``scratch`` trains from random weights, ``finetune`` starts from
            the base model, ``edit`` changes the base model's weights at once, ``guide`` guides the base model's samples
            and leaves its weights, ``shards`` trains models of shards and deletes the forget set from them, ``random``
            is an untrained network.
        objective: the objective's name and settings. An edit makes no steps without one; with one its steps follow.
            Guidance and shards have none.
        edit: the edit's name and settings, of a row that starts with ``edit``.
        guidance: the guidance's name and settings, of a row that starts with ``guide``.
        shards: settings of ``ShardSettings``, of a row that starts with ``shards``.
        training: overrides of ``training`` (and of ``finetune``, for rows that start from the base model).
        optional: run only when ``--only`` names the row.
    """

    start: Literal["none", "scratch", "finetune", "edit", "guide", "shards", "random"] = "finetune"
    objective: Settings = field(default_factory=dict)
    edit: Settings = field(default_factory=dict)
    guidance: Settings = field(default_factory=dict)
    shards: Settings = field(default_factory=dict)
    training: Settings = field(default_factory=dict)
    optional: bool = False


BASE_ROW = "do-nothing"
SISS_CAP = {"name": "cap", "ratio": 0.1, "exactly": True}
ANCHORED = {"name": "subtract", "descent": "nothing", "weight": 1, "ceiling": 1}

ROWS: dict[str, Row] = {
    BASE_ROW: Row("none", {"name": "standard"}),
    "unseen-scratch": Row("scratch", {"name": "unseen"}),
    "unseen": Row("finetune", {"name": "unseen"}),
    "erasediff": Row("finetune", {"name": "erasediff"}),
    "orthogonal": Row("finetune", {"name": "orthogonal"}),
    "obtuse": Row("finetune", {"name": "obtuse"}),
    "redirect": Row("finetune", {"name": "redirect"}),
    "random-network": Row("random", {"name": "standard"}, optional=True),
    "erasediff-weighted": Row("finetune", {"name": "erasediff", "variant": "weighted"}, optional=True),
    "orthogonal-inner": Row("finetune", {"name": "orthogonal", "variant": "inner"}, optional=True),
    "orthogonal-marginal": Row("finetune", {"name": "orthogonal", "variant": "marginal"}, optional=True),
    "subtract": Row("finetune", {"name": "subtract"}, optional=True),
    "graddiff": Row("finetune", {"name": "subtract", "descent": "retain", "weight": 1, "ceiling": 1}, optional=True),
    "neggrad": Row("finetune", {"name": "subtract", "descent": "nothing", "weight": 1, "ceiling": 1}, optional=True),
    "siss": Row("finetune", {"name": "subtract", "importance": 0.5, "weight": 1, "combine": SISS_CAP}, optional=True),
    "erasediff-pcgrad": Row("finetune", {"name": "erasediff", "combine": "pcgrad"}, optional=True),
    "salun": Row("finetune", {"name": "salun"}, optional=True),
    "sfr-on": Row("finetune", {"name": "sfr-on"}, optional=True),
    "selective-amnesia": Row("finetune", {"name": "selective-amnesia"}, optional=True),
    "ewc": Row("finetune", ANCHORED | {"anchor": {"by": "fisher"}, "replay": 500}, optional=True),
    "l2-sp": Row("finetune", ANCHORED | {"anchor": {"by": "identity"}}, optional=True),
    "obtuse-released": Row("finetune", {"name": "obtuse", "sign": "released"}, optional=True),
}
