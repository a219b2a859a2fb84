"""One training loop for every objective and process, on accelerate."""

import copy
import dataclasses
import importlib.util
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msgm import processes, traces
from msgm.config import TrainingSettings
from msgm.data import Batch, Dataset, Feed, dequantise
from msgm.devices import chosen_device
from msgm.diffusion import SamplingSettings, ScoreModel, sample
from msgm.errors import Interrupted, RunError, UserError
from msgm.folders import write_bytes
from msgm.objectives import Noised, Objective, Setup, Term, Unseen
from msgm.pictures import to_png
from msgm.requests import Means
from msgm.runs import Run
from msgm.seeding import derive_seed, generator
from msgm.splits import Part
from msgm.training.batches import drop_of, forget_drop, noised_parts
from msgm.training.checkpoints import Training, checkpoints, load_checkpoint, save_checkpoint, save_weights
from msgm.training.ema import EMA
from msgm.training.progress import TrainingLog, drop_lines_after
from msgm.training.signals import StopRequest

COLUMNS = 8
"""Samples a row of the grids on the way; of a class-conditional model a row a class."""


class Trainer:
    """Trains a model with an objective, from its present weights.

    Args:
        model: the model; its network is trained in place.
        objective: the loss.
        dataset: where the items come from.
        part: the training items, retain and forget.
        settings: how to train.
        seed: of order, times, noise and dropout.
        run: folder of checkpoints, metrics and sample grids.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown while training.
        means: what is to be forgotten of a class-conditional model, see ``ForgetRequest``.

    Attributes:
        kept: the place of a stopped run, for error messages.

    Raises:
        UserError: a batch size that processes and accumulated parts do not divide, or an unknown tracker.
    """

    def __init__(
        self,
        model: ScoreModel,
        objective: Objective,
        dataset: Dataset,
        part: Part,
        settings: TrainingSettings,
        seed: int,
        run: Run,
        device: str = "auto",
        label: str = "training",
        means: Means | None = None,
    ) -> None:
        self.settings, self.seed, self.run, self.label = settings, seed, run, label
        self.dataset, self.part, self.objective, self.device_name = dataset, part, objective, device
        self.accelerator = _accelerator(settings, run, device)
        self.model = model.to(self.accelerator.device)
        self.network = self._prepare_network(model.network)
        self.view = model.with_network(self.network)
        local = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        self.local_view = model.with_network(local)
        self.optimiser = torch.optim.Adam(
            model.network.parameters(), lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True
        )
        self.state = Training(model.network, self.optimiser, EMA(model.network, settings.ema))
        self.retain, self.forget = self._feeds(means)
        self.kept = f"saved in {run.path}"
        self._pending: list[tuple[int, dict[str, Tensor]]] = []

    def _prepare_network(self, network: nn.Module) -> nn.Module:
        compiled = torch.compile(network) if self.settings.compile else network
        prepared: nn.Module = self.accelerator.prepare_model(compiled)
        return prepared

    def _feeds(self, means: Means | None) -> tuple[Feed, Feed]:
        kept = self.part.all if self.objective.data == "all" else self.part.retain
        size, drop = self.settings.batch_size, drop_of(self.model, self.settings)
        forget_size = self.settings.forget_batch_size or size
        return self._feed(kept, size, "retain", drop), self._feed(
            self.part.forget, forget_size, "forget", forget_drop(drop, means)
        )

    def _feed(self, indices: NDArray[np.int64], size: int, stream: str, drop: float | None) -> Feed:
        world, parts = self.accelerator.num_processes, self.settings.accumulate
        if size % (world * parts):
            raise UserError(
                f"training: the {stream} batch of {size} does not divide into {world} processes x {parts} parts."
            )
        rank, device = self.accelerator.process_index, self.accelerator.device
        return Feed(self.dataset, indices, size, self.seed, stream, rank, world, device, drop)

    def train(self) -> None:
        """Run all steps, from the newest checkpoint if there is one.

        Raises:
            RunError: a term of the loss, or the gradient, became NaN or infinite.
            Interrupted: SIGINT or SIGTERM; a checkpoint was written first.
            UserError: the newest checkpoint is damaged.
        """
        began = time.perf_counter()
        with StopRequest() as stop:
            try:
                self.run.create()
                _start_trackers(self.accelerator)
                self.objective.prepare(self._setup())
                self._resume()
                self._loop(stop, began)
            finally:
                for tracker in self.accelerator.trackers:
                    tracker.finish()
                self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
        self.model.network.eval()

    def _setup(self) -> Setup:
        return Setup(lambda: copy.deepcopy(self.model), self._retain_items, self._tune_on_forget)

    def _retain_items(self, count: int) -> Tensor:
        kept = self.part.retain
        if count < len(kept):
            chosen = torch.randperm(len(kept), generator=generator(self.seed, "bank"))[:count]
            kept = kept[chosen.numpy()]
        items, levels = self.dataset.take(kept), self.dataset.levels
        if self.dataset.flip:
            items = torch.cat([items, items.flip(-1)])
        return (items.float() if levels is None else dequantise(items, levels)).to(self.accelerator.device)

    def _tune_on_forget(self, steps: int) -> ScoreModel:
        """Fine-tune a copy of the model on the forget set; kept in ``teacher/``, so that a resumed run finds it."""
        teacher = Run(self.run.path / "teacher")
        if not teacher.model.exists():
            if self.accelerator.is_main_process:
                traces.register(self.run.path, teacher.path, *traces.KNOWN["teacher"])
            settings = dataclasses.replace(self.settings, steps=steps)
            part = Part(retain=self.part.forget, forget=self.part.forget)
            tuner = Trainer(
                copy.deepcopy(self.model),
                Unseen(),
                self.dataset,
                part,
                settings,
                derive_seed(self.seed, "teacher"),
                teacher,
                self.device_name,
                "teacher",
            )
            tuner.kept = self.kept
            tuner.train()
            tuner.save()
        self.accelerator.wait_for_everyone()
        return ScoreModel.load(teacher.model).to(self.accelerator.device)

    def _resume(self) -> None:
        found = checkpoints(self.run.checkpoints)
        if found:
            load_checkpoint(found[-1], self.state)
        drop_lines_after(self.run.metrics, self.state.step, self.accelerator.is_main_process)
        self.accelerator.wait_for_everyone()

    def _loop(self, stop: StopRequest, began: float) -> None:
        settings, state = self.settings, self.state
        first, seconds = state.step, state.seconds
        retain = self.retain.batches(first)
        forget = self.forget.batches(self.objective.forget_batches(first))
        main = self.accelerator.is_main_process
        log = TrainingLog(self.label, first, settings.steps, self.run.metrics, main)
        self.model.network.train()
        logged = first
        for step in range(first, settings.steps):
            self._step(step, next(retain), next(forget) if self.objective.uses_forget(step) else None)
            state.step, state.seconds = step + 1, seconds + time.perf_counter() - began
            due = state.step % settings.log_every == 0 or state.step == settings.steps
            save = bool(settings.checkpoint_every) and state.step % settings.checkpoint_every == 0
            stopping = self._agreed(stop, due)
            if due or save or stopping:
                values = log.log(state.step, self._read_terms(), settings.batch_size * (state.step - logged))
                self.accelerator.log(values, step=state.step)
                logged = state.step
            if save or stopping or state.step == settings.steps:
                self._checkpoint()
            if settings.sample_every and state.step % settings.sample_every == 0:
                self._sample_grid()
            if settings.keep_every and state.step % settings.keep_every == 0:
                self._keep()
            if stopping:
                log.close()
                assert stop.number is not None
                raise Interrupted(f"stopped after step {state.step}; {self.kept}.", 128 + stop.number)
        log.close()

    def _agreed(self, stop: StopRequest, due: bool) -> bool:
        """Return whether to stop now; several processes decide together, at log steps only."""
        if self.accelerator.num_processes == 1:
            return stop.number is not None
        if not due:
            return False
        flag = torch.tensor(float(stop.number or 0), device=self.accelerator.device)
        number = int(self.accelerator.reduce(flag, "sum").item())
        if number and stop.number is None:
            stop.number = 15
        return number > 0

    def _step(self, step: int, retain: Batch, forget: Batch | None) -> None:
        torch.manual_seed(derive_seed(self.seed, "dropout", step, self.accelerator.process_index))
        self.optimiser.zero_grad(set_to_none=True)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.lr * min(1.0, (step + 1) / max(1, self.settings.warmup))
        parts = list(self._parts(step, retain, forget))
        if self.objective.combines and forget is not None:
            means = self._combined_gradient(parts)
        else:
            means = self._summed_gradient(parts)
        if self.settings.clip is not None:
            means["gradient"] = nn.utils.clip_grad_norm_(self.model.network.parameters(), self.settings.clip)
        self.optimiser.step()
        self.state.ema.update()
        self._pending.append((step, means))

    def _parts(self, step: int, retain: Batch, forget: Batch | None) -> Iterator[tuple[Noised, Noised | None]]:
        count, process = self.settings.accumulate, self.model.process
        kept = noised_parts(process, self.retain, retain, self.seed, step, count)
        if forget is None:
            return zip(kept, itertools.repeat(None))
        return zip(kept, noised_parts(process, self.forget, forget, self.seed, step, count), strict=True)

    def _summed_gradient(self, parts: list[tuple[Noised, Noised | None]]) -> dict[str, Tensor]:
        """Backpropagate the weighted sum of the terms; return the terms' means."""
        totals: dict[str, Tensor] = {}
        for number, (retain, forget) in enumerate(parts):
            last = number + 1 == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self.network):
                terms = self.objective.terms(self.view.eps, retain, forget)
                means = {name: term.values.mean() / len(parts) for name, term in terms.items()}
                self.accelerator.backward(_weighted(terms, means))
            _add(totals, means)
        return totals

    def _combined_gradient(self, parts: list[tuple[Noised, Noised | None]]) -> dict[str, Tensor]:
        """Compute the gradients of both terms separately and let the objective merge them; return the terms' means."""
        weights = [p for p in self.model.network.parameters() if p.requires_grad]
        totals: dict[str, Tensor] = {}
        gradients: dict[str, list[Tensor]] = {}
        for retain, forget in parts:
            terms = self.objective.terms(self.local_view.eps, retain, forget)
            means = {name: term.values.mean() / len(parts) for name, term in terms.items()}
            for name in ("retain", "forget"):
                found = torch.autograd.grad(means[name], weights, retain_graph=name == "retain")
                gradients[name] = (
                    [a + b for a, b in zip(gradients[name], found, strict=True)] if name in gradients else list(found)
                )
            _add(totals, means)
        shared = {name: self._averaged(found) for name, found in gradients.items()}
        merged = self.objective.combine(shared["retain"], shared["forget"])
        for weight, gradient in zip(weights, merged, strict=True):
            # In the weight's memory format, which the fused optimiser takes for granted.
            weight.grad = torch.empty_like(weight).copy_(gradient)
        return totals

    def _averaged(self, gradients: list[Tensor]) -> list[Tensor]:
        """Average gradients over the processes, in one exchange."""
        if self.accelerator.num_processes == 1:
            return gradients
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
        pieces = flat.split([g.numel() for g in gradients])
        return [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)]

    def _read_terms(self) -> dict[str, float]:
        """Return each term's mean since the last call, over all processes; one transfer for all of them.

        Raises:
            RunError: one of them was not finite.
        """
        pending, self._pending = self._pending, []
        labels = [(step, name) for step, means in pending for name in means]
        stacked = torch.stack([value for _, means in pending for value in means.values()])
        values = self.accelerator.reduce(stacked, "mean").tolist()
        for (step, name), value in zip(labels, values, strict=True):
            if not math.isfinite(value):
                raise RunError(f"{self.label}: {name} became {value} at step {step + 1}; earlier steps: {self.kept}.")
        names = dict.fromkeys(name for _, name in labels)
        by_name = {name: [v for (_, n), v in zip(labels, values, strict=True) if n == name] for name in names}
        return {name: sum(found) / len(found) for name, found in by_name.items()}

    def _checkpoint(self) -> None:
        if not all(p.isfinite().all() for p in self.model.network.parameters()):
            raise RunError(
                f"{self.label}: the weights are no longer finite at step {self.state.step}; nothing was saved."
            )
        if self.accelerator.is_main_process:
            save_checkpoint(self.run.checkpoints, self.state)
        self.accelerator.wait_for_everyone()

    def _sample_grid(self) -> None:
        if self.accelerator.is_main_process:
            with self.state.ema.applied(), processes.alone():
                asked = [label for label in range(self.model.classes) for _ in range(COLUMNS)] or None
                count = len(asked) if asked else COLUMNS**2
                images = sample(self.model, count, SamplingSettings(steps=20), self.seed, condition=asked)
            name = f"step-{self.state.step:08d}.png"
            write_bytes(self.run.samples / name, to_png(images, self.dataset.levels, COLUMNS))
        self.accelerator.wait_for_everyone()

    def _keep(self) -> None:
        if self.accelerator.is_main_process:
            with self._chosen_weights():
                save_weights(self.run.course / f"step-{self.state.step:08d}.safetensors", self.model.network)
        self.accelerator.wait_for_everyone()

    def _chosen_weights(self) -> AbstractContextManager[None]:
        """Context with averaged or raw weights in the network, as the settings say."""
        return self.state.ema.applied() if self.settings.weights == "ema" else nullcontext()

    def result(self) -> ScoreModel:
        """Return a copy of the model with averaged or raw weights, as the settings say."""
        with self._chosen_weights():
            return copy.deepcopy(self.model)

    def save(self) -> None:
        """Write the model folder, with averaged or raw weights as the settings say."""
        if self.accelerator.is_main_process:
            with self._chosen_weights():
                self.model.save(self.run.model)
        self.accelerator.wait_for_everyone()


