r"""MACE in closed form: a prompt's other words no longer tell of the concept, each concept is edited, all are fused.

A concept stands in sentences, the contexts. The words beside it know it, those behind it in a text encoder that reads
from left to right, and so do the end and the padding.

1. Refinement: in every context those places are led to their twins in the same context with the guide,
   one ridge regression over all concepts (``cross_attention``) from W_0.
2. Each concept apart: its last word is led to the guide's in every context, and the other places stay as they were
   refined, from the refined weights: W_i.
3. Fusion: one regression near the refined weights, whose targets are what each W_i gives for its own contexts:

       W = argmin  lam |W - W_refined|^2 + sum_i sum_c |W c - W_i c|^2 + p sum_j |W k_j - W_0 k_j|^2.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from msgm.checks import at_least, positive
from msgm.errors import UserError
from msgm.objectives.base import Card
from msgm.objectives.edits.base import EDITS
from msgm.objectives.edits.concepts import Texts, Tokens
from msgm.objectives.edits.cross_attention import Pairs, Ridge, width_of
from msgm.objectives.edits.prompted import PromptEdit
from msgm.ranges import Range, ranges

CONTEXTS = ("{}", "a {}", "a photo of {}", "a drawing of {}", "{} in a picture", "an image of {} in a room")


@EDITS.register("mace")
@dataclass
class MACE(PromptEdit):
    """Mass concept erasure, as far as it is a closed form: refinement of the other words, and fusion of concepts.

    Example:
        >>> model = msgm.ScoreModel.new("text-unet", shape=(1, 8, 8), channels=[8])
        >>> model.network.set_prompts(["a seven here", "a one here", "two"])
        >>> edit = msgm.objectives.edits.MACE(lam=0.01, contexts=["{}", "a {} here"])
        >>> wish = msgm.ForgetRequest(concept={"forget": ["seven"], "keep": ["two"], "anchor": "one"})
        >>> made = msgm.edit(model, None, edit, wish)
        edit: mace on ...
        >>> max(edit.facts["residual"].values()) < 0.5
        True

    Attributes:
        lam: weight of the distance to the weights that a regression starts from.
        tokens: ``rest`` refines all places of a context but the concept's own, begin, end and padding among them;
            ``words`` its words, and ``last`` none, so that the concepts alone are edited and fused.
        preserve_scale: weight p of each place of a prompt to keep.
        contexts: sentences in which ``{}`` is the concept, a word of its own.
    """

    lam: float = 1.0
    tokens: Tokens = "rest"
    preserve_scale: float = 1.0
    contexts: list[str] = field(default_factory=lambda: list(CONTEXTS))

    search = ranges(lam=Range(1e-3, 100.0, log=True))
    card = Card(
        formula=(
            "ridge regressions of every key and value projection: a context's other places lead to those with the "
            "guide; then W = argmin lam |W - W_refined|^2 + sum_i |W c - W_i c|^2 + p sum |W k - W_0 k|^2 over the "
            "contexts c of each concept's own W_i"
        ),
        source="Lu et al., CVPR 2024, arXiv 2403.06135, sections 4.1 and 4.3",
        deviations=(
            "W_i is a closed form that leads the concept's last word to the guide's, where the source trains an "
            "adapter of rank 1 to empty the concept's attention inside masks of a segmenter, which msgm does not have; "
            "prompts to keep stand where the source has sums over captions of COCO; lam is 1000 in the source, for 30 "
            "contexts of 77 places; a handful of contexts, which should be sentences that the model knows"
        ),
    )

    def __post_init__(self) -> None:
        positive(self, "edit", "lam")
        at_least(0, self, "edit", "preserve_scale")
        for context in self.contexts:
            if context.count("{}") != 1 or "{}" not in context.split():
                raise UserError(
                    f"edit.contexts: expected sentences in which {{}} stands for the concept as a word of its own, "
                    f"such as 'a photo of {{}}'; got {context!r}."
                )
        if not self.contexts:
            raise UserError("edit.contexts must hold at least one sentence, '{}' say, which is the concept alone.")

    def solution(self, layers: Mapping[str, nn.Linear], texts: Texts) -> Tensor:
        width, concepts = width_of(layers), list(zip(texts.forget, texts.guides, strict=True))
        refining = Ridge(width)
        for concept in concepts:
            refining.add(*joined(others(*twins, self.tokens) for twins in self._twins(texts, *concept)), scale=1.0)
        refined = self._with_kept(refining, texts)
        fusing = Ridge(width, refined)
        for concept in concepts:
            fusing.add(*self._own_outputs(texts, *concept, refined), scale=1.0)
        return self._with_kept(fusing, texts)

    def _with_kept(self, ridge: Ridge, texts: Texts) -> Tensor:
        for pairs in texts.kept(self.tokens):
            ridge.add(*pairs, self.preserve_scale)
        return ridge.solution(self.lam)

    def _own_outputs(self, texts: Texts, prompt: str, guide: str, refined: Tensor) -> Pairs:
        """Return all places of a concept's contexts, and those for which W_0 gives what the concept's own W_i does."""
        alone, twins = Ridge(len(refined), refined), list(self._twins(texts, prompt, guide))
        alone.add(*joined((asked.last, led_to.last) for asked, led_to in twins), scale=1.0)
        alone.add(*joined(others(*each, self.tokens) for each in twins), scale=1.0)
        places = torch.cat([asked.places for asked, _ in twins])
        return places, places + places @ alone.solution(self.lam).T

    def _twins(self, texts: Texts, prompt: str, guide: str) -> Iterator[tuple["Sentence", "Sentence"]]:
        for context in self.contexts:
            yield Sentence.read(texts, context, prompt), Sentence.read(texts, context, guide)


@dataclass(frozen=True)
class Sentence:
    """The places of a context with a concept.

    Attributes:
        places: (L, E) embeddings, in float64.
        before: places of the words before the concept.
        own: places of the concept's words; none of the empty prompt.
        behind: places of the words behind it.
    """

    places: Tensor
    before: Tensor
    own: Tensor
    behind: Tensor

    @classmethod
    def read(cls, texts: Texts, context: str, concept: str) -> "Sentence":
        """Read the context with the concept in the place of ``{}``.

        Raises:
            UserError: it has other words than its parts have, as where the text encoder cuts it.
        """
        begin, end = (part.strip() for part in context.split("{}"))
        whole = " ".join(part for part in (begin, concept, end) if part)
        (places, mask), *parts = texts.places([whole, begin, concept, end])
        words, counts = mask.nonzero().flatten(), [int(own.sum()) for _, own in parts]
        if sum(counts) != len(words):
            raise UserError(
                f"edit.contexts: the text encoder reads {len(words)} words of {whole!r}, and {sum(counts)} of its "
                "parts; take a shorter context."
            )
        return cls(places, *words.split(counts))

    @property
    def last(self) -> Tensor:
        """The embedding (1, E) of the concept's last word; of the begin, where it has none."""
        return self.places[self.own[-1:]] if len(self.own) else self.places[:1]

    @property
    def end(self) -> int:
        """The place behind the last word."""
        return max((int(part[-1]) + 1 for part in (self.before, self.own, self.behind) if len(part)), default=1)


def others(asked: Sentence, led_to: Sentence, tokens: Tokens) -> Pairs:
    """Return the places of a context that are not the concept's, with their twins in the context with the guide."""
    count = len(asked.places) - max(asked.end, led_to.end) if tokens == "rest" else 0
    found = []
    for sentence in (asked, led_to):
        where = sentence.own.device
        words = [sentence.before, sentence.behind] if tokens != "last" else []
        begin = [torch.zeros(1, dtype=torch.long, device=where)] if tokens == "rest" else []
        tail = torch.arange(sentence.end, sentence.end + count, device=where)
        found.append(sentence.places[torch.cat([*begin, *words, tail])])
    return found[0], found[1]


def joined(parts: Iterable[Pairs]) -> Pairs:
    """Return the pairs of several contexts as one."""
    texts, targets = zip(*parts, strict=True)
    return torch.cat(texts), torch.cat(targets)
