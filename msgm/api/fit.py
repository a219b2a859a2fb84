"""``msgm.fit`` and ``msgm.edit``: train a score model, or make it forget, in memory.

They are the trainer of the command line, seeded alike: the same settings give the same weights.
"""

import copy
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.api.checkpoints import occupy, working_folder
from msgm.api.experiments import working
from msgm.chain import Chain, Entry, gone_before
from msgm.config import TrainingSettings
from msgm.data.adapters import Given, given
from msgm.data.base import Dataset
from msgm.diffusion import ScoreModel
from msgm.diffusion.guidance import Guided
from msgm.diffusion.networks import TextNetwork
from msgm.digests import KEY_BYTES, weights_digest
from msgm.errors import UserError
from msgm.fields import structured
from msgm.objectives import OBJECTIVES, Objective
from msgm.objectives.edits import EDITS, Edit
from msgm.requests import ForgetRequest
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.splits import Part
from msgm.starts import refuse_in_edit
from msgm.training import Trainer, prompting
from msgm.training.adapters import refuse_from_scratch
from msgm.training.earlier import answered_by, chain_of
from msgm.training.editing import Editor
from msgm.training.prompts import prompted
from msgm.training.run import announce, check_conditions

UNKNOWN = "the model was made elsewhere: what it was asked to forget before is not known"


def fit(
    model: ScoreModel,
    dataset: Any,
    objective: str | Mapping[str, Any] | Objective = "standard",
    forget: ForgetRequest | None = None,
    steps: int = 1500,
    seed: int = 0,
    device: str = "auto",
    *,
    checkpoints: Path | str | None = None,
    fresh_chain: bool = False,
    levels: int | None = None,
    columns: tuple[str, str | None] | None = None,
    flip: bool = False,
    download: bool = False,
    threads: int | None = None,
    **training: Any,
) -> ScoreModel:
    """Return a copy of ``model`` that was trained, or made to forget; ``model`` itself stays as it is.

    What the model was asked to forget before stays forgotten: no such item is trained on again. The result carries the
    requests on, in its ``chain``.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])
        >>> base = msgm.fit(model, "digits", steps=2, batch_size=8)
        fit: standard, 2 steps on ...
        >>> threes = msgm.ForgetRequest(labels=[3])
        >>> made = msgm.fit(base, "digits", objective=msgm.Redirect(alpha=0.5), forget=threes, steps=2, batch_size=8)
        fit: redirect, 2 steps on ...
        >>> [entry.by for entry in made.chain.requests]
        ['redirect']

    Args:
        model: the model to start from: a new one (``ScoreModel.new``) or a trained one.
        dataset: the data. A data set by name (``"digits"``), by its settings (``{"name": "digits", "split_seed": 1}``)
            or as a ``DataSettings`` is split as ``msgm train`` splits it, and its training part is used. Any other is
            used whole, but for a published test set: hold out beforehand what you want to measure on. It may be a
            ``torch.utils.data.Dataset`` of pairs (image, label), such as torchvision's; a Hugging Face ``Dataset``;
            the path of a folder of pictures, with sub-folders as classes; an array of images; a tuple (images, labels).
        objective: a name in ``OBJECTIVES``, ``{"name": ..., ...}`` with its settings, or an objective.
        forget: what to forget; needed by every objective but those that train on all data.
        steps: optimiser steps.
        seed: of order, noise and dropout.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        checkpoints: folder for checkpoints and ``metrics.jsonl``. The same call goes on from its newest checkpoint. By
            default nothing is kept, and a call that is stopped begins anew.
        fresh_chain: start a new history: items of earlier requests are items to retain again, and the chain says so.
        levels: grey levels of an image channel, where the data do not say it: 256 unless you give it.
        columns: of data with named columns, those with images and labels (None: no labels); by default ``("image",
            "label")``.
        flip: train on random left-right mirror images as well.
        download: let data that is missing be fetched from the network.
        threads: threads to compute with, for the rest of the process.
        **training: further settings of ``TrainingSettings``, such as ``batch_size=64`` or ``lr=2e-4``.

    Returns:
        The trained model, on the device that it was trained on, with averaged weights unless ``weights="raw"``.

    Raises:
        UserError: an objective that needs a request and has none, a request with an objective that trains on all data,
            data of another shape or that is not that of earlier requests, a bad setting, or checkpoints of another fit.
        RunError: a term of the loss, or the gradient, became NaN or infinite.
        Interrupted: SIGINT or SIGTERM.
    """
    settings = _settings(steps, training, checkpoints)
    chosen = copy.deepcopy(objective) if isinstance(objective, Objective) else OBJECTIVES.build(_named(objective))
    name = getattr(chosen, "name", type(chosen).__name__)
    _refuse_unfit(name, chosen, forget)
    if model.untrained:
        refuse_from_scratch(settings)
    with working(False, download, threads):
        data = _given("fit", model, dataset, levels, columns, flip)
        model = _asking(model, data.dataset, forget)
        start, part = _prepared(model, data, forget, answered_by(name, model.untrained), fresh_chain)
        begun = derive_seed(seed, "scratch" if model.untrained else "finetune")
        with working_folder(checkpoints) as folder:
            means, concept = (None, None) if forget is None else (forget.means, forget.concept)
            if checkpoints is not None:
                facts = {"objective": {"name": name} | chosen.effective(), "training": asdict(settings), "seed": begun}
                facts |= {"data": data.dataset.digest(), "model": weights_digest(model.network), "means": means}
                facts |= {} if concept is None else {"concept": asdict(concept)}
                occupy(folder, facts, part)
            given = (data.dataset, part, settings, begun, Run(folder), device, "fit", means, concept)
            trainer = Trainer(start, chosen, *given)
            if checkpoints is None:
                trainer.kept = "nothing is kept, since fit was given no folder for checkpoints"
            if trainer.accelerator.is_main_process:
                announce("fit", name, trainer)
            trainer.train()
            made = trainer.result()
        return replace(made, sealed=weights_digest(made.network))


