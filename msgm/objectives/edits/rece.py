r"""RECE: find the embedding that brings the forgotten prompt back through the edited layers, and edit that away too.

With W_0 the layers as they were and W as they are, the adversarial embedding of a place c of a prompt to forget is

    c* = argmin_c'  sum_l |W_l c' - W_0l c|^2 + mu |c'|^2 = (sum_l W_l^T W_l + mu I)^-1 sum_l W_l^T W_0l c,

and a round makes the edit of UCE with c* in the place of c, from the weights of the round before:

    W' = argmin  lam |W' - W|^2 + e sum_i |W' c*_i - W_0 g_i|^2 + p sum_j |W' k_j - W_0 k_j|^2.

Every W is W_0 (I + X) with an X that all layers share (``cross_attention``), so that a round needs
G = sum_l W_0l^T W_0l alone: sum W_l^T W_l = (I + X)^T G (I + X).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msgm.checks import at_least, positive
from msgm.objectives.base import Card
from msgm.objectives.edits.base import EDITS
from msgm.objectives.edits.concepts import Texts, Tokens
from msgm.objectives.edits.cross_attention import Pairs, Ridge, gram_of
from msgm.objectives.edits.prompted import PromptEdit
from msgm.ranges import Range, ranges


@EDITS.register("rece")
@dataclass
class RECE(PromptEdit):
    """Reliable and efficient concept erasure: UCE, and rounds against the embedding that still finds the concept.

    Example:
        >>> model = msgm.ScoreModel.new("text-unet", shape=(1, 8, 8), channels=[8])
        >>> model.network.set_prompts(["seven", "one", "two"])
        >>> edit = msgm.objectives.edits.RECE(rounds=2)
        >>> wish = msgm.ForgetRequest(concept={"forget": ["seven"], "keep": ["two"], "anchor": "one"})
        >>> made = msgm.edit(model, None, edit, wish)
        edit: rece on ...
        >>> [each["after"] < each["before"] for each in edit.facts["rounds"]]
        [True, True]

    Attributes:
        lam: weight of the distance to the weights of the round before.
        erase_scale: weight e of each adversarial embedding, and in the first edit of each place of a prompt to forget.
        preserve_scale: weight p of each place of a prompt to keep.
        tokens: which places of prompts are read, as in ``UCE``.
        rounds: how often an adversarial embedding is found and edited away, after a first edit like that of ``UCE``.
            A round does not see the prompts themselves: ``residual`` in the facts says how far they are from their
            guides in the end.
        mu: weight of the adversarial embedding's own length. A round that finds a short one moves the prompts
            themselves past their guides; a smaller ``mu`` keeps them there.
    """

    lam: float = 0.1
    erase_scale: float = 1.0
    preserve_scale: float = 0.1
    tokens: Tokens = "last"
    rounds: int = 3
    mu: float = 0.1

    search = ranges(lam=Range(1e-3, 10.0, log=True), mu=Range(1e-4, 10.0, log=True))
    card = Card(
        formula=(
            "UCE, then each round c* = (sum W^T W + mu I)^-1 sum W^T W_0 c and the edit of UCE from c* to the guide, "
            "near the weights of the round before"
        ),
        source="Gong et al., ECCV 2024, arXiv 2407.12383, section 3; defaults of its code, the embedding close_regzero",
        deviations=(
            "the outputs that guides give and that kept prompts are to keep are those of the model as it was, where "
            "the code takes those of the round before, which drift; the places of words are read, where the code reads "
            "all 77, padding included (tokens: rest is nearest); solved in float64, once for all layers; the code "
            "keeps the empty prompt where no other is named, to which it also leads what is forgotten"
        ),
    )

    def __post_init__(self) -> None:
        positive(self, "edit", "lam", "erase_scale", "mu")
        at_least(0, self, "edit", "preserve_scale")
        at_least(1, self, "edit", "rounds")

    def solution(self, layers: Mapping[str, nn.Linear], texts: Texts) -> Tensor:
        gram = gram_of(layers)
        change = self._edited(torch.zeros_like(gram), texts, texts.erased(self.tokens))
        rounds = []
        for _ in range(self.rounds):
            finder = adversary(gram, change, self.mu)
            made = self._edited(change, texts, found(texts.erased(self.tokens), finder))
            whole, before, after = (self._length(gram, each, texts, finder) for each in (None, change, made))
            rounds.append({"before": before / whole if whole else 0.0, "after": after / whole if whole else 0.0})
            change = made
        self.facts["rounds"] = rounds
        return change

    def _edited(self, change: Tensor, texts: Texts, erased: Iterator[Pairs]) -> Tensor:
        """Return the X of the weights after an edit of those of ``change``."""
        ridge = Ridge(len(change), change)
        for pairs in erased:
            ridge.add(*pairs, self.erase_scale)
        for pairs in texts.kept(self.tokens):
            ridge.add(*pairs, self.preserve_scale)
        return ridge.solution(self.lam)

    def _length(self, gram: Tensor, change: Tensor | None, texts: Texts, finder: Tensor) -> float:
        """Return the length, over all layers and prompts, of W c* - W_0 g; of W_0 c - W_0 g without a change."""
        total = 0.0
        for places, targets in texts.erased(self.tokens):
            star = places @ finder.T
            apart = places - targets if change is None else star + star @ change.T - targets
            total += float(((apart @ gram) * apart).sum())
        return max(total, 0.0) ** 0.5


def adversary(gram: Tensor, change: Tensor, mu: float) -> Tensor:
    """Return the matrix (E, E) that maps c to its adversarial embedding c*, for layers W_0 (I + X).

    Example:
        >>> gram, nothing = torch.eye(2).double(), torch.zeros(2, 2).double()
        >>> adversary(gram, nothing, mu=1.0).tolist()
        [[0.5, 0.0], [0.0, 0.5]]

    Args:
        gram: G, the sum of W_0^T W_0 over all layers.
        change: X.
        mu: weight of the embedding's own length.
    """
    mixed = gram + change.T @ gram
    whole = mixed + mixed @ change + mu * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(whole, mixed)


def found(pairs: Iterator[Pairs], finder: Tensor) -> Iterator[Pairs]:
    """Yield the adversarial embeddings of places, with the targets of these."""
    for places, targets in pairs:
        yield places @ finder.T, targets
