"""Runs of guidance: the weights stay as they are, and what guides their samples is found and kept beside them."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from msgm.config import TrainingSettings
from msgm.data import Dataset
from msgm.diffusion import Guidance, ScoreModel
from msgm.diffusion.guidance import save_guidance
from msgm.diffusion.guidance.stored import FOLDER
from msgm.objectives import Unseen
from msgm.requests import Means
from msgm.runs import Run
from msgm.splits import Part
from msgm.training.editing import spent_on
from msgm.training.trainer import Trainer


class Guider(Trainer):
    """Prepares the guidance of a model, and keeps the run as a trainer of no steps does.

    Args:
        model: the model whose samples are guided; its weights stay as they are.
        guidance: what guides them.
        dataset: where the items come from.
        part: the training items, retain and forget.
        settings: how a copy of the model is fine-tuned, for guidance that needs one; all of its weights are.
        seed: of every random choice.
        run: folder of the run.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        label: name shown meanwhile.
        means: what is to be forgotten of a class-conditional model, see ``ForgetRequest``.
    """

    def __init__(
        self,
        model: ScoreModel,
        guidance: Guidance,
        dataset: Dataset,
        part: Part,
        settings: TrainingSettings,
        seed: int,
        run: Run,
        device: str = "auto",
        label: str = "guidance",
        means: Means | None = None,
    ) -> None:
        settings = replace(settings, trainable=None, adapter=None)
        super().__init__(model, Unseen(), dataset, part, settings, seed, run, device, label, means)
        self.guidance = guidance
        if settings.gradient_checkpointing:
            self._checkpoint_gradients(False)  # of the copy that is fine-tuned alone

    @property
    def makes_steps(self) -> bool:
        return False

    def findings(self) -> dict[str, Any]:
        """Return the single numbers among what was found."""
        numbers = {name: float(tensor) for name, tensor in self.guidance.state().items() if not tensor.shape}
        return {"found": numbers}

    def train(self) -> None:
        """Prepare the guidance.

        Raises:
            UserError: it cannot be prepared from these items.
        """
        began, spent = time.perf_counter(), spent_on(Run(self.run.path / "teacher"))
        self.run.create()
        self.guidance.prepare(self._setup())
        self.model.network.eval()
        self.state.seconds = time.perf_counter() - began + spent

    def save(self) -> None:
        """Write the guidance, and then the model, so that no model stands there without it."""
        if self.accelerator.is_main_process:
            save_guidance(self.guidance, self.run.path / FOLDER)
        super().save()

    def _chosen_weights(self) -> AbstractContextManager[None]:
        return nullcontext()
