"""What class-conditional models are asked for while they are measured, and the three views of them."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from msgm.config import TrainingSettings
from msgm.data import dequantise
from msgm.diffusion import DDPM, VP, ScoreModel
from msgm.errors import UserError
from msgm.evaluation import asking
from msgm.evaluation.attacks.base import shown
from msgm.evaluation.attacks.membership import item_losses
from msgm.evaluation.attacks.partial_noise import start_from
from msgm.evaluation.attacks.tuning import fine_tune
from msgm.evaluation.bench import Subject
from msgm.evaluation.ladder import LADDER, view_checks
from msgm.evaluation.measuring import metrics_of, protocol
from msgm.evaluation.metrics.conditions import Conditions
from msgm.evaluation.metrics.likelihood import NegativeLogLikelihood
from msgm.evaluation.metrics.variational import VariationalBound
from msgm.evaluation.restored import ReconstructionTask
from msgm.generator.cells import _picture
from msgm.splits import Part
from tests.evaluation.benches import digits_bench
from tests.evaluation.test_ladder import a_report, a_row

FORGOTTEN = [3, 7]


class Asked(nn.Module):
    """Puts out x / 2 and keeps the labels that it was asked for; None for none."""

    classes, has_null = 10, True

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.labels = []

    def forward(self, x, label, condition=None):
        self.labels.append(None if condition is None else condition.labels.tolist())
        return self.weight * x


class Kinds(Asked):
    """Pulls every item to a grey of its own class, 0 for the null condition."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x, label, condition=None):
        super().forward(x, label, condition)
        grey = torch.zeros(len(x)) if condition is None else self.scale * (condition.labels + 1) / 10
        return self.weight * (x - grey[:, None, None, None])


def subject(network=None, *overrides):
    bench = digits_bench("network.classes=10", *overrides)
    return Subject("asked", ScoreModel(network or Asked(), VP(), (1, 8, 8)), bench)


