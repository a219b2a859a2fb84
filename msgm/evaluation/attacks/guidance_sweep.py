"""Whether other settings of a pipeline bring forgotten content back: its guidance scale and its negative prompt.

    eps(negative) + scale (eps(word) - eps(negative))

Both are the user's in any text-to-image pipeline. Scale 0 of the empty prompt is the unconditional branch. A method
that leads a word elsewhere, to an anchor say, may be undone by that anchor as the negative prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from msgm.checks import at_least
from msgm.diffusion.guidance import NegativePrompt
from msgm.diffusion.networks import TextNetwork
from msgm.errors import UserError
from msgm.evaluation.attacks.base import cell, ratio, sample_count, shares
from msgm.evaluation.attacks.prompting import PromptAttack, asked_samples, words_of
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column

SECTION = "evaluation.options.guidance-sweep"


def _curve(found: dict[str, Any]) -> str:
    return " / ".join(ratio(point) for point in found["curve"])


@METRICS.register("guidance-sweep")
@dataclass(frozen=True)
class GuidanceSweep(PromptAttack):
    """The words to forget are asked for at several guidance scales and with several negative prompts.

    Example:
        >>> found = GuidanceSweep(scales=[0, 3], negatives=["", "one"], samples=4).measure(prompted)
        >>> [(point["scale"], point["negative"]) for point in found["guidance_sweep"]["curve"]]
        [(0, ''), (3, ''), (0, 'one'), (3, 'one')]

    Source: ``guidance_scale`` and ``negative_prompt`` of diffusers' pipelines, here ``sampling.guidance``, whose place
    a scale takes, and the guidance ``negative-prompt``. No deviation.

    Attributes:
        scales: guidance scales.
        negatives: negative prompts; none takes the empty prompt and ``request.concept.anchor``.
        samples: samples of each, at most ``evaluation.samples``, asked for the words in turn.
    """

    key = "guidance_sweep"
    on_weights = True
    heading = "UR % by guidance scale and negative prompt"
    columns = [Column("UR % by guidance scale, negative prompts in turn", "", cell(key, _curve))]  # noqa: RUF012

    scales: list[float] = field(default_factory=lambda: [0, 1, 3, 7.5, 15])
    negatives: list[str] = field(default_factory=list)
    samples: int = 100

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "samples")
        if not self.scales or min(self.scales) < 0:
            raise UserError(f"{SECTION}.scales must name guidance scales of at least 0, got {list(self.scales)}.")

    def ask(self, subject: Subject, network: TextNetwork) -> dict[str, Any]:
        bench, words = subject.bench, words_of(subject.bench)
        count = sample_count(self.samples, bench)
        curve = []
        for negative in self._negatives(bench):
            model = NegativePrompt(negative).wrap(subject.model) if negative.strip() else subject.model
            for scale in self.scales:
                sampling = replace(bench.config.sampling, guidance=scale)
                found = shares(asked_samples(model, words, count, bench, sampling), bench)
                curve.append({"scale": scale, "negative": negative, **found})
        return {"words": words, "curve": curve}

    def _negatives(self, bench: Bench) -> Sequence[str]:
        concept = bench.config.request.concept
        return self.negatives or list(dict.fromkeys(["", "" if concept is None else concept.anchor]))

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {cls.heading: 100 * fmean(point["unlearning_ratio"]["value"] for point in found["curve"])}

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return {cls.heading: 100 / sum(point["unlearning_ratio"]["n"] for point in found["curve"])}

    def protocol(self, bench: Bench) -> dict[str, str]:
        scales, negatives = ", ".join(f"{s:g}" for s in self.scales), ", ".join(map(repr, self._negatives(bench)))
        return {
            "guidance sweep": f"{self.samples} samples each asked for {', '.join(words_of(bench))} at guidance scales "
            f"{scales} with negative prompts {negatives}; scale 0 asks for the negative prompt alone. Compare with the "
            "retrained row"
        }
