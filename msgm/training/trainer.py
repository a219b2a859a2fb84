"""One training loop for every objective and process, on accelerate."""

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from msgm import processes, traces
from msgm.config import TrainingSettings
from msgm.data import Batch, Dataset, Feed
from msgm.devices import note_slow_bf16
from msgm.diffusion import SamplingSettings, ScoreModel, sample
from msgm.diffusion.networks import Network
from msgm.errors import Interrupted, RunError
from msgm.folders import write_bytes
from msgm.objectives import Noised, Objective, Setup, Unseen
from msgm.pictures import to_png
from msgm.requests import Concept, Means
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.splits import Part
from msgm.training import sharding
from msgm.training.accelerating import compiled, start_trackers, started
from msgm.training.adapters import adapted, has_adapter, plain, save_adapter
from msgm.training.batches import drop_of, forget_drop, noised_parts
from msgm.training.checkpoints import Training, checkpoints, load_checkpoint, save_checkpoint, save_weights
from msgm.training.ema import EMA
from msgm.training.feeds import Feeds
from msgm.training.preparation import Preparation
from msgm.training.progress import TrainingLog, drop_lines_after
from msgm.training.restricting import restrict
from msgm.training.signals import StopRequest
from msgm.training.update import Update, adam

COLUMNS = 8
"""Samples a row of the grids on the way; of a class-conditional model a row a class."""


