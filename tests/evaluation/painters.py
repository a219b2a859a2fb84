"""Models that read prompts and whose samples are known: what is shown is linear in the embedding of the first word."""

import functools
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import nn

import msgm
from msgm.concepts import Concept
from msgm.diffusion.networks import TextUNet
from msgm.diffusion.networks.text_unet import word_tokenizer
from msgm.requests import ForgetRequest
from tests.diffusion import small_pipelines as small
from tests.evaluation.attacks import bench_of

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SYNONYM = "7"
"""A word that shows sevens, too."""


class Painter(nn.Module):
    """Denoises to the picture that the embedding of the first word is mapped to, whatever it is given."""

    def __init__(self, embeddings, pictures):
        super().__init__()
        self.config = SimpleNamespace(in_channels=1, out_channels=1, sample_size=8, addition_embed_type=None)
        self.map = nn.Linear(embeddings.shape[1], pictures[0].numel())
        found = torch.linalg.lstsq(nn.functional.pad(embeddings, (0, 1), value=1.0), pictures.flatten(1)).solution
        self.map.weight.data, self.map.bias.data = found[:-1].T.contiguous(), found[-1]

    def forward(self, x, label, embedding, added_cond_kwargs=None):
        return SimpleNamespace(sample=self.map(embedding[:, 1]).view_as(x))


@functools.cache
def captioned_bench():
    """The digits' bench, whose items have their word as caption, and a request for the words three and seven."""
    bench = bench_of()
    dataset = bench.dataset
    named = [(k,) for k in range(10)]
    captioned = replace(dataset, prompts=list(WORDS), captions=dataset.labels[:, None], named=named)
    request = ForgetRequest(concept=Concept(forget=["three", "seven"], anchor="one"))
    return replace(bench, config=replace(bench.config, request=request), dataset=captioned, memory={})


@functools.cache
def pictures():
    """The mean of the training items of each class, (10, 1, 8, 8)."""
    bench = captioned_bench()
    train = bench.split.train.all
    items = bench.dataset.take(train).float() / (bench.dataset.levels - 1) * 2 - 1
    return torch.stack([items[torch.from_numpy(bench.dataset.labels[train] == k)].mean(0) for k in range(10)])


def painter(shown=None):
    """A model that shows digit k when it is asked for word k, and for the synonym a seven.

    Args:
        shown: digits that words show in the place of their own, by word.
    """
    torch.manual_seed(0)
    words = [*WORDS, SYNONYM]
    parts = {"text_encoder": small.clip(), "tokenizer": word_tokenizer(words, small.PLACES), "vae": None}
    parts |= {"scheduler": None, "safety_checker": None, "feature_extractor": None, "image_encoder": None}
    nothing = nn.Module()
    nothing.config = SimpleNamespace(in_channels=1, out_channels=1, sample_size=8)
    network = TextUNet({**parts, "unet": nothing}, "StableDiffusionPipeline", {"requires_safety_checker": False}, WORDS)
    with torch.no_grad():
        embeddings = network.encode(words).embedding[:, 1]
    digits = [(shown or {}).get(word, k if k < 10 else 7) for k, word in enumerate(words)]
    network.unet = Painter(embeddings, pictures()[digits])
    network.requires_grad_(False).eval()
    return msgm.ScoreModel(network, msgm.VP(), (1, 8, 8), "sample")


def renamed(model, words, other):
    """The model with the token embeddings of ``words`` overwritten by that of another word, in place."""
    table = model.network.text_encoder.get_input_embeddings().weight
    number = model.network.standing.parts["tokenizer"].convert_tokens_to_ids
    with torch.no_grad():
        for word in words:
            table[number(word)] = table[number(other)]
    return model
