"""What training asks a text-to-image model for: the captions of items to retain, and the word to forget."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import msgm
from msgm.data import Feed, load_dataset
from msgm.errors import UserError
from msgm.generator.dry_run import random_items
from msgm.objectives import Card, Mixed, mean_square
from msgm.requests import ForgetRequest
from msgm.runs import Run
from msgm.training import Trainer, train, unlearn
from msgm.training.prompts import prompted
from msgm.training.run import load_data, new_model

DATA = "data={name: captioned-digits, pairs: 1}"
TEXT = "network={name: text-unet, channels: [8], text_width: 16, text_layers: 1}"
SEVEN = "request.concept={forget: [seven], anchor: two}"
FEW = ["training.steps=3", "training.batch_size=32", "training.checkpoint_every=0", "training.trackers=[]"]


def config(*overrides, network=TEXT):
    return msgm.load_config(None, [DATA, network, SEVEN, *FEW, *overrides])


@dataclass
class Seen(Mixed):
    """Keeps the labels that it is given, and its setup."""

    name, card = "seen", Card("-", "-", "-")
    every: int = 1
    labels: dict = field(default_factory=lambda: {"retain": [], "forget": []})

    def prepare(self, setup):
        self.setup = setup

    def terms(self, predict, retain, forget):
        for name, batch in (("retain", retain), ("forget", forget)):
            self.labels[name] += batch.condition.labels.tolist()
        return super().terms(predict, retain, forget)

    def forget_loss(self, predicted, forget):
        return mean_square(predicted - forget.eps)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The data, the objective that saw three steps, and their trainer."""
    settings = config("training.cond_drop=0.2")
    dataset, split = load_data(settings)
    model, wish, objective = prompted(new_model(settings, dataset), dataset), settings.request, Seen()
    run = Run(tmp_path_factory.mktemp("seen"))
    given = (dataset, split.train, settings.training, 0, run, "cpu", "seen", wish.means, wish.concept)
    trainer = Trainer(model, objective, *given)
    trainer.train()
    return dataset, objective, trainer


def test_items_to_forget_are_asked_for_by_the_word_alone_whatever_their_captions(seen):
    dataset, objective, trainer = seen
    assert {dataset.prompts[label] for label in objective.labels["forget"]} == {"seven"}
    shown = {dataset.groups["digits"][i] for number in range(3) for i in trainer.feeds.forget.indices(number)}
    assert len(shown) > 3  # pairs with a seven among them
    assert all("7" in each.split() for each in shown)


def test_items_to_retain_are_asked_for_by_any_of_their_captions(seen):
    dataset, objective, trainer = seen
    found = np.array(objective.labels["retain"])
    own = np.concatenate([dataset.captions[trainer.feeds.kept.indices(number)] for number in range(3)])
    assert all(label == -1 or label in row for label, row in zip(found, own, strict=True))
    assert 0 < (found == -1).sum() < len(found) / 2
    place = np.array([list(row).index(label) for label, row in zip(found, own, strict=True) if label >= 0])
    assert {0, 1, 2, 3} <= set(place.tolist())
    assert not any(7 in dataset.named[label] for label in found if label >= 0)


def test_the_setup_tells_the_prompts_and_draws_items_with_them(seen):
    dataset, objective, trainer = seen
    setup = objective.setup
    assert setup.concept == trainer.concept
    assert [dataset.prompts[k] for k in setup.forgotten] == ["seven"]
    assert len(setup.retained) == 7 * 9 + 81
    drawn = setup.forget(10**6)
    assert len(drawn.items) == len(trainer.part.forget)
    assert set(drawn.labels.tolist()) == set(setup.forgotten)
    retained = trainer._setup().retain(5)
    assert torch.equal(retained, setup.retain(5))


