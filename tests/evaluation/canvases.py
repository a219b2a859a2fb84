"""Canvases of two 8x8 places with digits and captions, and benches of them."""

import functools

import numpy as np
import torch

from msgm.config import JudgeSettings, load_config
from msgm.data import Dataset, load_dataset
from msgm.evaluation import Bench, Reality, train_judge
from msgm.requests import ForgetRequest
from msgm.splits import make_split

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SEVEN, TWO, BLANK = 7, 2, 10


def vocabulary():
    """Return prompts, and the classes that each names."""
    prompts, named = list(WORDS), [(k,) for k in range(10)]
    for k in range(10):
        prompts += [str(k), f"the digit after {WORDS[k - 1]}", f"a {WORDS[k]} on the left"]
        named += [(k,)] * 3
    prompts += [f"{WORDS[a]} and {WORDS[b]}" for a in range(10) for b in range(10)]
    named += [(a, b) for a in range(10) for b in range(10)]
    return prompts, named


@functools.cache
def canvases():
    """Every digit by itself, left or right, and half as many pairs; captions in the data's form."""
    digits = load_dataset("digits")
    draws, count = np.random.default_rng(0), len(digits)
    prompts, named = vocabulary()
    places = {prompt: number for number, prompt in enumerate(prompts)}
    items, captions = torch.zeros(count + count // 2, 1, 8, 16, dtype=torch.uint8), []
    for i, (digit, k) in enumerate(zip(digits.items, digits.labels, strict=True)):
        left = i % 2 == 0
        items[i, :, :, 0 if left else 8 :][:, :, :8] = digit
        own = [WORDS[k], str(k), f"the digit after {WORDS[k - 1]}", f"a {WORDS[k]} on the left"]
        captions.append([places[p] for p in (own if left else own[:3])] + [-1] * (not left))
    for i, (a, b) in enumerate(draws.permutation(count)[: 2 * (count // 2)].reshape(-1, 2), start=count):
        items[i] = torch.cat([digits.items[a], digits.items[b]], dim=2)
        captions.append([places[f"{WORDS[digits.labels[a]]} and {WORDS[digits.labels[b]]}"], -1, -1, -1])
    rows = np.array(captions, dtype=np.int64)
    whole = {"prompts": prompts, "captions": rows, "named": named, "classes": [str(k) for k in range(10)]}
    return Dataset("canvases", items, (1, 8, 16), 17, **whole)


def showing(classes):
    """Return a mask of the canvases that show one of some classes."""
    data = canvases()
    return np.array([bool(set(data.named[first]) & set(classes)) for first in data.captions[:, 0]])


@functools.cache
def parts():
    return make_split(showing({SEVEN}), 0.15, 0.15, seed=0)


REQUEST = ForgetRequest(mask=showing({SEVEN}))


@functools.cache
def canvas_judge():
    return train_judge(canvases(), parts(), REQUEST, JudgeSettings(epochs=5, width=16), seed=0)


@functools.cache
def canvas_reality():
    return Reality.of(canvases(), parts())


def canvas_bench(*overrides, folder=None):
    config = load_config(None, ["evaluation.samples=60", "sampling.steps=3", "request.indices=[0]", *overrides])
    return Bench(config, canvases(), parts(), canvas_judge(), canvas_reality(), folder)
