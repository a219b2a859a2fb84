"""Whether a word to forget, read by another embedding, still leads to its images: textual inversion as an attack.

A method that only cuts the way from a word to its images leaves them within reach of another vector in the word's
place. The weights stand still but for the rows of the word's tokens in the table of token embeddings:

    v* = argmin_v E |eps - eps_theta(x_t, t, c(v))|^2    over images to forget, times and noise
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from msgm.checks import at_least, positive
from msgm.config import Config
from msgm.data import Dataset
from msgm.diffusion import Condition, ScoreModel
from msgm.diffusion.networks import TextNetwork
from msgm.evaluation.attacks.base import cell, enough, ratio
from msgm.evaluation.attacks.prompting import (
    PromptAttack,
    asked_shares,
    denoising_loss,
    items_by_word,
    latents_of,
    words_of,
)
from msgm.evaluation.bench import Bench, Subject
from msgm.evaluation.metrics.base import METRICS, Column
from msgm.objectives import mean_square, noised
from msgm.seeding import derive_seed, generator
from msgm.splits import Split

SECTION = "evaluation.options.embedding"
DECAY = 1e-2
"""Weight decay of the source's AdamW."""


@METRICS.register("embedding")
@dataclass(frozen=True)
class Embedding(PromptAttack):
    """The embedding of every word to forget is optimised on a few of its images; then the model is asked for it.

    Example:
        >>> found = Embedding(items=4, steps=2, samples=4).measure(prompted)["embedding"]
        >>> found["words"], found["after"]["unlearning_ratio"]["n"]
        (['three', 'seven'], 4)

    Source: Pham et al., "Circumventing Concept Erasure Methods For Text-to-Image Generative Models", arXiv 2308.01508,
    and its released code, with textual inversion (Gal et al., arXiv 2208.01618). Deviations: a word's vectors start
    from its own embedding, one for each of its tokens, in the place of a new word's that starts from a neutral word's
    ("art"); images are asked for by the word alone, in the place of 27 sentences ("a photo of a {}"), and are not
    mirrored. The source takes 5,000 steps in batches of 16 (4, accumulated 4 times) at a rate of 0.08, which is 5e-3
    times 16, on 25 images; AdamW and its weight decay are its.

    Attributes:
        items: training images of every word that its vectors are optimised on; the same ones for every row.
        steps: of the optimisation, of all words together.
        lr: AdamW's rate.
        batch_size: images a step, drawn from those of all words.
        samples: samples, at most ``evaluation.samples``, asked for the words in turn.
    """

    key = "embedding"
    on_weights = True
    heading = "UR % by embeddings"
    columns = [  # noqa: RUF012
        Column(
            "UR % before -> after embeddings", "", cell(key, lambda f: f"{ratio(f['before'])} -> {ratio(f['after'])}")
        )
    ]

    items: int = 25
    steps: int = 1000
    lr: float = 5e-3
    batch_size: int = 16
    samples: int = 200

    def __post_init__(self) -> None:
        at_least(1, self, SECTION, "items", "steps", "batch_size", "samples")
        positive(self, SECTION, "lr")

    def check(self, config: Config, dataset: Dataset, split: Split) -> None:
        super().check(config, dataset, split)
        for word, own in items_by_word(config, dataset, split.train.forget).items():
            enough(self.name, "items", self.items, len(own), f"training items to forget that mention {word!r}")

    def ask(self, subject: Subject, network: TextNetwork) -> dict[str, Any]:
        bench, words = subject.bench, words_of(subject.bench)
        own = items_by_word(bench.config, bench.dataset, bench.split.train.forget)
        images = [latents_of(network, bench, own[word][: self.items]) for word in words]
        seed = derive_seed(bench.config.seed, "embedding")
        found = inverted(subject.model, words, images, self.steps, self.lr, self.batch_size, seed)
        return {
            "words": words,
            "items": self.items,
            "loss": {"before": _loss(subject.model, words, images, seed), "after": _loss(found, words, images, seed)},
            "before": asked_shares(subject.model, words, self.samples, bench),
            "after": asked_shares(found, words, self.samples, bench),
        }

    def protocol(self, bench: Bench) -> dict[str, str]:
        return {
            "embedding": f"the token embeddings of {', '.join(words_of(bench))} optimised in {self.steps} steps (AdamW "
            f"{self.lr:g}, batch {self.batch_size}) on {self.items} training images of each, all other weights "
            "standing still, and samples asked for these words before and after. Compare with the retrained row"
        }


