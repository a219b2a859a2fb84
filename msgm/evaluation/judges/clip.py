"""CLIP as the judge, zero-shot: the class whose prompts an image's embedding is nearest to, by cosine.

A class with several prompts is the normalised mean of their normalised embeddings (Radford et al., arXiv 2103.00020,
section 3.1.4).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msgm.config import JudgeSettings
from msgm.digests import short_digest
from msgm.errors import UserError, nearest
from msgm.evaluation.judge import JUDGES, SECTION, Judge, JudgeKind, Task, assess_once
from msgm.evaluation.vision.clip import Clip, check_clip, load_clip
from msgm.evaluation.vision.images import check_images, to_rgb

OPTIONS = f"{SECTION}.options"


@dataclass
class ClipJudge(Judge):
    """CLIP with its prompts.

    Attributes:
        clip: the model.
        prompts: for each class, what it is asked for.
        embeddings: (classes, F), a normalised embedding a class.
    """

    clip: Clip
    prompts: list[list[str]]
    embeddings: Tensor

    @property
    def kind(self) -> str:
        asked = "; ".join(" | ".join(group) for group in self.prompts[:3])
        return f"{self.clip.text}, zero-shot by prompts: {asked}{'; ...' if len(self.prompts) > 3 else ''}"

    @property
    def digest(self) -> str:
        return f"{self.clip.digest}-{short_digest([repr(self.prompts).encode()])}"

    def outputs(self, items: Tensor) -> tuple[Tensor, Tensor]:
        assert self.levels is not None
        features = self.clip.embed_images(to_rgb(items.to(self.embeddings.device), self.levels))
        return features, self.clip.logits(features, self.embeddings)


@JUDGES.register("clip")
@dataclass(frozen=True)
class ZeroShot(JudgeKind):
    """CLIP asked by prompts.

    Example:
        >>> ZeroShot(prompts={"cat": ["a photo of a cat", "a kitten"]}).template
        'a photo of a {class}'

    Attributes:
        model: OpenAI's name, such as ``ViT-B/32``; it says what to fetch when no file is given.
        weights: OpenAI's archive, or a state dict as .safetensors or by ``torch.save``; None takes OpenAI's.
        prompts: for each class of the data, a prompt or a list of them; a class that is not named takes ``template``.
        template: prompt of a class, with ``{class}`` in the place of its name.
    """

    model: str = "ViT-B/32"
    weights: str | None = None
    prompts: dict[str, str | list[str]] = field(default_factory=dict)
    template: str = "a photo of a {class}"

    def check(self, task: Task) -> None:
        check_images(task.dataset, f"{SECTION}.kind", "clip")
        self.prompts_of(task)
        check_clip(self.model, self.weights, OPTIONS)

    def make(
        self, task: Task, settings: JudgeSettings, seed: int, folder: Path | None, device: torch.device | str
    ) -> ClipJudge:
        self.check(task)
        clip, prompts = load_clip(self.model, self.weights, OPTIONS, device), self.prompts_of(task)
        embeddings = torch.stack([clip.embed_class(group) for group in prompts])
        judge = ClipJudge(task.classes, task.forgotten, task.dataset.levels, clip, prompts, embeddings)
        assess_once(judge, task, folder)
        return judge

    def prompts_of(self, task: Task) -> list[list[str]]:
        """Return the prompts of every class.

        Raises:
            UserError: prompts of an unknown class or that are no text, a template without its place, or no prompts
                where the classes are only "retain" and "forget", which CLIP cannot see.
        """
        key = f"{OPTIONS}.prompts"
        if "{class}" not in self.template:
            raise UserError(f"{OPTIONS}.template needs {{class}} in the place of the name, got {self.template!r}.")
        for name in self.prompts:
            if name not in task.classes:
                raise UserError(f"{key}: the judge has no class {name!r}.{nearest(name, task.classes)}")
        if task.classes is not task.dataset.classes and len(self.prompts) < len(task.classes):
            raise UserError(f"{key}: say what shows {' and what shows '.join(task.classes)}; the request has no names.")
        return [_listed(self.prompts.get(name, self.template.replace("{class}", name)), key) for name in task.classes]


def _listed(prompts: Any, key: str) -> list[str]:
    given = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(given, list) or not given or not all(isinstance(text, str) for text in given):
        raise UserError(f"{key}: expected a text or a list of texts for each class, got {prompts!r}.")
    return given
