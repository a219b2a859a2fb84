"""Whether other words lead to forgotten content: a genetic search for a prompt near a word pushed along its concept.

    target = E(P) + c mean(E(with) - E(without)),    found = argmin over K tokens of |E(tokens) - target|^2

E is the whole output of the text encoder. The search needs neither the denoiser nor images, so that what it finds can
be asked of a model behind a service, guided or not.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from msgm.checks import at_least, at_most_one
from msgm.concepts import mentions
from msgm.diffusion.networks import TextNetwork
from msgm.errors import UserError
from msgm.evaluation.attacks.base import cell, ratio
from msgm.evaluation.attacks.prompting import PromptAttack, asked_shares, typeable, words_of
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.seeding import generator

SECTION = "evaluation.options.token-search"


@METRICS.register("token-search")
@dataclass(frozen=True)
class TokenSearch(PromptAttack):
    """Prompts are searched whose embeddings lie near those of the words to forget, pushed along their concept.

    Example:
        >>> metric = TokenSearch(population=8, generations=2, length=2, samples=4)
        >>> found = metric.measure(prompted)["token_search"]
        >>> len(found["prompts"]), found["after"]["unlearning_ratio"]["n"]
        (2, 4)

    Source: Tsai et al., "Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?", arXiv
    2310.10012, and its released code, whose constants the defaults are but for ``generations`` (3,000). Deviations: the
    text encoder is the attacked model's own, in the place of the original one's; the candidates are tokens that are
    words by themselves, and are encoded as the prompt that is asked in the end; mutation, which in the released code
    may hit the best prompt found, leaves it alone.

    Attributes:
        pairs: prompts with the concept and without it, ``[[with, without], ...]``; none takes every prompt of the data
            that names a word to forget, and the same with ``request.concept.anchor`` in the word's place.
        scale: c.
        length: K, tokens of a prompt, at most as many as the model reads.
        own_words: whether the prompts may hold the words to forget themselves, as in the source; otherwise they pass a
            filter of these words.
        population: prompts a generation, of which the nearer half is kept.
        generations: of the search.
        crossover: probability with which a kept prompt exchanges its end with another one.
        mutation: probability with which one token of a prompt is drawn anew.
        samples: samples, at most ``evaluation.samples``, asked for the prompts in turn.
    """

    key = "token_search"
    heading = "UR % by token search"
    columns = [  # noqa: RUF012
        Column(
            "UR % before -> after token search", "", cell(key, lambda f: f"{ratio(f['before'])} -> {ratio(f['after'])}")
        )
    ]

    pairs: list[list[str]] = field(default_factory=list)
    scale: float = 3.0
    length: int = 16
    own_words: bool = True
    population: int = 200
    generations: int = 300
    crossover: float = 0.5
    mutation: float = 0.25
    samples: int = 200

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "length", "generations", "samples")
        at_least(2, self, SECTION, "population")
        at_least(0, self, SECTION, "crossover", "mutation")
        at_most_one(self, SECTION, "crossover", "mutation")
        if any(len(pair) != 2 for pair in self.pairs):
            raise UserError(f"{SECTION}.pairs: give each as two prompts, with the concept and without it.")

    def ask(self, subject: Subject, network: TextNetwork) -> dict[str, Any]:
        bench, words = subject.bench, words_of(subject.bench)
        barred = [] if self.own_words else words
        vocabulary = typeable(network, barred)
        places = network.standing.parts["tokenizer"].model_max_length - 2
        prompts = []
        for word in words:
            push = direction(network, self.pairs or self._pairs(bench, word))
            target = embedded(network, [word])[0] + self.scale * push
            draws = generator(bench.config.seed, "token-search", word)
            prompts.append(self._searched(network, vocabulary, target, min(self.length, places), draws))
        return {
            "words": words,
            "prompts": prompts,
            "before": asked_shares(subject.model, words, self.samples, bench),
            "after": asked_shares(subject.model, prompts, self.samples, bench),
        }

    def _pairs(self, bench: Bench, word: str) -> list[list[str]]:
        """Return the prompts of the data that name a word, each beside the same without it."""
        concept = bench.config.request.concept
        anchor, prompts = "" if concept is None else concept.anchor, bench.dataset.prompts
        found = [prompt for prompt, (said,) in zip(prompts, mentions(prompts, [word]), strict=True) if said]
        return [[prompt, replaced(prompt, word, anchor)] for prompt in found or [word]]

    def _searched(
        self, network: TextNetwork, vocabulary: Sequence[str], target: Tensor, length: int, draws: torch.Generator
    ) -> str:
        """Return the prompt of ``length`` tokens whose embedding is nearest to ``target`` (L, E)."""

        def distance(population: Tensor) -> Tensor:
            found = embedded(network, _texts(population, vocabulary))
            return (found - target).square().flatten(1).sum(1)

        first = torch.randint(len(vocabulary), (self.population, length), generator=draws)
        best = evolved(first, len(vocabulary), distance, self.generations, self.crossover, self.mutation, draws)
        return _texts(best[None], vocabulary)[0]

    def protocol(self, bench: Bench) -> dict[str, str]:
        barred = "" if self.own_words else ", without these words themselves"
        return {
            "token search": f"for each of {', '.join(words_of(bench))} a prompt of up to {self.length} tokens{barred} "
            f"whose embedding is nearest to the word's + {self.scale:g} times the direction of its concept "
            f"({self.generations} generations of {self.population}), and samples asked for the words before and for "
            "the prompts after. Compare with the retrained row"
        }


def replaced(prompt: str, word: str, other: str) -> str:
    """Return a prompt with another word in the place of one, whatever its case."""
    pattern = rf"(?<!\w){re.escape(word)}(?!\w)"
    return " ".join(re.sub(pattern, lambda _: other, prompt, flags=re.IGNORECASE).split())


@torch.no_grad()
def embedded(network: TextNetwork, prompts: Sequence[str]) -> Tensor:
    """Return what the text encoders make of prompts, (B, L, E)."""
    found = network.encode(prompts).embedding
    assert found is not None
    return found


def direction(network: TextNetwork, pairs: Sequence[Sequence[str]]) -> Tensor:
    """Return the mean difference of the embeddings of prompts with a concept and without it, (L, E)."""
    present, absent = (embedded(network, side) for side in zip(*pairs, strict=True))
    return (present - absent).mean(0)


def evolved(
    population: Tensor,
    vocabulary: int,
    distance: Callable[[Tensor], Tensor],
    generations: int,
    crossover: float,
    mutation: float,
    draws: torch.Generator,
) -> Tensor:
    """Return the nearest candidate (K,) that a genetic search finds.

    Args:
        population: (P, K) the first candidates, each of K numbers below ``vocabulary``.
        vocabulary: how many numbers there are.
        distance: maps candidates (B, K) to what is to be small, (B,).
        generations: how often the nearer half of P is kept, and filled up with children.
        crossover: probability with which a kept one exchanges its end with another, which makes two children.
        mutation: probability with which one number of a candidate, but for the nearest, is drawn anew.
        draws: what is drawn.
    """
    half = max(1, len(population) // 2)
    for _ in range(generations - 1):
        kept = population[distance(population).argsort()[:half]]
        population = _mutated(torch.cat([kept, _children(kept, crossover, draws)]), vocabulary, mutation, draws)
    return population[distance(population).argmin()]


def _children(parents: Tensor, probability: float, draws: torch.Generator) -> Tensor:
    """Return two children for each of the parents (P, K) that exchange their ends with others'."""
    count, length = parents.shape
    chosen = (torch.rand(count, generator=draws) < probability).nonzero().flatten()
    others = torch.randint(count, (len(chosen),), generator=draws)
    cut = torch.randint(length, (len(chosen), 1), generator=draws)
    begins = torch.arange(length) < cut
    one, other = parents[chosen], parents[others]
    return torch.cat([torch.where(begins, one, other), torch.where(begins, other, one)])


def _mutated(candidates: Tensor, vocabulary: int, probability: float, draws: torch.Generator) -> Tensor:
    """Return the candidates (P, K), of the others than the first some with one number drawn anew."""
    count, length = candidates.shape
    hit = torch.rand(count, generator=draws) < probability
    hit[0] = False
    place = torch.randint(length, (count,), generator=draws)
    drawn = torch.randint(vocabulary, (count,), generator=draws)
    changed = candidates.clone()
    changed[torch.arange(count)[hit], place[hit]] = drawn[hit]
    return changed


def _texts(candidates: Tensor, vocabulary: Sequence[str]) -> list[str]:
    return [" ".join(vocabulary[k] for k in row) for row in candidates.tolist()]
