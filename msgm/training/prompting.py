"""Edits by prompts alone: the model's own text encoder says what they mean, and no data are read."""

import copy
from dataclasses import replace

import numpy as np

from msgm.chain import Chain, Entry
from msgm.devices import chosen_device
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.objectives.edits import EDITS, Edit, EditSetup
from msgm.requests import Concept, ForgetRequest
from msgm.training.editing import applied
from msgm.training.run import device_name


def edited(
    model: ScoreModel, edit: Edit, request: ForgetRequest, chain: Chain, seed: int, device: str, label: str
) -> ScoreModel:
    """Return an edited copy of a model, with the request on its chain.

    Args:
        model: a text-to-image model.
        edit: one that reads prompts alone.
        request: names a concept.
        chain: of the requests before it.
        seed: of the edit's random choices.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown meanwhile.

    Raises:
        UserError: an edit or a request of items, earlier requests of items, and what ``Edit.apply`` raises.
        RunError: a weight became NaN or infinite.
    """
    concept = concept_of(edit, request)
    asked = chain.extended_by_prompts(Entry.of(request, np.zeros(0, dtype=bool), edit.name))
    where, told = chosen_device(device), f"{len(concept.forget)} prompts to forget and {len(concept.keep)} to keep"
    print(f"{label}: {edit.name} on {device_name(where)}; {told}", flush=True)
    if model.device != where:
        model = replace(model, network=copy.deepcopy(model.network)).to(where)
    made = applied(edit, model, EditSetup.of_prompts(model, concept, seed), label)
    return replace(made, chain=asked)


def concept_of(edit: Edit, request: ForgetRequest) -> Concept:
    """Return the prompts by which an edit is made without data.

    Raises:
        UserError: an edit that reads items, or a request that names them.
    """
    if edit.data != "prompts":
        known = ", ".join(name for name, entry in EDITS.entries.items() if entry.data == "prompts")
        raise UserError(f"data: {edit.name} reads items, so name the data; of the edits {known} read prompts alone.")
    if request.concept is None:
        raise UserError("request.concept: without data a request names prompts, {forget: [seven], keep: [one]} say.")
    return request.concept
