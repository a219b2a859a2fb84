"""Relearning and resurgence: copies that are fine-tuned."""

from dataclasses import replace

import pytest
import torch

from msgm.errors import UserError
from msgm.evaluation.attacks.base import least_to_half
from msgm.evaluation.attacks.membership import item_losses
from msgm.evaluation.attacks.relearning import Relearning
from msgm.evaluation.attacks.resurgence import Resurgence
from msgm.evaluation.attacks.tuning import fine_tune, tuning_settings
from msgm.evaluation.metrics import METRICS
from tests.evaluation.attacks import bench_of, fresh, same, subject_of, tensors


@pytest.fixture(scope="module")
def bench():
    return bench_of()


def settings(bench, **more):
    return replace(tuning_settings(bench.config, None, None), **more)


def test_the_model_that_is_given_stays_as_it_was(bench):
    model = fresh(bench)
    model.network.train()
    before = tensors(model)
    numbers = {}
    for metric in (Relearning(items=20, steps=[2]), Resurgence(steps=[2])):
        numbers |= metric.measure(subject_of(bench, model))
    assert same(tensors(model), before)
    assert model.network.training
    assert all(p.grad is None for p in model.network.parameters())
    assert [point["step"] for point in numbers["relearning"]["curve"]] == [0, 2]


def test_tuning_goes_on_between_the_looks_as_without_them(bench):
    forget = bench.split.train.forget
    model = fresh(bench)
    looked = [tensors(m) for _, m in fine_tune(model, bench.dataset, forget, [0, 1, 3], settings(bench), 7)]
    ((step, straight),) = fine_tune(model, bench.dataset, forget, [3], settings(bench), 7)
    assert step == 3
    assert same(looked[0], tensors(model))
    assert not same(looked[1], looked[2])
    assert same(looked[2], tensors(straight))


def test_tuning_learns_its_items(bench):
    forget = bench.split.train.forget[:16]
    model = fresh(bench)
    *_, (_, tuned) = fine_tune(model, bench.dataset, forget, [60], settings(bench), 0)
    before, after = (item_losses(m, bench, forget, [0.5, 1.0]).mean() for m in (model, tuned))
    assert after < 0.8 * before


def test_an_adapter_alone_is_tuned_and_learns_its_items(bench):
    forget = bench.split.train.forget[:16]
    model = fresh(bench)
    before = tensors(model)
    rank = tuning_settings(bench.config, 1e-2, None, rank=2)
    *_, (_, tuned) = fine_tune(model, bench.dataset, forget, [60], rank, 0)
    own = {name.replace(".base_layer", ""): w for name, w in tensors(tuned).items() if "lora_" not in name}
    own.pop("adapter_scale")
    assert same(own, before)
    assert same(tensors(model), before)
    losses = [item_losses(m, bench, forget, [0.5, 1.0]).mean() for m in (model, tuned)]
    assert losses[1] < 0.8 * losses[0]


def test_the_adapter_of_a_method_is_not_the_attacker_s():
    bench = bench_of("finetune.adapter={rank: 4}")
    assert tuning_settings(bench.config, None, None).adapter is None
    found = Relearning(items=4, steps=[1], rank=2, samples=4)
    assert tuning_settings(bench.config, None, None, found.rank).adapter.rank == 2
    assert "adapter of rank 2 alone" in found.protocol(bench)["relearning"]
    assert [point["step"] for point in found.measure(subject_of(bench))["relearning"]["curve"]] == [0, 1]


def test_dropout_is_off_and_the_global_stream_is_left_alone():
    bench = bench_of("network.dropout=0.5")
    model = fresh(bench)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        *_, (_, tuned) = fine_tune(model, bench.dataset, bench.split.train.forget, [2], settings(bench), 0)
        runs.append(tensors(tuned))
        assert torch.initial_seed() == seed
    assert same(*runs)


def test_a_random_network_starts_without_the_content_and_every_row_relearns_the_same_items(bench):
    metric = Relearning(items=10, steps=[1])
    found = metric.measure(subject_of(bench))["relearning"]
    assert found["curve"][0]["unlearning_ratio"]["value"] == 0
    assert found["curve"][0]["junk_rate"]["value"] == 1
    assert (found["items"], found["samples"]) == (10, 40)
    assert metric._chosen(bench).tolist() == metric._chosen(bench_of("sampling.steps=3")).tolist()
    assert set(metric._chosen(bench)) <= set(bench.split.train.forget)


def test_compound_relearning_learns_items_to_retain_among_those_to_forget(bench):
    train, alone = bench.split.train, Relearning(items=10)
    found = Relearning(items=10, benign=30)._chosen(bench)
    assert found[:10].tolist() == alone._chosen(bench).tolist()
    assert len(set(found[10:]) & set(train.retain)) == 30
    assert (
        "10 training items to forget among 30 to retain"
        in Relearning(items=10, benign=30).protocol(bench)["relearning"]
    )
    with pytest.raises(UserError, match=r"^evaluation.options.relearning.benign: 2000 asked for"):
        Relearning(benign=2000).check(bench.config, bench.dataset, bench.split)


def test_resurgence_trains_on_retain_items_alone(bench, monkeypatch):
    seen = []

    def spy(model, dataset, indices, steps, *rest):
        seen.append(indices.tolist())
        return iter([(0, model)])

    monkeypatch.setattr("msgm.evaluation.attacks.tuning.fine_tune", spy)
    found = Resurgence().measure(subject_of(bench))["resurgence"]
    assert seen == [bench.split.train.retain.tolist()]
    assert found["items"] == len(bench.split.train.retain)


def row(name, *values, steps=(0, 5, 10)):
    curve = [{"step": s, "unlearning_ratio": {"value": v}} for s, v in zip(steps, values, strict=True)]
    return {"name": name, "relearning": {"curve": curve}, "measured": {"relearning": {}}}


def test_the_steps_to_half_are_counted_against_the_base_row():
    column = Relearning.columns[0]
    base, quick, never = row("do-nothing", 0.2, 0.5, 1), row("a", 0, 0.1, 0.9), row("b", 0, 0.05, 0.09)
    report = {"rows": [base, quick, never]}
    assert [least_to_half("relearning", "step", r, report) for r in report["rows"]] == [0, 5, None]
    assert [column.cell(r, report) for r in report["rows"]] == ["0", "5", "> 10"]
    assert column.cell(quick, {"rows": [quick]}) == "no base row"


def test_a_base_that_shows_nothing_gives_no_half():
    report = {"rows": [row("do-nothing", 0, 0, 0), row("a", 0, 0, 0)]}
    assert Relearning.columns[0].cell(report["rows"][1], report) == "the base shows none"


def test_more_items_than_there_are_are_refused_in_one_sentence(bench):
    with pytest.raises(UserError, match=r"^evaluation.options.relearning.items: 248 asked for, but there are 247 \w+"):
        Relearning(items=248).check(bench.config, bench.dataset, bench.split)
    Relearning(items=247).check(bench.config, bench.dataset, bench.split)


@pytest.mark.parametrize(
    "options", [{"items": 0}, {"steps": [0, 5]}, {"steps": []}, {"lr": -1.0}, {"samples": 0}, {"rank": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match=r"^evaluation.options.relearning." + next(iter(options))):
        METRICS.build({"name": "relearning", **options})