def given(asked):
    """A subject whose samples, by their numbers, show the classes ``asked(number)`` of real test items."""
    made = subject()
    data, split = made.bench.dataset, made.bench.split
    pools = {k: [i for i in split.test.all if data.labels[i] == k] for k in range(10)}
    items = [pools[asked(number)][number // 10] for number in range(60)]
    made.__dict__["asked"] = dequantise(data.take(np.array(items)), 17)
    made.__dict__["items"], made.__dict__["finite"] = data.take(np.array(items)), torch.ones(60, dtype=torch.bool)
    return made


def test_real_items_of_the_asked_class_have_the_judges_accuracy():
    made = given(lambda number: number % 10)
    found, judge = Conditions().measure(made)["conditions"], made.bench.judge
    right = judge.votes(made.items)[torch.arange(60), torch.arange(60) % 10]
    gone = torch.isin(torch.arange(60) % 10, torch.tensor(FORGOTTEN))
    assert found["forgotten"]["accuracy"]["value"] == pytest.approx(right[gone].mean().item())
    assert found["others"]["accuracy"]["value"] == pytest.approx(right[~gone].mean().item())
    assert (found["forgotten"]["n"], found["others"]["n"], found["none"]["n"]) == (12, 48, 60)
    assert found["forgotten"]["asked"] == ["3", "7"]
    unlearnt, right = found["forgotten"]["UA"], found["forgotten"]["accuracy"]
    assert (unlearnt["value"], unlearnt["low"]) == (1 - right["value"], 1 - right["high"])
    numbers = Conditions.numbers({"conditions": found}, {})
    assert numbers["UA %"] < 40
    assert numbers["IRA %"] > 60
    assert numbers["UR % asked for forgotten"] > 60
    assert numbers["UR % asked for others"] < 20


def test_a_class_that_comes_under_another_name_raises_ua_and_ur():
    """Asked for 3 the model gives a 7, and the other way round; asked for 0, a 3."""
    swapped = {3: 7, 7: 3, 0: 3}
    found = Conditions().measure(given(lambda number: swapped.get(number % 10, number % 10)))["conditions"]
    assert found["forgotten"]["UA"]["value"] > 0.8
    assert found["forgotten"]["unlearning_ratio"]["value"] > 0.6
    assert found["others"]["unlearning_ratio"]["value"] > 0.05


def test_junk_stands_beside_each_view():
    made = given(lambda number: number % 10)
    made.asked[torch.isin(torch.arange(60) % 10, torch.tensor(FORGOTTEN))] = torch.nan
    found = Conditions().measure(made)["conditions"]
    assert found["forgotten"]["junk_rate"]["value"] == 1
    assert found["forgotten"]["unlearning_ratio"]["value"] == 0
    assert found["others"]["junk_rate"]["value"] < 0.2


def test_a_request_that_names_no_classes_has_no_accuracy():
    made = given(lambda number: number % 10)
    made.bench.config.request.labels, made.bench.config.request.indices = [], ["0"]
    found = Conditions().measure(made)["conditions"]
    assert found["forgotten"]["accuracy"] is None
    assert found["forgotten"]["UA"] is None
    assert set(Conditions.numbers({"conditions": found}, {})) == {
        f"{name} % asked for {view}" for name in ("UR", "junk") for view in ("forgotten", "others")
    }
    assert [column.cell({"conditions": found}, {}) for column in Conditions.columns[:2]] == ["not tested"] * 2


def test_an_unconditional_model_is_not_tested():
    bench = digits_bench()
    made = Subject("plain", ScoreModel.new("unet", "vp", channels=[8]), bench)
    found = Conditions().measure(made)
    assert found == {"conditions": {"not_tested": "the model is unconditional"}}
    assert Conditions.numbers(found, {}) == {}
    assert Conditions.granularity(found) == {}
    assert {column.cell(found, {}) for column in Conditions.columns} == {"not tested"}


def test_a_conditional_network_is_always_measured_by_its_views():
    names = [metric.name for metric in metrics_of(digits_bench("network.classes=10").config)]
    assert names == ["ur", "nll", "conditions"]
    assert [metric.name for metric in metrics_of(digits_bench().config)] == ["ur", "nll"]
    twice = digits_bench("network.classes=10", "evaluation.metrics=[conditions,ur]").config
    assert [metric.name for metric in metrics_of(twice)] == ["conditions", "ur"]
    assert "condition" in protocol(digits_bench("network.classes=10"))
    assert "condition" not in protocol(digits_bench())


def test_data_without_labels_is_refused():
    bench = digits_bench("network.classes=10")
    bare = type(bench.dataset)("bare", bench.dataset.items, (1, 8, 8), 17)
    with pytest.raises(UserError, match=r"^evaluation.metrics: conditions asks for classes, and bare has none.$"):
        Conditions().check(bench.config, bare, bench.split)


def test_samples_are_asked_for_no_class_and_for_every_class_in_turn():
    made = subject()
    assert len(made.samples) == len(made.asked) == 60
    labels = made.model.network.labels
    assert labels == [None] * 3 + [[k % 10 for k in range(60)]] * 3


def test_a_model_without_a_null_condition_is_asked_for_every_class():
    made = subject()
    made.model.network.has_null = False
    assert torch.equal(made.samples, made.asked)
    assert Conditions().measure(made)["conditions"]["none"] is None


def test_a_network_with_more_classes_than_the_data_is_asked_for_the_datas():
    made = subject()
    made.model.network.classes, made.model.network.has_null = 11, False
    found = Conditions().measure(made)["conditions"]
    assert (found["forgotten"]["n"], found["others"]["n"]) == (12, 48)
    assert torch.equal(made.samples, made.asked)
    assert all(set(asked) == set(range(10)) for asked in made.model.network.labels)


def test_a_class_with_items_to_retain_is_not_forgotten_and_one_of_earlier_requests_is_none_to_keep():
    made = given(lambda number: number % 10)
    bench, train = made.bench, made.bench.split.train
    labels, all_ = bench.dataset.labels, train.all
    gone, sevens = all_[labels[all_] == 3], all_[labels[all_] == 7]
    kept = np.setdiff1d(all_, np.concatenate([gone, sevens]))

    def views(retain, forget):
        split = replace(bench.split, train=Part(retain, forget, gone))
        return Conditions().measure(replaced(made, split))["conditions"]

    found = views(kept, sevens)
    assert found["forgotten"]["asked"] == ["7"]
    assert found["others"]["asked"] == [name for name in "0123456789" if name not in "37"]
    found = views(np.sort(np.concatenate([kept, sevens[1:]])), sevens[:1])
    assert found["forgotten"] is None
    assert found["others"]["n"] == 54
    row = {"conditions": found}
    assert [column.cell(row, {}) for column in Conditions.columns[:1]] == ["not tested"]
    assert not any("forgotten" in heading or heading == "UA %" for heading in Conditions.numbers(row, {}))


def replaced(made, split):
    """The same samples on a bench of another split."""
    other = Subject(made.name, made.model, replace(made.bench, split=split))
    other.__dict__.update({name: made.__dict__[name] for name in ("asked", "items", "finite")})
    return other


def test_asked_samples_do_not_depend_on_the_batch_size():
    whole, parts = (subject(Kinds(), f"sampling.batch_size={size}").asked for size in (60, 7))
    assert torch.allclose(whole, parts, atol=1e-5)
    assert whole[0::10].mean() < whole[9::10].mean()


def test_guidance_goes_beyond_what_is_asked_for():
    """eps(null) + 2 (eps(c) - eps(null)) of these networks is eps(c) of one with twice the pull."""
    guided, doubled = subject(Kinds(), "sampling.guidance=2"), subject(Kinds(2.0))
    assert torch.allclose(guided.asked, doubled.asked, atol=1e-5)
    assert torch.equal(guided.samples, doubled.samples)
    assert not torch.allclose(guided.asked, subject(Kinds()).asked, atol=1e-2)
    assert "guidance of scale 2" in protocol(guided.bench)["samples"]


def test_real_items_are_asked_for_under_their_own_class():
    made = subject(None, "evaluation.nll_items=3", "evaluation.likelihood.steps=2")
    data, split, labels = made.bench.dataset, made.bench.split, made.model.network.labels
    NegativeLogLikelihood().measure(made)
    chosen = np.concatenate([split.test.retain[:3], split.test.forget[:3]])
    assert {tuple(asked) for asked in labels if len(asked) == 6} == {tuple(data.labels[chosen].tolist())}
    for run in (
        lambda: item_losses(made.model, made.bench, chosen, [1.0]),
        lambda: start_from(made.model, made.bench, chosen, 1.0),
    ):
        labels.clear()
        run()
        assert labels
        assert all(asked == data.labels[chosen].tolist() for asked in labels)
    for method in ("encode", "sdedit"):
        labels.clear()
        ReconstructionTask(made.bench.config.sampling, method, 0.5).measured(made.model, made.bench, 2)
        kinds = [data.labels[part[:2]].tolist() for part in (split.test.retain, split.test.forget)]
        assert labels
        assert all(asked in kinds for asked in labels)


def test_the_variational_bound_is_asked_for_under_the_items_own_class():
    bench = digits_bench("network.classes=10", "process.name=ddpm", "evaluation.nll_items=3")
    made = Subject("asked", ScoreModel(Asked(), DDPM(), (1, 8, 8)), bench)
    VariationalBound(terms=2).measure(made)
    kinds = [bench.dataset.labels[part[:3]].tolist() for part in (bench.split.test.retain, bench.split.test.forget)]
    assert made.model.network.labels
    assert all(asked in kinds for asked in made.model.network.labels)


def test_an_attacker_tunes_a_copy_with_labels_dropped_as_in_training():
    made = subject()
    data, forget = made.bench.dataset, made.bench.split.train.forget
    settings = TrainingSettings(batch_size=50, cond_drop=0.3)
    for _, copy in fine_tune(made.model, data, forget, [4], settings, 0):
        asked = np.array(copy.network.labels)
    assert set(asked.ravel().tolist()) == {-1, 3, 7}
    assert 0.2 < (asked == -1).mean() < 0.4


def test_an_attacked_copy_is_asked_for_the_forgotten_classes():
    made = subject()
    shown(made.model, made.bench, 5)
    assert made.model.network.labels == [[3, 7, 3, 7, 3]] * 3
    assert asking.in_turn(ScoreModel.new("unet", "vp", channels=[8]), [3], 5) is None


def test_a_picture_has_a_row_a_class():
    made = subject()
    made.__dict__["asked"] = (torch.arange(60) % 10 / 9 * 2 - 1)[:, None, None, None].expand(60, 1, 8, 8)
    picture = np.asarray(Image.open(io.BytesIO(_picture(made))).convert("L"))
    rows = picture[4 + 16 :: 36, 4 + 16 :: 36]
    assert rows.shape == (10, 6)
    assert (rows == rows[:, :1]).all()
    assert (np.diff(rows[:, 0].astype(int)) > 0).all()


@pytest.mark.parametrize(("asked", "holds"), [((0.0, 0.0, 0.01), True), ((0.5, 0.4, 0.6), False)])
def test_a_model_that_gives_a_class_when_asked_for_it_has_not_forgotten(asked, holds):
    share = dict(zip(("value", "low", "high"), asked, strict=True)) | {"n": 100}
    views = {"forgotten": {"unlearning_ratio": share}, "others": {"unlearning_ratio": share}}
    row = a_row("row", conditions=views)
    assert [check.holds for check in view_checks(a_report(row), row)] == [holds, holds]
    assert [check.holds for check in LADDER.first(a_report(row), row)[2:]] == [holds, holds]
    assert view_checks(a_report(row), a_row("plain")) == []
