"""Runs of guidance: the weights stay as they are, and what guides their samples is found and kept beside them."""

import shutil
from dataclasses import replace
from typing import Any

from msgm.config import Config, TrainingSettings
from msgm.data import Dataset
from msgm.diffusion import Guidance, ScoreModel
from msgm.diffusion.guidance import save_guidance
from msgm.diffusion.guidance.stored import FOLDER
from msgm.errors import UserError
from msgm.objectives import Unseen
from msgm.requests import Concept, Means
from msgm.runs import Run
from msgm.splits import Part
from msgm.training.stepless import Stepless


class Guider(Stepless):
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
        concept: whose prompts items to forget are asked for; None asks for them as for all others.

    Raises:
        UserError: guidance that tunes a copy of a network without a null class.
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
        concept: Concept | None = None,
    ) -> None:
        settings = replace(settings, trainable=None, adapter=None)
        if guidance.tunes and not getattr(model.network, "has_null", True):
            raise UserError(
                f"guidance.name: {guidance.name!r} tunes a copy of the model that is asked for no class, and this "
                "network has no null class; name a class of it by guidance.label."
            )
        super().__init__(model, Unseen(), dataset, part, settings, seed, run, device, label, means, concept)
        self.guidance = guidance

    def findings(self) -> dict[str, Any]:
        """Return the single numbers among what was found."""
        numbers = {name: float(tensor) for name, tensor in self.guidance.state().items() if not tensor.shape}
        return {"found": numbers}

    def make(self) -> None:
        """Prepare the guidance.

        Raises:
            UserError: it cannot be prepared from these items.
        """
        self.guidance.prepare(replace(self._setup(), tune_on_forget=self._tune_for_guidance))
        self.model.network.eval()

    def _tune_for_guidance(self, steps: int) -> ScoreModel:
        """Fine-tune a copy that is never told a label, as guidance asks it for none."""
        return self._tune_on_forget(steps, drop=1.0)

    def save(self) -> None:
        """Write the guidance, and then the model, so that no model stands there without it.

        The guidance holds the weights of the copy that it tuned, whose own folder is removed.
        """
        self.accelerator.wait_for_everyone()  # each process reads the copy
        if self.accelerator.is_main_process:
            save_guidance(self.guidance, self.run.path / FOLDER)
            shutil.rmtree(self.run.path / "teacher", ignore_errors=True)
        super().save()


def refuse_guidance(config: Config) -> None:
    """Refuse guidance, which leaves the weights as they are."""
    if config.guidance:
        raise UserError(
            f"guidance.name: {config.method!r} guides samples and leaves the weights as they are, so nothing is "
            "trained or unlearnt; name it in a row of compare that has start: guide."
        )
