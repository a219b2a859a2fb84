"""Runs of edits, which change a trained model's weights at once; steps of an objective may follow."""

import copy
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Literal

import torch

from msgm.config import TrainingSettings
from msgm.data import Dataset, Feed
from msgm.diffusion import ScoreModel
from msgm.diffusion.networks import Network
from msgm.errors import RunError, UserError
from msgm.objectives import Drawn, Objective, Unseen
from msgm.objectives.edits import Edit, EditSetup
from msgm.requests import Concept, Means
from msgm.runs import Run
from msgm.seeding import generator
from msgm.splits import Part
from msgm.training import sharding
from msgm.training.batches import clean, drop_of, forget_drop
from msgm.training.stepless import Stepless

Source = Literal["retain", "forget"]
READ = 64
"""Items of an edit that are read at a time; they come in another order, and have other draws, with another number."""


class Editor(Stepless):
    """Edits a model's weights; without an objective it keeps the run as a trainer of no steps does.

    Args:
        model: the model to start from; without an objective it stays as it is.
        edit: what is done to it.
        dataset: where the items come from.
        part: the training items, retain and forget.
        settings: how a copy of the model is fine-tuned, for edits that need one, and of the steps that follow; without
            these its ``trainable`` and ``adapter`` are not read.
        seed: of every random choice.
        run: folder of the run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown meanwhile.
        means: what is to be forgotten of a class-conditional model, see ``ForgetRequest``.
        objective: of steps that follow, from the edited weights; None makes none.
        concept: whose prompts items to forget are asked for; None asks for them as for all others.
    """

    def __init__(
        self,
        model: ScoreModel,
        edit: Edit,
        dataset: Dataset,
        part: Part,
        settings: TrainingSettings,
        seed: int,
        run: Run,
        device: str = "auto",
        label: str = "editing",
        means: Means | None = None,
        objective: Objective | None = None,
        concept: Concept | None = None,
    ) -> None:
        settings = settings if objective else replace(settings, trainable=None, adapter=None)
        if settings.adapter is not None:
            raise UserError("training.adapter: steps that follow an edit train the edited weights; set it to null.")
        self.edit, self.means, self.follows = edit, means, objective is not None
        given = (dataset, part, settings, seed, run, device, label, means, concept)
        super().__init__(model, objective or Unseen(), *given)

    @property
    def makes_steps(self) -> bool:
        return self.follows

    def findings(self) -> dict[str, Any]:
        return {"edited": self.edit.facts} | (super().findings() if self.follows else {})

    def make(self) -> None:
        """Edit the weights.

        Raises:
            RunError: a weight became NaN or infinite.
            UserError: the edit cannot be made in this network.
        """
        self.model = self._edited()

    def _prepare(self) -> None:
        """Put the edited weights into the network that is trained, and prepare its objective from them.

        A resumed run makes the same edit again.
        """
        edited = self._edited().network
        self.model.network.load_state_dict(edited.state_dict())
        if self.shards:
            sharding.push(edited, self.state.network)
        self.state.ema.restart()
        super()._prepare()

    def _edited(self) -> ScoreModel:
        network = copy.deepcopy(self.model.network).requires_grad_(True)
        if isinstance(network, Network):
            network.checkpoint_gradients(False)  # of the steps that follow alone
        return applied(self.edit, replace(self.model, network=network), self._edit_setup(), self.label)

    def _edit_setup(self) -> EditSetup:
        setup = replace(self._setup(), tune_on_forget=self._tune_for_edit)
        return EditSetup(**{f.name: getattr(setup, f.name) for f in fields(setup)}, items=self._items, seed=self.seed)

    def _tune_for_edit(self, steps: int) -> ScoreModel:
        """Fine-tune a copy for the edit; where steps follow, apart from the teacher that their objective may tune."""
        return self._tune_on_forget(steps, "edit" if self.follows else "")

    def _items(self, part: Source, count: int) -> Drawn:
        """Return clean items of a part as training sees them; every process draws all of them."""
        self.feeds.tally.add(part, count)
        batches = list(self._batches(part, count))
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return Drawn(
            torch.cat([batch.items for batch in batches])[:count], torch.cat(labels)[:count] if labels else None
        )

    def _batches(self, part: Source, count: int) -> Iterator[Drawn]:
        data, chosen = self.dataset, self.part.retain
        if part == "forget":
            data, chosen = data.asked_by(self.concept), self.part.forget
        size, drop = min(count, READ), drop_of(self.model, self.settings)
        drop = drop if part == "retain" else forget_drop(drop, self.means)
        where = self.accelerator.device
        feed = Feed(data, chosen, size, self.seed, f"edit-{part}", device=where, drop=drop)
        for number, raw in zip(range(-(-count // size)), feed.batches(0), strict=False):
            yield Drawn(clean(feed, raw.items, generator(self.seed, feed.stream, number, device=where)), raw.labels)


def applied(edit: Edit, model: ScoreModel, setup: EditSetup, label: str) -> ScoreModel:
    """Return an edited copy of a model.

    Raises:
        RunError: a weight became NaN or infinite.
        UserError: the edit cannot be made in this network.
    """
    made = edit.apply(model, setup)
    if not all(bool(weights.isfinite().all()) for weights in made.network.parameters()):
        raise RunError(f"{label}: {edit.name} gave weights that are not finite; nothing was saved.")
    return made
