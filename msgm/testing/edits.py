"""``check_edit``: what comparisons rely on in every edit."""

import copy
import json

import torch
from torch import Tensor

from msgm.curvature import weights_of
from msgm.diffusion import ScoreModel
from msgm.diffusion.networks import TextNetwork
from msgm.objectives import Drawn
from msgm.objectives.edits import Edit, EditSetup
from msgm.requests import Concept
from msgm.seeding import generator
from msgm.testing.rules import check_settings, check_texts, made, repeated, require

DATA = ("forget", "retain", "retain+forget", "prompts")
CONCEPT = Concept(["seven"], ["two"], "one")
SHAPE = (1, 8, 8)


def check_edit(edit: Edit | type[Edit]) -> None:
    """Check that an edit keeps every rule that comparisons rely on.

    - It is a dataclass whose settings round-trip through a config, and wrong settings are UserErrors.
    - It has a name and a card, and declares the parts of the data that it reads; it reads no other.
    - The given model stays as it is. The edited one shares no storage with it, has finite weights and is in eval mode.
    - It draws nothing from a global generator, and is the same again; its facts are JSON.

    Example:
        >>> from msgm.testing import check_edit
        >>> check_edit(msgm.objectives.edits.TaskVector)

    Args:
        edit: an edit with its settings, or a class, which is tried with its defaults; ``items``, where it has such a
            setting, is lowered for speed.

    Raises:
        Refused: a rule is broken; the message says which in one sentence.
    """
    found = made(edit, Edit)
    name = type(found).__name__
    check_settings(found)
    check_texts(name, type(found), "name")
    check_texts(f"{name}.card", getattr(type(found), "card", None), "formula", "source", "deviations")
    require(found.data in DATA, f"{name}.data is {found.data!r}; expected one of {', '.join(DATA)}.")
    if hasattr(found, "items"):
        found.items = min(found.items, 8)
    model = _model(found.data == "prompts")
    before, asked = weights_of(copy.deepcopy(model.network)), set[str]()
    after = repeated(f"{name}.apply", lambda: _edited(found, model, _setup(model, asked)))
    same = all(torch.equal(value, before[key]) for key, value in weights_of(model.network).items())
    require(same, f"{name}.apply changes the model that it is given.")
    require(all(bool(value.isfinite().all()) for value in after.values()), f"{name}.apply gives weights not finite.")
    wrong = ", ".join(sorted(asked - set(found.data.split("+"))))
    require(not wrong, f"{name} declares that it reads {found.data} items, and reads {wrong} items too.")
    try:
        json.dumps(found.facts, allow_nan=False)
        json.dumps(found.effective(), allow_nan=False)
    except (TypeError, ValueError) as error:
        require(False, f"{name}: its facts or settings hold what a report cannot: {error}.")


def _model(reads_text: bool) -> ScoreModel:
    model = ScoreModel.new("text-unet" if reads_text else "unet", "vp", shape=SHAPE, channels=[8])
    if isinstance(model.network, TextNetwork):
        model.network.set_prompts([*CONCEPT.forget, *CONCEPT.keep, CONCEPT.anchor])
    return model


def _edited(edit: Edit, model: ScoreModel, setup: EditSetup) -> dict[str, Tensor]:
    edited, given = edit.apply(model, setup).network, dict(model.network.named_parameters())
    own = dict(edited.named_parameters())
    shared = any(value.data_ptr() == given[key].data_ptr() for key, value in own.items())
    require(not shared, f"{type(edit).__name__}.apply shares storage with the model that it is given.")
    require(not edited.training, f"{type(edit).__name__}.apply leaves the network in training mode.")
    return weights_of(edited)


def _setup(model: ScoreModel, asked: set[str]) -> EditSetup:
    """Return an edit's inputs; the parts of the data that it asks for are added to ``asked``."""

    def items(part: str, count: int) -> Drawn:
        asked.add(part)
        return Drawn(2 * torch.rand(count, *SHAPE, generator=generator(0, part)) - 1)

    def tuned(steps: int) -> ScoreModel:
        asked.add("forget")
        found = copy.deepcopy(model)
        with torch.no_grad():
            for number, weight in enumerate(found.network.parameters()):
                weight.add_(0.01 * torch.randn(weight.shape, generator=generator(1, "tuned", number)))
        return found

    def retain(count: int) -> Tensor:
        return items("retain", count).items

    return EditSetup(
        model=lambda: copy.deepcopy(model),
        retain=retain,
        tune_on_forget=tuned,
        items=items,
        forget_share=0.25,
        seed=0,
        concept=CONCEPT,
    )
