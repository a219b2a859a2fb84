"""Edits by prompts alone: the model's own text encoder says what they mean, and no data are read."""

import copy
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from msgm import processes, threads, traces
from msgm.chain import Chain, Entry, read_chain
from msgm.config import Config
from msgm.devices import chosen_device
from msgm.diffusion import ScoreModel
from msgm.diffusion.description import describe
from msgm.errors import UserError
from msgm.folders import locked, write_json
from msgm.objectives.edits import EDITS, Edit, EditSetup
from msgm.requests import Concept, ForgetRequest
from msgm.runs import Run, environment
from msgm.training.editing import applied
from msgm.training.occupying import device_name, finished, occupy, peak_memory


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


def unlearn_prompts(config: Config, run: Run, source: Path, resume: bool, device: str, fresh_chain: bool) -> Run:
    """Make a config's edit of a text-to-image model in a run folder, as ``msgm unlearn`` does without data.

    Args:
        config: with an edit and a request that names a concept.
        run: the folder.
        source: model folder.
        resume: go on with a run that was stopped.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        fresh_chain: start a new history of requests.

    Raises:
        UserError: a config without an edit or with steps after it, several processes, a folder that holds another run,
            and what ``edited`` raises.
        RunError: a weight became NaN or infinite.
    """
    if not config.edit or config.follows:
        raise UserError(
            "data: training reads items, so name the data; without them take an edit of prompts, edit.name=uce say."
        )
    if processes.count() > 1:
        raise UserError("an edit of prompts runs in one process; start it without torchrun or accelerate launch.")
    edit = EDITS.build(config.edit)
    concept_of(edit, config.request)
    with locked(run.path):
        threads.keep(run.manifest)
        model = ScoreModel.load(source)
        config = replace(config, process=describe(model.process))
        occupy(run, config, source, resume)
        if not finished(run):
            _make(config, edit, run, model, source, device, fresh_chain)
    return run


def _make(config: Config, edit: Edit, run: Run, model: ScoreModel, source: Path, device: str, fresh: bool) -> None:
    """Edit, and write the model and what it is into the run folder."""
    where, request = chosen_device(device), config.request.describe()
    traces.register(run.path, run.model, *traces.KNOWN["model"], request)
    traces.follow(run.path, source)
    manifest: dict[str, object] = environment() | {
        "status": "running",
        "source": str(source),
        "start": "edit",
        "request": request,
        "objective": config.method,
        "seed": config.seed,
        "device": device_name(where),
        "parameters": model.parameter_count(),
        "weights": "edited",
    }
    write_json(run.manifest, manifest)
    began = time.perf_counter()
    chain = read_chain(source) or Chain(unknown=f"{source} has no chain.json: what it was asked before is not known")
    given = (chain.started_anew() if fresh else chain, config.seed, device, run.path.name)
    made = edited(model, edit, config.request, *given)
    made.save(run.model)
    traces.seal(run.path, run.model)
    done = {"seconds": round(time.perf_counter() - began, 2), "peak_memory_mb": peak_memory(where)}
    write_json(run.manifest, manifest | done | {"edited": edit.facts, "status": "finished"})


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