class Trainer:
    """Trains a model with an objective, from its present weights.

    Example:
        >>> digits, settings = msgm.load_dataset("digits"), TrainingSettings(steps=2, batch_size=8, trackers=[])
        >>> part = msgm.data.Digits().split(digits, msgm.ForgetRequest(labels=[3, 7])).train
        >>> model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])
        >>> trainer = Trainer(model, msgm.Unseen(), digits, part, settings, seed=0, run=msgm.Run(out))
        >>> trainer.train()
        training: step 2...

    Args:
        model: the model; its network is trained in place, but with an adapter, which leaves it as it is.
        objective: the loss.
        dataset: where the items come from.
        part: the training items, retain and forget.
        settings: how to train.
        seed: of order, times, noise and dropout.
        run: folder of checkpoints, metrics and sample grids.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown while training.
        means: what is to be forgotten of a class-conditional model, see ``ForgetRequest``.
        concept: whose prompts items to forget are asked for; None asks for them as for all others.

    Attributes:
        base: the model that training starts from.
        model: the model that is trained: the same one, or one with an adapter.
        kept: the place of a stopped run, for error messages.

    Raises:
        UserError: an objective that the network does not serve, a batch size that processes and accumulated parts do
            not divide, an unknown tracker, or a network that cannot checkpoint gradients.
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
        concept: Concept | None = None,
    ) -> None:
        objective.check(model.classes)
        self.settings, self.seed, self.run, self.label = settings, seed, run, label
        self.dataset, self.part, self.objective, self.device_name = dataset, part, objective, device
        self.accelerator = started(settings, run, device)
        self.base = model.to(self.accelerator.device)
        self.model = adapted(self.base, settings, seed)
        network = self.model.network
        self._was_trained = restrict(network, settings.trainable)
        if settings.gradient_checkpointing:
            self._checkpoint_gradients(True)
        self.shards = sharding.is_asked()
        if self.shards:
            sharding.refuse(settings, objective)
            trained = self.network = sharding.sharded(network, self.accelerator)
        else:
            trained, self.network = network, self._prepare_network(network)
        self.optimiser = adam([p for p in trained.parameters() if p.requires_grad], settings)
        self.state = Training(trained, self.optimiser, EMA(trained, settings.ema))
        self.update = Update(self.model, self.network, objective, settings, self.accelerator, self.state)
        drop = drop_of(self.model, settings)
        drops = drop, forget_drop(drop, means)
        self.concept = concept
        self.feeds = Feeds(dataset, part, objective, settings, seed, self.accelerator, drops, concept)
        self.kept = f"saved in {run.path}"
        self._pending: list[tuple[int, dict[str, Tensor]]] = []

    def _prepare_network(self, network: nn.Module) -> nn.Module:
        prepared: nn.Module = self.accelerator.prepare_model(compiled(network, self.settings, self.objective))
        return prepared

    def _checkpoint_gradients(self, on: bool) -> None:
        assert isinstance(self.model.network, Network)
        self.model.network.checkpoint_gradients(on)

    def train(self) -> None:
        """Run all steps, from the newest checkpoint if there is one.

        Raises:
            RunError: a term of the loss, or the gradient, became NaN or infinite.
            Interrupted: SIGINT or SIGTERM; a checkpoint was written first.
            UserError: the newest checkpoint is damaged.
        """
        began = time.perf_counter()
        if self.settings.precision == "bf16" and self.accelerator.is_main_process:
            note_slow_bf16(self.accelerator.device)
        with StopRequest() as stop:
            try:
                self.run.create()
                start_trackers(self.accelerator)
                self._prepare()
                if self.shards:
                    self.model.to("cpu")  # until it takes the trained weights
                self._resume()
                self._loop(stop, began)
            finally:
                for tracker in self.accelerator.trackers:
                    tracker.finish()
                if not self.shards:
                    self.accelerator.unwrap_model(self.network, keep_fp32_wrapper=False)
                for name, weight in self.model.network.named_parameters():
                    weight.requires_grad_(self._was_trained[name])
                if self.settings.gradient_checkpointing:
                    self._checkpoint_gradients(False)
        if self.shards:
            sharding.pull(self.state.network, self.model.network)
        self.model.to(self.accelerator.device).network.eval()
        if has_adapter(self.model.network) and self.accelerator.is_main_process:
            with self._chosen_weights():
                save_adapter(self.run.adapter, self.model)
        self.accelerator.wait_for_everyone()

    @property
    def makes_steps(self) -> bool:
        """Whether the run makes steps of training."""
        return True

    def findings(self) -> dict[str, Any]:
        """Return what was found or done beside training, for the manifest, once ``train`` has ended."""
        return {"found": self.update.found()}

    @property
    def drawn(self) -> Mapping[str, int]:
        """How many items were drawn of each part, repetitions counted: no retain item where none is read."""
        return self.feeds.tally.counts()

    def _setup(self) -> Setup:
        parts = (self.objective, self.dataset, self.part, self.seed, self.run, self.accelerator, self.feeds.tally)
        given = (self._tune_on_forget, self.feeds.drops, self.concept)
        return Preparation(self.base, *parts, *given).setup(self.settings)

    def _prepare(self) -> None:
        """Prepare the objective and what goes with it, from the weights that training starts from."""
        setup = self._setup()
        if self.objective.replay and self.feeds.kept is not None:
            self.feeds.replay(setup.sample(self.objective.replay))
        self.update.prepare(setup)

    def _tune_on_forget(self, steps: int, name: str = "", drop: float | None = None) -> ScoreModel:
        """Fine-tune a copy of the model on the forget set.

        It is kept in ``teacher/``, or in the folder ``name`` in there, so that a resumed run finds it.

        Args:
            steps: of fine-tuning.
            name: of a folder in ``teacher/``.
            drop: how often the copy is not told an item's label; None tells it as often as forget batches do.
        """
        teacher = Run(self.run.path / "teacher" / name)
        if not teacher.model.exists():
            if self.accelerator.is_main_process:
                traces.register(self.run.path, self.run.path / "teacher", *traces.KNOWN["teacher"])
            drops = drop, self.feeds.drops[1], self.settings.cond_drop
            drop = next(each for each in drops if each is not None)
            settings = dataclasses.replace(self.settings, steps=steps, trainable=None, adapter=None, cond_drop=drop)
            part = Part(retain=self.part.forget, forget=self.part.forget)
            tuner = Trainer(
                copy.deepcopy(self.base),
                Unseen(),
                self.dataset.asked_by(self.concept),
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
        self.feeds.tally.add("forget", steps * self.settings.batch_size)
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
        objective = self.objective
        retain, forget = self.feeds.batches(first, objective.forget_batches(first))
        main = self.accelerator.is_main_process
        log = TrainingLog(self.label, first, settings.steps, self.run.metrics, main)
        self.state.network.train()
        logged = first
        for step in range(first, settings.steps):
            self._step(step, next(retain), next(forget) if objective.uses_forget(step) else None)
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

    def _step(self, step: int, retain: Batch | None, forget: Batch | None) -> None:
        torch.manual_seed(derive_seed(self.seed, "dropout", step, self.accelerator.process_index))
        means = self.update.step(step, list(self._parts(step, retain, forget)))
        self.state.ema.update()
        self._pending.append((step, means))

    def _parts(
        self, step: int, retain: Batch | None, forget: Batch | None
    ) -> Iterator[tuple[Noised | None, Noised | None]]:
        pairs = ((self.feeds.kept, retain), (self.feeds.forget, forget))
        return zip(*(self._noised(step, feed, batch) for feed, batch in pairs), strict=True)

    def _noised(self, step: int, feed: Feed | None, batch: Batch | None) -> Iterator[Noised | None]:
        count = self.settings.accumulate
        if feed is None or batch is None:
            return itertools.repeat(None, count)
        return noised_parts(self.model.process, feed, batch, self.seed, step, count)

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
        finite = all(sharding.local(p).isfinite().all() for p in self.state.network.parameters())
        if not self._everywhere(finite):
            raise RunError(
                f"{self.label}: the weights are no longer finite at step {self.state.step}; nothing was saved."
            )
        save_checkpoint(self.run.checkpoints, self.state, self.accelerator.is_main_process)
        self.accelerator.wait_for_everyone()

    def _everywhere(self, here: bool) -> bool:
        """Return whether something holds in every process that has a part of the weights."""
        if not self.shards:
            return here
        missing = torch.tensor(float(not here), device=self.accelerator.device)
        return self.accelerator.reduce(missing, "sum").item() == 0

    def _sample_grid(self) -> None:
        with self._weights(averaged=True):
            if self.accelerator.is_main_process:
                with processes.alone():
                    self._write_grid(self.model.to(self.accelerator.device))
        if self.shards:
            self.model.to("cpu")
        self.accelerator.wait_for_everyone()

    def _write_grid(self, model: ScoreModel) -> None:
        asked = [label for label in range(model.classes) for _ in range(COLUMNS)] or None
        images = sample(
            model, len(asked) if asked else COLUMNS**2, SamplingSettings(steps=20), self.seed, condition=asked
        )
        name = f"step-{self.state.step:08d}.png"
        write_bytes(self.run.samples / name, to_png(images, self.dataset.levels, COLUMNS))

    def _keep(self) -> None:
        with self._chosen_weights():
            if self.accelerator.is_main_process:
                name = f"step-{self.state.step:08d}.safetensors"
                save_weights(self.run.course / name, plain(self.model, self.base).network)
        self.accelerator.wait_for_everyone()

    def _chosen_weights(self) -> AbstractContextManager[None]:
        """Context with averaged or raw weights in the model's network, as the settings say."""
        return self._weights(averaged=self.settings.weights == "ema")

    @contextmanager
    def _weights(self, averaged: bool) -> Iterator[None]:
        """Context with averaged or trained weights in the model's network; every process enters it."""
        with self.state.ema.applied() if averaged else nullcontext():
            if self.shards:
                sharding.pull(self.state.network, self.model.network)
            yield
        if self.shards:
            sharding.pull(self.state.network, self.model.network)

    def result(self) -> ScoreModel:
        """Return a copy of the model with averaged or raw weights, as the settings say."""
        with self._chosen_weights():
            return copy.deepcopy(plain(self.model, self.base))

    def save(self) -> None:
        """Write the model folder, with averaged or raw weights as the settings say."""
        with self._chosen_weights():
            if self.accelerator.is_main_process:
                plain(self.model, self.base).save(self.run.model)
        self.accelerator.wait_for_everyone()