def _accelerator(settings: TrainingSettings, run: Run, device: str) -> Accelerator:
    where = chosen_device(device)
    trackers = settings.trackers
    if trackers is None:
        trackers = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
    _refuse_absent(trackers)
    # Else accelerate keeps the precision and the device of this process's first run.
    AcceleratorState._reset_state(reset_partial_state=processes.count() == 1)
    try:
        accelerator = Accelerator(
            cpu=where.type == "cpu",
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            log_with=trackers or None,
            project_dir=run.path,
        )
    except ValueError as error:
        raise UserError(f"training.trackers or training.precision: {str(error).splitlines()[0]}.") from error
    processes.leave_at_exit()  # runs of one process share the group, so it ends with the process
    return accelerator


def _refuse_absent(trackers: Sequence[str]) -> None:
    """Refuse trackers that are not installed; accelerate would omit them silently."""
    known, installed = ({str(name) for name in names} for names in (LoggerType, get_available_trackers()))
    for name in trackers:
        if name in known - installed - {"all"}:
            others = ", ".join(sorted(installed)) or "none"
            raise UserError(
                f"training.trackers: {name} is not installed; install it, or name one of those that are: {others}."
            )


def _start_trackers(accelerator: Accelerator) -> None:
    if accelerator.log_with:
        accelerator.init_trackers("tracker")


def _weighted(terms: dict[str, Term], means: dict[str, Tensor]) -> Tensor:
    return torch.stack([term.weight * means[name] for name, term in terms.items()]).sum()


def _add(totals: dict[str, Tensor], means: dict[str, Tensor]) -> None:
    for name, value in means.items():
        totals[name] = totals[name] + value.detach() if name in totals else value.detach()
