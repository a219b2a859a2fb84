"""One step of training: the gradients of an objective's terms, penalties, clipping, the optimisers, and masks."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from msgm.config import TrainingSettings
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.objectives import Held, Noised, Objective, Phase, Setup, Term, kept_shares
from msgm.training.adapters import trained_weights
from msgm.training.checkpoints import Training
from msgm.training.sharding import local, part_of, placed, whole

Batches = Sequence[tuple[Noised | None, Noised | None]]
"""The accumulated parts of a step: batches of retain (or all) and of forget items."""


class Update:
    """Makes the updates of a step.

    Args:
        model: whose network is trained; the bare one.
        network: the same network, wrapped for several processes, or a sharded copy.
        objective: the loss.
        settings: how to train.
        accelerator: of the run.
        state: holds the optimisers; those that phases need beside the first are added to it.
    """

    def __init__(
        self,
        model: ScoreModel,
        network: nn.Module,
        objective: Objective,
        settings: TrainingSettings,
        accelerator: Accelerator,
        state: Training,
    ) -> None:
        self.objective, self.settings, self.accelerator = objective, settings, accelerator
        local = network.module if isinstance(network, DistributedDataParallel) else network
        self.view, self.local_view = model.with_network(network), model.with_network(local)
        self.shards = isinstance(network, FSDPModule)
        self.weights = {name: p for name, p in state.network.named_parameters() if p.requires_grad}
        self.penalised = trained_weights(state.network)
        self.held, self.mask, self._own_mask = Held(), dict[str, Tensor](), dict[str, Tensor]()
        first, *others = dict.fromkeys(phase.batches for phase in objective.phases(0))
        self.optimisers = {first: state.optimiser}
        for name in others:
            state.others[name] = self.optimisers[name] = adam(self.weights.values(), settings)

    def prepare(self, setup: Setup) -> None:
        """Prepare the objective, its mask and its anchor, from the weights that training starts from."""
        self.objective.prepare(setup)
        if self.objective.anchor is not None:
            held = self.objective.anchor.prepared(setup)
            self.held = self._in_parts(held) if self.shards else held
        masks = [self.objective.update_mask()]
        if self.settings.adapter is not None and (masks[0] or self.objective.mask is not None):
            raise UserError(
                f"training.adapter: {self.objective.name} has a mask of single weights, which an adapter does not "
                "train; leave out the adapter, or set objective.mask=null."
            )
        if self.objective.mask is not None:
            masks.append(self.objective.mask.found(setup))
        for name, weight in self.weights.items():
            allowed = [mask[name].to(weight.device) for mask in masks if name in mask]
            if allowed:
                self.mask[name] = torch.stack(allowed).all(0)
                self._own_mask[name] = local(part_of(self.mask[name], weight))

    def _in_parts(self, held: Held) -> Held:
        """Return what an anchor holds of the trained weights, sharded as these are."""
        centre, stiffness = (
            {name: part_of(found[name], weight) for name, weight in self.weights.items() if name in found}
            for found in (held.centre, held.stiffness)
        )
        return replace(held, centre=centre, stiffness=stiffness)

    def found(self) -> dict[str, Any]:
        """Return what preparation found: the objective's numbers and, of a mask, the shares of weights it lets change.

        ``trained_share`` is of all weights, those of an adapter among them, where not all are trained; ``kept_share``
        is of all trained weights, ``kept_shares`` of each tensor of weights.
        """
        found: dict[str, Any] = dict(self.objective.found())
        trained, whole = (sum(w.numel() for w in ws) for ws in (self.weights.values(), self.view.network.parameters()))
        if trained < whole:
            found["trained_share"] = trained / whole
        if self.mask:
            free = {
                name: self.mask.get(name, torch.ones(w.shape, dtype=torch.bool)) for name, w in self.weights.items()
            }
            shares, total = kept_shares(free), sum(mask.numel() for mask in free.values())
            found["kept_share"] = sum(shares[name] * mask.numel() for name, mask in free.items()) / total
            found["kept_shares"] = shares
        return found

    def step(self, step: int, batches: Batches) -> dict[str, Tensor]:
        """Make step 0, 1, ...; return the means of the terms, the penalties and the length of each gradient."""
        phases, means = self.objective.phases(step), dict[str, Tensor]()
        for number, phase in enumerate(phases):
            optimiser = self.optimisers[phase.batches]
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                warm = min(1.0, (step + 1) / max(1, self.settings.warmup))
                group["lr"] = phase.rate * self.settings.lr * warm
            parts = [self._taken(phase, *part) for part in batches]
            if phase.batches == "both" and self.objective.merges and parts[0][1] is not None:
                means |= self._merged_gradient(parts)
            else:
                means |= self._summed_gradient(parts)
            if number + 1 == len(phases):
                means |= self._penalise()
            length = self._advance(optimiser, self._own_mask if phase.masked else {})
            if length is not None:
                means["gradient" if len(phases) == 1 else f"gradient_{phase.batches}"] = length
        return means

    def _taken(self, phase: Phase, kept: Noised | None, forget: Noised | None) -> tuple[Noised | None, Noised | None]:
        """Return the batches that a phase takes; where the base is a target at kept items, with that target."""
        taken = None if phase.batches == "forget" else kept
        if taken is not None and self.held.base is not None:
            share = self.held.share
            with torch.no_grad(), self.accelerator.autocast():
                base = self.held.base.eps(taken.x, taken.t, taken.condition)
            taken = replace(taken, eps=torch.lerp(taken.eps, base.to(taken.eps), share))
        return taken, None if phase.batches == "retain" else forget

    def _terms(self, view: ScoreModel, kept: Noised | None, forget: Noised | None) -> dict[str, Term]:
        # An objective of forget items alone is given None for the others, and says so in its own annotation.
        return self.objective.terms(view.eps, kept, forget)  # type: ignore[arg-type]

    def _summed_gradient(self, parts: Batches) -> dict[str, Tensor]:
        """Backpropagate the weighted sum of the terms; return the terms' means."""
        totals: dict[str, Tensor] = {}
        for number, (kept, forget) in enumerate(parts):
            last = number + 1 == len(parts)
            with nullcontext() if last or self.shards else self.accelerator.no_sync(self.view.network):
                terms = self._terms(self.view, kept, forget)
                means = {name: term.values.mean() / len(parts) for name, term in terms.items()}
                loss = torch.stack([term.weight * means[name] for name, term in terms.items()]).sum()
                self.accelerator.backward(loss)
            _add(totals, means)
        return totals

    def _merged_gradient(self, parts: Batches) -> dict[str, Tensor]:
        """Take the gradient of the forget term and of the others apart and let the objective merge them."""
        weights = list(self.weights.values())
        totals: dict[str, Tensor] = {}
        sums: dict[bool, list[Tensor]] = {}
        for kept, forget in parts:
            terms = self._terms(self.local_view, kept, forget)
            means = {name: term.values.mean() / len(parts) for name, term in terms.items()}
            for of_forget in (False, True):
                chosen = [name for name in terms if (name == "forget") == of_forget]
                loss = torch.stack([terms[name].weight * means[name] for name in chosen]).sum()
                found = self._whole_gradients(loss, retain_graph=not of_forget)
                before = sums.get(of_forget)
                sums[of_forget] = found if before is None else [a + b for a, b in zip(before, found, strict=True)]
            _add(totals, means)
        merged = self.objective.merge(self._averaged(sums[False]), self._averaged(sums[True]))
        for weight, gradient in zip(weights, merged, strict=True):
            # In the weight's memory format, which the fused optimiser takes for granted.
            weight.grad = torch.empty_like(weight).copy_(part_of(gradient, weight))
        return totals

    def _whole_gradients(self, loss: Tensor, retain_graph: bool) -> list[Tensor]:
        """Return the gradient in each weight; of sharded weights the whole one, averaged over the processes."""
        weights = list(self.weights.values())
        if not self.shards:
            return gradients(loss, weights, retain_graph)
        self.accelerator.backward(loss, retain_graph=retain_graph)
        found = [whole(torch.zeros_like(w) if w.grad is None else w.grad) for w in weights]
        for weight in weights:
            weight.grad = None
        return found

    def _averaged(self, gradients: list[Tensor]) -> list[Tensor]:
        """Average gradients over the processes, in one exchange."""
        if self.accelerator.num_processes == 1 or self.shards:
            return gradients
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
        pieces = flat.split([g.numel() for g in gradients])
        return [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)]

    def _penalise(self) -> dict[str, Tensor]:
        """Add the gradient of the penalties, once a step; every process adds the same one."""
        scalars = self.objective.penalty(self.penalised) | self.held.penalty(self.penalised)
        if scalars:
            found = gradients(torch.stack(list(scalars.values())).sum(), list(self.weights.values()))
            for weight, gradient in zip(self.weights.values(), found, strict=True):
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                local(weight.grad).add_(local(gradient))
        return {name: whole(value.detach()) for name, value in scalars.items()}

    @torch.no_grad()
    def _advance(self, optimiser: torch.optim.Optimizer, mask: Mapping[str, Tensor]) -> Tensor | None:
        """Clip, step, and put this process's masked weights back; return the gradient's length where it is clipped."""
        before = {name: local(self.weights[name]).clone() for name in mask}
        for name, allowed in mask.items():
            gradient = self.weights[name].grad
            if gradient is not None:
                local(gradient).mul_(allowed)
        clip = self.settings.clip
        length = None if clip is None else whole(nn.utils.clip_grad_norm_(self.weights.values(), clip))
        optimiser.step()
        for name, allowed in mask.items():
            weight = local(self.weights[name])
            weight.copy_(torch.where(allowed, weight, before[name]))
        return length


def adam(weights: Iterable[nn.Parameter], settings: TrainingSettings) -> torch.optim.Adam:
    """Return the optimiser of some weights."""
    return torch.optim.Adam(list(weights), lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)


def gradients(loss: Tensor, weights: list[nn.Parameter], retain_graph: bool = False) -> list[Tensor]:
    """Return the gradient in each weight; zero in those that the loss does not depend on."""
    found = torch.autograd.grad(loss, weights, retain_graph=retain_graph, allow_unused=True)
    return [torch.zeros_like(w) if g is None else placed(g, w) for w, g in zip(weights, found, strict=True)]


def _add(totals: dict[str, Tensor], means: dict[str, Tensor]) -> None:
    for name, value in means.items():
        totals[name] = totals[name] + value.detach() if name in totals else value.detach()