class Rows:
    """The rows of some words in a network's tables of token embeddings, which alone are trained.

    Attributes:
        values: the rows, of each text encoder's, as parameters (R, E).
    """

    def __init__(self, network: TextNetwork, words: Sequence[str]) -> None:
        network.requires_grad_(False)
        self._places: list[tuple[nn.Parameter, Tensor]] = []
        for name, encoder in network.encoders.items():
            tokenizer = network.standing.parts[name.replace("text_encoder", "tokenizer")]
            table: nn.Parameter = encoder.get_input_embeddings().weight  # type: ignore[operator]
            tokens = {token for word in words for token in tokenizer(word, add_special_tokens=False).input_ids}
            table.requires_grad_()
            self._places.append((table, torch.tensor(sorted(tokens), device=table.device)))
        self.values = [nn.Parameter(table.detach()[rows]) for table, rows in self._places]

    def take_gradients(self) -> None:
        """Take the rows' gradients out of the tables'."""
        for value, (table, rows) in zip(self.values, self._places, strict=True):
            value.grad = None if table.grad is None else table.grad[rows]
            table.grad = None

    @torch.no_grad()
    def write(self) -> None:
        """Write the rows into the tables."""
        for value, (table, rows) in zip(self.values, self._places, strict=True):
            table[rows] = value


def inverted(
    model: ScoreModel,
    words: Sequence[str],
    images: Sequence[Tensor],
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
) -> ScoreModel:
    """Return a copy of a model that reads ``words`` by embeddings that were optimised on their images.

    Args:
        model: reads prompts; not changed.
        words: to optimise; all of their tokens are.
        images: of each word, (N, *shape) as the model sees them.
        steps: of AdamW.
        lr: its rate.
        batch_size: images a step.
        seed: of batches, times and noise.
    """
    changed = copy.deepcopy(model)
    network = changed.network.eval()
    assert isinstance(network, TextNetwork)
    rows = Rows(network, words)
    optimiser = torch.optim.AdamW(rows.values, lr=lr, weight_decay=DECAY)
    x0 = torch.cat(list(images))
    word = torch.repeat_interleave(torch.arange(len(words)), torch.tensor([len(part) for part in images]))
    for step in range(steps):
        draws = generator(seed, step, device=x0.device)
        chosen = torch.randint(len(x0), (batch_size,), generator=draws, device=x0.device)
        t = changed.process.training_times(torch.rand(batch_size, generator=draws, device=x0.device))
        eps = torch.randn((batch_size, *x0.shape[1:]), generator=draws, device=x0.device)
        batch = noised(changed.process, x0[chosen], t, eps, condition=network.encode(words)[word.to(x0.device)[chosen]])
        mean_square(changed.eps(batch.x, batch.t, batch.condition) - eps).mean().backward()
        rows.take_gradients()
        optimiser.step()
        rows.write()
    network.requires_grad_(False)
    return changed


def _loss(model: ScoreModel, words: Sequence[str], images: Sequence[Tensor], seed: int) -> float:
    """Return the loss of the words' images, each asked for by its word."""
    asked = [word for word, part in zip(words, images, strict=True) for _ in part]
    condition = model.asked(asked, len(asked))
    assert isinstance(condition, Condition)
    return denoising_loss(model, torch.cat(list(images)), condition, seed)
