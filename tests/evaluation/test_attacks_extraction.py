from dataclasses import replace

import numpy as np
import pytest
import torch

from msgm.data import DATASETS, dequantise, load_dataset
from msgm.evaluation import Bench, Reality
from msgm.evaluation.attacks.extraction import Extraction
from tests.evaluation.attacks import bench_of, config_of, subject_of

SETTINGS = DATASETS.build({"name": "digits"})
TRAIN = SETTINGS.parts(load_dataset("digits"))["train"].tolist()
ONCE, THRICE = TRAIN[:4], TRAIN[10:12]


@pytest.fixture(scope="module")
def bench():
    """Digits of which four items to forget stand in the training part once and two of them three times."""
    config = config_of("request.labels=[]", f"request.indices={ONCE + THRICE}", f"data.repeat.3={THRICE}")
    settings = DATASETS.build(config.data)
    dataset = load_dataset(settings)
    split = settings.split(dataset, config.request)
    return Bench(config, dataset, split, bench_of().judge, Reality.of(dataset, split))


def measured(bench, indices):
    """What is found in a model whose samples are the items at ``indices``."""
    subject = subject_of(bench)
    vars(subject)["samples"] = dequantise(bench.dataset.take(np.array(indices)), 17)
    return Extraction().measure(subject)["extraction"]


def test_a_model_that_repeats_items_to_forget_is_found_out_by_their_times(bench):
    copies = np.flatnonzero(bench.dataset.origin == THRICE[0])[1:].tolist()
    found = measured(bench, [ONCE[0], ONCE[0], THRICE[0], *copies, *TRAIN[20:25]])
    assert (found["copies"]["value"], found["copied"], found["items"]) == (0.5, 2, 6)
    once, thrice = found["by_times"]["1"], found["by_times"]["3"]
    assert (once["copies"]["value"], once["copied"], once["items"]) == (0.2, 1, 4)
    assert (thrice["copies"]["value"], thrice["copied"], thrice["items"]) == (pytest.approx(0.3), 1, 2)
    assert thrice["share_of_data"] == 6 / (len(TRAIN) + 4)


def test_copies_of_items_to_retain_and_held_out_items_are_no_copies_of_items_to_forget(bench):
    assert measured(bench, TRAIN[20:60])["copies"]["value"] == 0
    assert measured(bench, bench.split.test.retain[:200])["copies"]["value"] < 0.02


def test_samples_that_are_no_numbers_are_no_copies(bench):
    subject = subject_of(bench)
    vars(subject)["samples"] = torch.full((3, 1, 8, 8), torch.nan)
    assert Extraction().measure(subject)["extraction"]["copies"]["value"] == 0


def test_every_share_is_followed_and_items_of_one_kind_have_one(bench):
    found = measured(bench, [THRICE[0], *TRAIN[20:23]])
    followed = {
        "copies of forget items %": 25,
        "copies % of items held 1 times": 0,
        "copies % of items held 3 times": 25,
    }
    assert Extraction.followed(found) == followed
    assert Extraction.counted(found) == dict.fromkeys(followed, 25)
    alone = {"by_times": {"3": found["by_times"]["3"]}}
    assert Extraction.followed(found | alone) == {"copies of forget items %": 25}
    assert "4 items 1 times, 2 items 3 times" in Extraction().protocol(bench)["extraction"]


def test_without_copies_every_item_stands_in_the_data_once():
    bench = bench_of()
    found = measured(replace(bench, memory={}), bench.split.train.forget[:5])
    assert (found["copies"]["value"], list(found["by_times"])) == (1, ["1"])
