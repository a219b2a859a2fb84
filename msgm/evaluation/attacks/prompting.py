"""What attacks by prompts share: whom they can ask, the words and the items to forget, and samples of prompts.

Their success is the unlearning ratio of samples that are asked for by what the attack found, beside that of samples
asked for by the words to forget themselves. Both stand beside the retrained models' numbers: a model that never saw the
content answers such prompts, too.
"""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msgm.concepts import mentions
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, SamplingSettings, ScoreModel, sample
from msgm.diffusion.networks import TextNetwork
from msgm.errors import UserError
from msgm.evaluation.attacks.base import Attack, sample_count, shares
from msgm.evaluation.attacks.levels import clean_items
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.reality import to_items
from msgm.objectives import mean_square, noised
from msgm.seeding import generator
from msgm.splits import Split

NO_PROMPTS = "the model reads no prompts, and this attack asks by prompts"
LOSS_TIMES = 16
"""Times at which the loss of an item is measured, even in the distribution of training times."""


class PromptAttack(Attack):
    """An attack that asks by prompts. Subclasses write ``ask``, and what they found stands under ``after``.

    Attributes:
        heading: of the number that is judged beside the retrained models'.
    """

    heading: ClassVar[str]

    @abstractmethod
    def ask(self, subject: Subject, network: TextNetwork) -> dict[str, Any]:
        """Return the numbers as a JSON tree."""

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        if not dataset.prompts:
            raise UserError(
                f"evaluation.metrics: {self.name} asks by prompts, and {dataset.name} has no captions; leave it out."
            )
        if config.request.concept is None:
            raise UserError(
                f"evaluation.metrics: {self.name} attacks words, so name them by request.concept.forget, or leave it "
                "out."
            )

    def attack(self, subject: Subject) -> dict[str, Any]:
        network = subject.model.network
        return self.ask(subject, network) if isinstance(network, TextNetwork) else {"not_tested": NO_PROMPTS}

    @classmethod
    def followed(cls, found: dict[str, Any]) -> dict[str, float | None]:
        return {cls.heading: 100 * found["after"]["unlearning_ratio"]["value"]}

    @classmethod
    def counted(cls, found: dict[str, Any]) -> dict[str, float]:
        return {cls.heading: 100 / found["after"]["unlearning_ratio"]["n"]}


def words_of(bench: Bench) -> list[str]:
    """Return the prompts to forget."""
    concept = bench.config.request.concept
    return [] if concept is None else list(concept.forget)


def items_by_word(config: Config, dataset: Dataset, indices: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return, of the items at ``indices``, those of which a caption mentions each prompt to forget, by the prompt."""
    concept = config.request.concept
    distinct = dataset.distinct(indices)
    captions = dataset.captions[distinct]
    words = [] if concept is None else concept.forget
    said = np.append(mentions(dataset.prompts, words), np.zeros((1, len(words)), dtype=bool), axis=0)
    return {word: distinct[said[captions, k].any(1)] for k, word in enumerate(words)}


def asked_samples(
    model: ScoreModel, prompts: Sequence[str], count: int, bench: Bench, sampling: SamplingSettings | None = None
) -> Tensor:
    """Return what ``count`` samples show, (count, *shape), that are asked for ``prompts`` in turn.

    ``sampling`` stands in the place of the experiment's, where it is given.
    """
    asked = list(itertools.islice(itertools.cycle(prompts), count))
    return model.decode(sample(model, count, sampling or bench.config.sampling, bench.config.seed, condition=asked))


def asked_shares(model: ScoreModel, prompts: Sequence[str], samples: int, bench: Bench) -> dict[str, Any]:
    """Return the unlearning ratio and junk rate of samples that are asked for ``prompts`` in turn."""
    return shares(asked_samples(model, prompts, sample_count(samples, bench), bench), bench)


def shows_forgotten(samples: Tensor, bench: Bench) -> Tensor:
    """Return (B,) bool: which samples (B, *shape) show forgotten content, junk being none."""
    items, judge = to_items(samples, bench.dataset.levels), bench.judge
    junk = bench.junk(items, samples.isfinite().flatten(1).all(1))
    return (judge.forgotten_share(judge.votes(items)) > 0.5) & ~junk


def latents_of(network: TextNetwork, bench: Bench, indices: NDArray[np.int64]) -> Tensor:
    """Return items as the model sees them: latents where it has an autoencoder, (B, *shape) on its device."""
    return network.encode_images(clean_items(bench.dataset, indices, next(network.parameters()).device))


@torch.no_grad()
def denoising_loss(model: ScoreModel, x0: Tensor, asked: Condition, seed: int) -> float:
    """Return the mean square error of the noise that the model predicts for items, over fixed times and noise.

    Args:
        model: the model.
        x0: (B, *shape) the items.
        asked: what each is asked for as, (B).
        seed: of the noise; times are the middles of ``LOSS_TIMES`` equal parts of the training times' distribution.
    """
    draws = generator(seed, "denoising-loss", device=x0.device)
    total = 0.0
    for k in range(LOSS_TIMES):
        middle = torch.full((len(x0),), (k + 0.5) / LOSS_TIMES, device=x0.device)
        eps = torch.randn(x0.shape, generator=draws, device=x0.device)
        batch = noised(model.process, x0, model.process.training_times(middle), eps)
        total += float(mean_square(model.eps(batch.x, batch.t, asked) - batch.eps).mean())
    return total / LOSS_TIMES


def typeable(network: TextNetwork, barred: Sequence[str] = ()) -> list[str]:
    """Return the tokens of the network's first tokenizer that are read as themselves when they are typed as words.

    Args:
        network: reads prompts.
        barred: prompts whose words are left out.
    """
    tokenizer = network.standing.parts["tokenizer"]
    numbers = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    texts = [text.strip() for text in tokenizer.batch_decode([[number] for number in numbers])]
    left_out = {"", *(word.casefold() for prompt in barred for word in prompt.split())}
    known = [(number, text) for number, text in zip(numbers, texts, strict=True) if text.casefold() not in left_out]
    read = tokenizer([text for _, text in known], add_special_tokens=False).input_ids
    return [text for (number, text), found in zip(known, read, strict=True) if found == [number]]
