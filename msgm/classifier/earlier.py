"""Earlier forget requests of a classifier, and tests of whether their items are still forgotten."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from msgm import first_version
from msgm.cards.claims import FAIL, INCONCLUSIVE, PASS
from msgm.cards.history import Earlier, untested, verdict_at_most
from msgm.chain import Chain, Entry, others, read_chain
from msgm.classifier.config import ClassifierConfig, load_config
from msgm.classifier.data import Examples, Split
from msgm.classifier.experiment import Experiment
from msgm.classifier.measuring import logits_of
from msgm.classifier.outputs import credit
from msgm.data import Dataset
from msgm.digests import stands_for
from msgm.errors import UserError
from msgm.evaluation.attacks.separation import auc
from msgm.evaluation.rates import Share, rate
from msgm.plugins import load_received
from msgm.runs import Run
from msgm.strata import controls

MARGIN = 0.1
"""How far the AUC of an attack that tells nothing may lie above one half, interval included."""


def earlier_chain(folder: Path, own: ClassifierConfig, dataset: Dataset, fresh: bool = False) -> Chain:
    """Return the chain of forget requests of the model in ``folder``.

    Args:
        folder: model folder.
        own: the user's own experiment; code that a received run names is run only if this names it too, or on trust.
        dataset: its data.
        fresh: start a new chain deliberately; it records which earlier requests it drops.

    Raises:
        UserError: as ``first_version.chain_of``.
    """
    if fresh:
        return (read_chain(folder) or Chain(unknown="what a model without chain.json was asked")).started_anew()

    def answer(run: Run, manifest: first_version.Manifest, before: Chain) -> Chain:
        config = load_config(load_received(run.path, own=own.to_dict()))
        return _answered(run, config, manifest, before, dataset)

    return first_version.chain_of(folder, answer)


def tested(model: nn.Module, experiment: Experiment, split: Split, request: str) -> list[Earlier]:
    """Test the requests before the present one on a model.

    Args:
        model: after the present request.
        experiment: with the chain of the requests before it.
        split: of the present request.
        request: its name.
    """
    mine = experiment.selected(request)
    return [_tested(model, experiment, split, entry) for entry in others(mine, experiment.chain.requests)]


def _tested(model: nn.Module, experiment: Experiment, split: Split, entry: Entry) -> Earlier:
    """Test one request: by the accuracy on its items if no class of theirs is retained, else by a membership attack.

    The accuracy must not exceed chance. The attack's AUC, of the cross-entropy loss against held-out items of the same
    classes and sources (``msgm.strata``), must not differ from .5.
    """
    dataset, device = experiment.dataset, experiment.device
    named = entry.mask(len(dataset))
    members = _some(dataset, experiment.parts["train"], named)
    if not len(members):
        return untested(entry, True, "it named no training item")
    labels = np.unique(members.labels.numpy())
    right, losses = _read(model, members, device)
    seen = rate(float(right.sum()), len(right))
    numbers = {"accuracy on its training items": _percent(seen)}
    held_out = np.concatenate([experiment.parts[part] for part in ("nonmembers", "test")])
    never_seen = _some(dataset, held_out, named | ~experiment.chain.gone(len(dataset)))
    found = controls(members.strata, never_seen.strata)
    fresh = never_seen.where(found.used)
    if len(fresh):
        known, others_losses = _read(model, fresh, device)
        attack = auc(-losses[found.matched], -others_losses, found.weights[found.used])
        numbers["accuracy on held-out items of its classes"] = _percent(rate(float(known.sum()), len(known)))
        numbers["AUC of membership by loss"] = f"{attack['value']:.2f} [{attack['low']:.2f}, {attack['high']:.2f}]"
    if not np.isin(labels, np.unique(split.retain.labels.numpy())).any():
        chance = 1 / len(dataset.classes)
        text = f"accuracy on its training items {_percent(seen)}, where chance is {100 * chance:.1f}%"
        return Earlier(entry, True, numbers, verdict_at_most(seen["low"], seen["high"], chance), text)
    if not len(fresh):
        return untested(entry, True, "no held-out item of its classes and sources is left to compare with")
    text = f"AUC of membership by loss {numbers['AUC of membership by loss']}, where .5 is chance"
    return Earlier(entry, True, numbers, verdict_beside_chance(attack["low"], attack["high"]), text)


def verdict_beside_chance(low: float, high: float) -> str:
    """Return the verdict from the confidence interval of an attack's AUC; an AUC below .5 reveals items as well.

    >>> verdict_beside_chance(0.45, 0.55), verdict_beside_chance(0.01, 0.02), verdict_beside_chance(0.3, 0.55)
    ('PASS', 'FAIL', 'INCONCLUSIVE')
    """
    if low > 0.5 or high < 0.5:
        return FAIL
    return PASS if low >= 0.5 - MARGIN and high <= 0.5 + MARGIN else INCONCLUSIVE


def _some(dataset: Dataset, positions: NDArray[np.int64], mask: NDArray[np.bool_]) -> Examples:
    return Examples.of(dataset, positions[mask[positions]])


def _read(model: nn.Module, examples: Examples, device: object) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n,) correctness of the predictions, in [0, 1], and (n,) cross-entropy losses in nats."""
    z, y = logits_of(model, examples, str(device)), examples.labels.numpy()
    shifted = z - z.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(y)), y]
    return credit(z, y), losses


def _percent(share: Share) -> str:
    return f"{100 * share['value']:.1f}% [{100 * share['low']:.1f}, {100 * share['high']:.1f}] of {share['n']}"


def _answered(
    run: Run, config: ClassifierConfig, manifest: first_version.Manifest, before: Chain, dataset: Dataset
) -> Chain:
    """Return the chain of a first-version run: the config's request that matches the digest in the manifest."""
    import torch

    seed = before.split_seed(config.seed, run.path)
    plain = Experiment(config, dataset, seed, torch.device("cpu"))
    if "forget_digest" not in manifest:
        return before.over(dataset, plain.split_facts, None)
    for name, request in config.requests.items():
        mask = request.chosen(dataset, plain.parts["train"], seed)
        forget = plain.parts["train"][mask[plain.parts["train"]]]
        if stands_for(str(manifest["forget_digest"]), run.path, forget) is False:
            continue
        first_version.refuse_other(run, manifest, dataset, forget)
        method = manifest.get("method")
        by = str(method.get("name", name)) if isinstance(method, dict) else "unknown"
        entry = first_version.entry_of(request, mask, by)
        return Chain((*before.requests, entry), None, before.unknown, before.anew).over(
            dataset, plain.split_facts, None
        )
    raise UserError(
        f"{run.path}: none of its requests names the items that it forgot (forget_digest); give the same data, or "
        "start a new history with --fresh-chain."
    )