def test_every_process_draws_its_share_of_the_captions():
    dataset = load_dataset({"name": "captioned-digits", "pairs": 0})
    feeds = [
        Feed(dataset, np.arange(64), 16, 0, "retain", rank, world, drop=0.3) for rank, world in ((0, 1), (0, 2), (1, 2))
    ]
    whole, *halves = (next(feed.batches(3)).labels for feed in feeds)
    assert torch.equal(torch.cat(halves), whole)
    other = next(feeds[0].batches(7)).labels  # the same items in another epoch
    assert not torch.equal(whole.sort().values, other.sort().values)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train(config(), tmp_path_factory.mktemp("captioned") / "base", device="cpu")


@pytest.mark.parametrize("name", ["esd", "redirect", "concept-ablation", "erasediff"])
def test_a_text_model_is_trained_and_unlearns_by_the_objectives_that_are_there(base, tmp_path, name):
    teacher = ["objective.teacher_steps=1"] if name == "esd" else []
    run = unlearn(config(f"objective.name={name}", *teacher), base.path, tmp_path / name, device="cpu")
    model, before = msgm.ScoreModel.load(run.model), msgm.ScoreModel.load(base.model)
    assert model.network.prompts == before.network.prompts == tuple(load_dataset(config().data).prompts)
    changed = {
        n.split(".")[0]
        for n, w in model.network.named_parameters()
        if not torch.equal(w, before.network.get_parameter(n))
    }
    assert changed == {"unet"}  # the text encoder stands still
    assert run.stored_manifest()["request"].endswith("given by concept seven, as a condition")
    assert model.chain.requests[0].selector == "concept"
    assert model.sample(2, steps=2, condition=["seven", "seven and two"]).shape == (2, 1, 8, 16)


def test_the_text_encoder_learns_with_a_model_that_is_trained_from_nothing(base):
    settings = config()
    dataset, _ = load_data(settings)
    before = prompted(new_model(settings, dataset), dataset).network.text_encoder.state_dict()
    after = msgm.ScoreModel.load(base.model).network.text_encoder.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_fit_leaves_the_prompts_of_the_given_model_as_they_are(base):
    given = msgm.ScoreModel.load(base.model)
    given.network.set_prompts(["two"])
    wish = ForgetRequest(concept={"forget": ["seven"], "anchor": "a digit"})
    dataset = load_dataset(config().data)
    made = msgm.fit(given, dataset, "redirect", wish, steps=1, batch_size=8, device="cpu")
    assert given.network.prompts == ("two",)
    assert made.network.prompts == (*dataset.prompts, "a digit")


def test_an_edit_reads_the_words_to_forget(base):
    given, drawn = msgm.ScoreModel.load(base.model), {}

    @dataclass
    class Looks(msgm.objectives.edits.Edit):
        name, data, card = "looks", "retain+forget", Card("-", "-", "-")

        def change(self, model, setup):
            drawn.update({part: setup.items(part, 40).labels for part in ("retain", "forget")}, concept=setup.concept)
            next(model.network.parameters()).data.mul_(1.01)

    dataset = load_dataset(config().data)
    msgm.edit(given, dataset, Looks(), ForgetRequest(concept={"forget": ["seven"]}), device="cpu")
    assert {dataset.prompts[k] for k in drawn["forget"].tolist()} == {"seven"}
    assert len(set(drawn["retain"].tolist())) > 10
    assert drawn["concept"].forget == ["seven"]


def test_a_class_conditional_network_needs_room_for_all_prompts():
    settings = config(network="network={name: unet, channels: [8], classes: 10}")
    with pytest.raises(UserError, match=r"network\.classes: captioned-digits has 170 prompts, got 10"):
        train(settings, "never", device="cpu")


def test_a_concept_is_refused_by_a_model_that_reads_no_prompt():
    settings = config(network="network={name: unet, channels: [8]}")
    with pytest.raises(UserError, match=r"request\.concept names prompts, and this model reads none"):
        train(settings, "never", device="cpu")


def test_items_of_a_dry_run_have_captions():
    found = random_items(load_dataset(config().data), 9000)
    assert found.captions.shape == (9000, 6)
    assert len(found.prompts) == 170
