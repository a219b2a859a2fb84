"""What training asks a class-conditional network for."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image

import msgm
from msgm.data import Dataset
from msgm.diffusion.guidance import Negative, load_guided
from msgm.errors import UserError
from msgm.objectives import Card, ConceptAblation, Mixed, SalUn, Unseen, mean_square
from msgm.requests import ForgetRequest
from msgm.runs import Run
from msgm.splits import Part
from msgm.training import Trainer, preparation, train, trainer, unlearn
from msgm.training.batches import forget_drop
from msgm.training.guiding import Guider
from msgm.training.run import load_data, load_source, new_model

CONDITIONAL = ["network.classes=10", "training.cond_drop=0.3"]


@dataclass
class Seen(Mixed):
    """Keeps the labels that it is given."""

    name, card = "seen", Card("-", "-", "-")
    every: int = 1
    labels: dict = field(default_factory=lambda: {"retain": [], "forget": []})

    def terms(self, predict, retain, forget):
        for name, batch in (("retain", retain), ("forget", forget)):
            self.labels[name].append(None if batch.condition is None else batch.condition.labels)
        return super().terms(predict, retain, forget)

    def forget_loss(self, predicted, forget):
        return mean_square(predicted - forget.eps)


def seen(config, folder, means=None):
    """The labels that six steps ask for, and the trainer."""
    dataset, split = load_data(replace(config, request=replace(config.request, means=None)))
    objective = Seen()
    model = new_model(config, dataset)
    args = (model, objective, dataset, split.train, config.training, 0, Run(folder), "cpu", "seen", means)
    trainer = Trainer(*args)
    trainer.train()
    return objective.labels, trainer


def test_an_unconditional_network_is_asked_for_nothing(tiny, tmp_path):
    labels, _ = seen(tiny(), tmp_path)
    assert labels == {"retain": [None] * 6, "forget": [None] * 6}


@pytest.mark.parametrize("means", [None, "items", "condition", "both"])
def test_a_conditional_network_is_asked_for_the_labels_of_its_items(tiny, tmp_path, means):
    labels, trainer = seen(tiny(*CONDITIONAL), tmp_path, means)
    for feed in (trainer.feeds.kept, trainer.feeds.forget):
        found = torch.cat(labels[feed.stream])
        own = torch.cat([torch.from_numpy(feed.dataset.labels[feed.indices(number)]) for number in range(6)])
        assert ((found == own) | (found == -1)).all()
        assert set(own.tolist()) == ({3, 7} if feed.stream == "forget" else {0, 1, 2, 4, 5, 6, 8, 9})
    dropped = {name: float((torch.cat(found) == -1).float().mean()) for name, found in labels.items()}
    assert dropped["retain"] == pytest.approx(0.3, abs=0.15)
    assert dropped["forget"] == pytest.approx({"condition": 0.0, "both": 0.5}.get(means, 0.3), abs=0.15)
    assert means != "condition" or dropped["forget"] == 0


def test_accumulated_parts_have_the_labels_of_the_whole_batch(tiny, tmp_path):
    whole, _ = seen(tiny(*CONDITIONAL), tmp_path / "whole")
    parts, _ = seen(tiny(*CONDITIONAL, "training.accumulate=2"), tmp_path / "parts")
    for name in ("retain", "forget"):
        assert [len(labels) for labels in parts[name]] == [8] * 12
        assert torch.equal(torch.cat(parts[name]), torch.cat(whole[name]))


def test_where_training_tells_every_label_a_request_asks_for_no_null_condition():
    assert [forget_drop(0.0, means) for means in (None, "items", "condition", "both")] == [0.0] * 4
    assert [forget_drop(None, means) for means in (None, "both")] == [None, None]


def test_labels_change_what_is_learnt(tiny, tmp_path):
    told, untold = (
        train(tiny("network.classes=10", f"training.cond_drop={drop}"), tmp_path / str(drop), device="cpu")
        for drop in (0.0, 0.999)
    )
    weights = [msgm.ScoreModel.load(run.model).network.unet.class_embedding.weight for run in (told, untold)]
    start = new_model(tiny("network.classes=10"), msgm.load_dataset("digits")).network.unet.class_embedding.weight
    # Adam moves each class that was asked for; the null condition is row 10. The averages still hold the start.
    assert [bool((weights[0][row] != start[row]).any()) for row in (0, 10)] == [True, False]
    assert [bool((weights[1][row] != start[row]).any()) for row in (0, 10)] == [False, True]


def test_pictures_on_the_way_have_a_row_a_class(tiny, tmp_path):
    run = train(tiny("network.classes=10", "training.sample_every=6"), tmp_path / "asked", device="cpu")
    plain = train(tiny("training.sample_every=6"), tmp_path / "plain", device="cpu")
    sizes = [Image.open(next(made.samples.glob("*.png"))).size for made in (run, plain)]
    assert sizes == [((8 * 9 + 1) * 4, (10 * 9 + 1) * 4), ((8 * 9 + 1) * 4, (8 * 9 + 1) * 4)]


def test_a_request_that_means_a_condition_is_refused_by_an_unconditional_model(tiny, tmp_path):
    config = tiny("request.means=condition", "objective.name=redirect")
    with pytest.raises(
        UserError, match=r"^request.means: 'condition' is said to class-conditional generators, and"
    ) as e:
        train(config, tmp_path / "run", device="cpu")
    assert str(e.value).endswith("leave it out.")
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").rglob("*.yaml"))
    model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])
    with pytest.raises(UserError, match="^request.means: 'both'"):
        msgm.fit(model, "digits", "redirect", ForgetRequest(labels=[3], means="both"), steps=1, device="cpu")


def test_data_without_labels_or_with_more_classes_is_refused(tiny, tmp_path):
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], classes=9)
    with pytest.raises(
        UserError, match=r"^network.classes: a class-conditional network needs labels, and .* has none.$"
    ):
        msgm.fit(model, Dataset("bare", images, (1, 8, 8), 17), steps=1, device="cpu")
    with pytest.raises(UserError, match=r"^network.classes: digits has 10 classes, got 9.$"):
        train(tiny("network.classes=9"), tmp_path, device="cpu")


@pytest.mark.parametrize(("held", "wanted"), [(10, 0), (0, 10), (12, 10)])
def test_a_base_of_other_classes_than_the_configs_is_refused(tiny, tmp_path, held, wanted):
    dataset = msgm.load_dataset("digits")
    new_model(tiny(f"network.classes={held}"), dataset).save(tmp_path / "base")
    config = tiny(f"network.classes={wanted}", "objective.name=redirect")
    with pytest.raises(UserError, match=f"but network.classes is {wanted}; set network.classes={held}, or start"):
        load_source(tmp_path / "base", config, dataset)
    assert load_source(tmp_path / "base", tiny(f"network.classes={held}"), dataset).classes == held


def test_a_label_that_earlier_requests_removed_is_no_target_of_another(tiny, tmp_path):
    config = tiny("network.classes=10", "request.labels=[3]")
    dataset, split = load_data(config)
    before = dataset.labels[split.train.retain] == 4
    part = Part(split.train.retain[~before], split.train.forget, split.train.retain[before])
    objective = SalUn(mask=None)
    args = (new_model(config, dataset), objective, dataset, part, config.training, 0, Run(tmp_path), "cpu")
    Trainer(*args)._prepare()
    assert objective.others.tolist() == [1, 2, 5, 5, 5, 6, 7, 8, 9, 0]


@pytest.mark.parametrize(("means", "forget"), [("items", {-1, 3, 7}), ("condition", {3, 7}), ("both", {-1, 3, 7})])
def test_gradients_before_training_are_of_the_labels_that_training_asks_for(tiny, tmp_path, monkeypatch, means, forget):
    asked, take = [], preparation.moments

    def noted(model, items, levels, batch, seed, condition):
        asked.append(set(condition.labels.tolist()))
        return take(model, items, levels, batch, seed, condition)

    monkeypatch.setattr(preparation, "moments", noted)
    config = tiny(*CONDITIONAL)
    dataset, split = load_data(config)
    objective = Seen()
    args = (
        new_model(config, dataset),
        objective,
        dataset,
        split.train,
        config.training,
        0,
        Run(tmp_path),
        "cpu",
        "seen",
    )
    setup = Trainer(*args, means)._setup()
    setup.moments("forget", 60, 1, 60)
    setup.moments("retain", 200, 1, 200)
    assert asked == [forget, {-1, 0, 1, 2, 4, 5, 6, 8, 9}]


@pytest.mark.parametrize("objective", [SalUn(mask=None), ConceptAblation()])
def test_the_forgotten_labels_are_known_without_a_draw(tiny, tmp_path, objective):
    config = tiny(*CONDITIONAL)
    dataset, split = load_data(config)
    eights = np.flatnonzero(dataset.labels[split.train.retain] == 8)
    items = Part(split.train.retain[eights[1:]], np.append(split.train.forget, split.train.retain[eights[0]]))
    made = Trainer(new_model(config, dataset), objective, dataset, items, config.training, 0, Run(tmp_path), "cpu")
    setup = made._setup()
    assert (setup.retained, setup.forgotten) == ((8,), (3, 7, 8))
    objective.prepare(setup)
    assert not any(made.drawn.values())


@pytest.fixture
def asked_of_teachers(monkeypatch):
    """The labels that teachers are tuned under."""
    asked = set()

    class Noted(Unseen):
        def terms(self, predict, retain, forget):
            asked.update(retain.condition.labels.tolist())
            return super().terms(predict, retain, forget)

    monkeypatch.setattr(trainer, "Unseen", Noted)
    return asked


@pytest.mark.parametrize(("means", "labels"), [("items", {-1, 3, 7}), ("condition", {3, 7})])
def test_a_teacher_is_asked_for_what_the_request_means_and_counts_on_a_resume(
    tiny, tmp_path, asked_of_teachers, means, labels
):
    config = tiny(*CONDITIONAL)
    dataset, split = load_data(config)
    for _ in range(2):
        args = (new_model(config, dataset), Seen(), dataset, split.train, config.training, 0, Run(tmp_path), "cpu", "")
        made = Trainer(*args, means)
        made._tune_on_forget(4)
        assert made.drawn["forget"] == 4 * config.training.batch_size
    assert asked_of_teachers == labels


def test_the_copy_that_guidance_tunes_is_never_told_a_label_and_kept_once(tiny, tmp_path, asked_of_teachers):
    config = tiny(*CONDITIONAL)
    dataset, split = load_data(config)
    args = (dataset, split.train, config.training, 0, Run(tmp_path), "cpu", "", "condition")
    made = Guider(new_model(config, dataset), Negative(steps=2), *args)
    made.train()
    made.save()
    assert asked_of_teachers == {-1}
    assert made.drawn == {"retain": 0, "forget": 2 * config.training.batch_size}
    assert not (tmp_path / "teacher").exists()
    view, x = load_guided(tmp_path / "model"), torch.zeros(1, 1, 8, 8)
    assert torch.equal(view.guidance.forget.eps(x, torch.ones(1)), made.guidance.forget.eps(x, torch.ones(1)))


def test_guidance_of_a_network_without_a_null_class_needs_a_label(tiny, tmp_path):
    config = tiny(*CONDITIONAL)
    dataset, split = load_data(config)
    model = new_model(config, dataset)
    model.network.has_null = False
    args = (dataset, split.train, config.training, 0, Run(tmp_path), "cpu")
    with pytest.raises(UserError, match="'negative' tunes a copy .* no null class; name a class of it by guidance"):
        Guider(model, Negative(), *args)
    Guider(model, Negative(label=3), *args).train()


def test_fit_forgets_what_the_command_line_forgets(tiny, tmp_path):
    config = tiny(*CONDITIONAL, "request.means=both", "objective.name=redirect", "objective.every=2")
    base = train(replace(config, request=ForgetRequest(), objective={"name": "standard"}), tmp_path / "b", device="cpu")
    made = msgm.ScoreModel.load(unlearn(config, base.path, tmp_path / "made", device="cpu").model)
    settings = {"batch_size": 16, "lr": 2e-3, "log_every": 1, "cond_drop": 0.3}
    request, objective = ForgetRequest(labels=[3, 7], means="both"), config.objective
    fitted = msgm.fit(msgm.ScoreModel.load(base.model), "digits", objective, request, 6, device="cpu", **settings)
    for name, weight in made.network.state_dict().items():
        assert torch.equal(weight, fitted.network.state_dict()[name])