def edit(
    model: ScoreModel,
    dataset: Any,
    edit: str | Mapping[str, Any] | Edit,
    forget: ForgetRequest,
    seed: int = 0,
    device: str = "auto",
    *,
    fresh_chain: bool = False,
    levels: int | None = None,
    columns: tuple[str, str | None] | None = None,
    flip: bool = False,
    download: bool = False,
    threads: int | None = None,
    **training: Any,
) -> ScoreModel:
    """Return a copy of ``model`` that was made to forget by a change of its weights, without training steps.

    Example:
        >>> request = msgm.ForgetRequest(labels=[3, 7])
        >>> made = msgm.edit(base, "digits", "refit-head", request)
        edit: refit-head on ...
        >>> prune = msgm.objectives.edits.Prune(share=0.02, items=8)
        >>> made = msgm.edit(made, "digits", prune, msgm.ForgetRequest(labels=[5]))
        edit: prune on ...
        >>> [entry.by for entry in made.chain.requests]
        ['refit-head', 'prune']
        >>> 0.01 < prune.facts["changed_share"] < 0.03
        True

    Args:
        model: the trained model to start from; it stays as it is.
        dataset: the data, as in ``msgm.fit``; None for an edit that reads prompts alone, such as ``uce``, of a request
            that names them by its ``concept``.
        edit: a name in ``msgm.objectives.edits.EDITS``, ``{"name": ..., ...}`` with its settings, or an edit; an edit
            has its numbers in ``facts`` afterwards.
        forget: what to forget.
        seed: of every random choice.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        fresh_chain: start a new history: items of earlier requests are items to retain again, and the chain says so.
        levels: as in ``msgm.fit``.
        columns: as in ``msgm.fit``.
        flip: as in ``msgm.fit``.
        download: let data that is missing be fetched from the network.
        threads: threads to compute with, for the rest of the process.
        **training: settings of ``TrainingSettings`` for edits that fine-tune a copy of the model.

    Raises:
        UserError: an unknown edit, one that cannot be made in this network, data of another shape or that is not that
            of earlier requests, or a bad setting.
        RunError: a weight became NaN or infinite.
    """
    settings = structured(TrainingSettings, {"trackers": [], **training}, "edit")
    refuse_in_edit(vars(settings), "edit")
    chosen = edit if isinstance(edit, Edit) else EDITS.build(_named(edit))
    if dataset is None:
        with working(False, download, threads):
            made = prompting.edited(model, chosen, forget, _without_data(model, fresh_chain), seed, device, "edit")
            return replace(made, folder=None, sealed=weights_digest(made.network))
    with working(False, download, threads):
        data = _given("edit", model, dataset, levels, columns, flip)
        model = _asking(model, data.dataset, forget)
        start, part = _prepared(model, data, forget, chosen.name, fresh_chain)
        with working_folder(None) as folder:
            begun = derive_seed(seed, "finetune")
            given = (data.dataset, part, settings, begun, Run(folder), device, "edit", forget.means)
            editor = Editor(start, chosen, *given, concept=forget.concept)
            if editor.accelerator.is_main_process:
                announce("edit", chosen.name, editor)
            editor.train()
            made = editor.result()
        return replace(made, sealed=weights_digest(made.network))


