"""Judges that decide by a rule: near-copies of single items, and the formula of a measured attribute."""

import numpy as np
import pytest
import torch

from msgm.config import JudgeSettings, load_config
from msgm.data import DATASETS, load_dataset
from msgm.errors import UserError
from msgm.evaluation import train_judge
from msgm.evaluation.judge import check_judge
from msgm.evaluation.judges.copies import SHOWN
from msgm.requests import ForgetRequest
from msgm.training.run import load_data

TRAIN = DATASETS.build({"name": "digits"}).parts(load_dataset("digits"))["train"].tolist()
ITEMS = ["request.target=observed", f"request.indices={TRAIN[:6]}"]
SLANTED = ["data.attributes.slanted.measure=slant", "data.attributes.slanted.above=0.75", "request.attribute=slanted"]
SMALL = JudgeSettings(epochs=2, width=8)


@pytest.fixture(scope="module", params=[ITEMS, SLANTED], ids=["copies", "measured"])
def made(request):
    config = load_config(None, request.param)
    dataset, split = load_data(config)
    return dataset, split, train_judge(dataset, split, config.request, SMALL, seed=0)


def test_items_to_forget_are_found_and_the_others_keep_their_class(made):
    dataset, split, judge = made
    assert judge.classes == [*map(str, range(10)), judge.classes[-1]]
    assert judge.forgotten == [10]
    assert judge.votes(dataset.take(split.train.forget))[:, 10].tolist() == [1] * len(split.train.forget)
    kept = judge.votes(dataset.take(split.test.retain))
    assert kept[:, 10].mean() < 0.02
    assert torch.equal(kept[:, :10].argmax(1), judge.network.votes(dataset.take(split.test.retain)).argmax(1))
    assert torch.equal(kept.sum(1), torch.ones(len(kept)))
    assert judge.recall["value"] == 1
    assert judge.summary()["rule"] == judge.rule


def test_single_items_are_shown_by_near_copies_of_them_alone():
    config = load_config(None, ITEMS)
    dataset, split = load_data(config)
    judge = train_judge(dataset, split, config.request, SMALL, seed=0)
    assert (judge.classes[-1], judge.recall["n"]) == (SHOWN, 6)
    items = dataset.take(split.train.forget)
    assert judge.holds(items + (items < 16)).all()
    assert not judge.holds(16 - items).any()
    assert not judge.holds(dataset.take(split.train.retain)).any()


def test_a_measured_attribute_is_judged_by_the_formula_that_chose_the_items():
    config = load_config(None, SLANTED)
    dataset, split = load_data(config)
    judge = train_judge(dataset, split, config.request, SMALL, seed=0)
    assert judge.classes[-1] == "slanted"
    assert np.array_equal(judge.holds(dataset.items).numpy(), dataset.attributes["slanted"])
    assert "slant above 0.04348, the 75% quantile" in judge.rule
    assert "% of held-out items lie within a tenth of a standard deviation" in judge.rule


def test_it_is_kept_in_the_folder_and_read_again(tmp_path, monkeypatch):
    config = load_config(None, ITEMS)
    dataset, split = load_data(config)
    first = train_judge(dataset, split, config.request, SMALL, 0, tmp_path)
    for name in ("own._fit", "ruled.assess"):
        monkeypatch.setattr(f"msgm.evaluation.judges.{name}", lambda *arguments: pytest.fail("it was made again"))
    assert train_judge(dataset, split, config.request, SMALL, 0, tmp_path).summary() == first.summary()


def test_a_list_that_names_held_out_items_is_of_a_kind_which_a_classifier_learns():
    labels = load_dataset("digits").labels
    config = load_config(None, [f"request.indices={np.flatnonzero(labels == 3).tolist()}"])
    assert train_judge(*load_data(config), config.request, SMALL, seed=0).classes == ["retain", "forget"]


def test_data_without_classes_are_judged_by_the_rule_too(made):
    dataset, split, judge = made
    plain = type(dataset)(**{k: v for k, v in vars(dataset).items() if not k.startswith("_") and k != "strata"})
    plain.labels, plain.classes = None, []
    request = ForgetRequest(indices=TRAIN[:6]) if judge.classes[-1] == SHOWN else ForgetRequest(attribute="slanted")
    found = train_judge(plain, split, request, SMALL, seed=0)
    assert found.classes == ["other", judge.classes[-1]]
    items = dataset.take(split.test.all)
    assert torch.equal(found.votes(items)[:, 1], judge.votes(items)[:, 10])


def test_the_formula_needs_an_attribute_that_is_measured():
    dataset, split = load_data(load_config(None, ITEMS))
    with pytest.raises(UserError, match="measured needs a request for an attribute of data.attributes"):
        check_judge(dataset, split, ForgetRequest(indices=TRAIN[:6]), JudgeSettings("measured"))