def _without_data(model: ScoreModel, fresh: bool) -> Chain:
    """Return what the model was asked before, where no data are here to check it against."""
    _refuse_guided("edit", model)
    found = model.history() or Chain(unknown=UNKNOWN)
    return found.started_anew() if fresh else found


def _refuse_guided(verb: str, model: ScoreModel) -> None:
    """Refuse a model without weights of its own."""
    if isinstance(model, Guided):
        raise UserError(f"{verb}: the model is a guided view, whose weights are those of its base; give model.base.")


def _given(
    verb: str,
    model: ScoreModel,
    dataset: Any,
    levels: int | None,
    columns: tuple[str, str | None] | None,
    flip: bool,
) -> Given:
    """Return the data, refusing those whose items are not the model's, and a model without weights of its own."""
    _refuse_guided(verb, model)
    data = given(dataset, model.shape, levels, columns, flip)
    if model.shape != data.dataset.shape:
        raise UserError(f"{verb}: the model makes items of shape {model.shape}, but the data has {data.dataset.shape}.")
    return data


def _asking(model: ScoreModel, dataset: Dataset, forget: ForgetRequest | None) -> ScoreModel:
    """Return a model whose labels ask for the data's prompts, where it reads text, and that fits the request.

    The given one stays as it is, and shares its weights.
    """
    if isinstance(model.network, TextNetwork):
        concept = None if forget is None else forget.concept
        model = prompted(replace(model, network=copy.copy(model.network)), dataset, concept)
    check_conditions(model, dataset, forget)
    return model


def _prepared(
    model: ScoreModel, data: Given, forget: ForgetRequest | None, by: str, fresh: bool
) -> tuple[ScoreModel, Part]:
    """Return a copy of the model with the chain after the request, and the items to retain and to forget."""
    before = _before(model, data, fresh)
    asked = np.zeros(len(data.dataset), dtype=bool) if forget is None else data.dataset.forget_mask(forget)
    part = data.part(asked, gone_before(asked, before.requests))
    key = secrets.token_bytes(KEY_BYTES)
    chain = _carried_on(before, forget, asked, by, data, key)
    return replace(model, network=copy.deepcopy(model.network), chain=chain, key=key, folder=None, sealed=None), part


def _settings(steps: int, training: Mapping[str, Any], checkpoints: Path | str | None) -> TrainingSettings:
    settings = structured(TrainingSettings, {"trackers": [], **training, "steps": steps}, "fit")
    for name in ("sample_every", "keep_every", "trackers"):
        if getattr(settings, name) and checkpoints is None:
            raise UserError(f"fit.{name}: what it writes needs a folder; give checkpoints=FOLDER.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and checkpoints is None:
        raise UserError("fit: several processes need a folder that all of them see; give checkpoints=FOLDER.")
    return settings


def _named(objective: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"name": objective} if isinstance(objective, str) else objective


def _refuse_unfit(name: str, objective: Objective, forget: ForgetRequest | None) -> None:
    """Refuse a request where the objective cannot answer one, and none where it needs one."""
    if objective.data == "all" and forget is not None:
        known = ", ".join(key for key, entry in OBJECTIVES.entries.items() if entry.data != "all")
        raise UserError(f"fit: objective {name!r} trains on the forget set too; to unlearn, choose one of {known}.")
    if objective.data != "all" and forget is None:
        raise UserError(
            f"fit: objective {name!r} needs to know what to forget; give forget=msgm.ForgetRequest(labels=[...]), say."
        )


def _before(model: ScoreModel, data: Given, fresh: bool) -> Chain:
    """Return what the model was asked before, checked against the data that is here now."""
    found = model.history()
    if fresh:
        return (found or Chain(unknown=UNKNOWN)).started_anew()
    if found is None:
        found = Chain(unknown=UNKNOWN) if model.folder is None else chain_of(model.folder, data.dataset)
    found.check(data.dataset, data.split_facts(), model.key, model.folder or "the model")
    return found


def _carried_on(
    before: Chain, forget: ForgetRequest | None, asked: NDArray[np.bool_], by: str, data: Given, key: bytes
) -> Chain:
    """Return the chain after this fit."""
    if forget is None:
        return before.over(data.dataset, data.split_facts(), key if before.requests else None)
    return before.extended(Entry.of(forget, asked, by), data.dataset, data.split_facts(), key)
