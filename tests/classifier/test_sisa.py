import json
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from msgm.classifier.data import Examples, split_by
from msgm.classifier.methods import METHODS, Settings
from msgm.classifier.networks import MLP, Linear, build
from msgm.classifier.sisa import SISA, Ensemble, Layout, expected_cost, system
from msgm.classifier.sisa.ensemble import TIE_WEIGHT
from msgm.classifier.training import TrainingSettings, fit
from msgm.data import Dataset
from msgm.errors import UserError
from msgm.seeding import derive_seed
from msgm.slices import stage_epochs
from scripts.bench import sisa as benchmark

TRAINING = TrainingSettings(lr=0.1, epochs=3, batch_size=8, weight_decay=0.0)
ITEMS = 61


@pytest.fixture(scope="module")
def data():
    """Two blobs of vectors; items 0..60 are to train on, the rest is held out."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 2, 120)
    x = draws.normal(size=(120, 3)) + 2 * labels[:, None]
    return Dataset("blobs", torch.from_numpy(x).float(), (3,), None, labels, ["a", "b"])


@pytest.fixture
def train(data):
    return Examples.of(data, np.arange(ITEMS))


@pytest.fixture
def rest(data):
    return Examples.of(data, np.arange(ITEMS, 120))


def network(seed):
    return build(MLP([4]), (3,), 2, seed)


def make(**options):
    return SISA(network, TRAINING, **{"seed": 0, "shards": 3, "slices": 2, **options})


def members(one, shard):
    return one.examples.indices[one.layout.stage_positions(shard, one.slices - 1)]


def files(folder):
    return {path.name for path in folder.glob("*.safetensors*")} | {path.name for path in folder.glob(".*")}


@pytest.mark.parametrize(("shards", "slices"), [(1, 1), (3, 1), (4, 5), (7, 3)])
def test_the_layout_drops_no_item_and_is_balanced(shards, slices):
    places = Layout(ITEMS, shards, slices, 0).places
    counts = np.array([[(places == (s, r)).all(1).sum() for r in range(slices)] for s in range(shards)])
    assert counts.sum() == ITEMS
    assert np.ptp(counts.sum(1)) <= 1
    assert max(np.ptp(row) for row in counts) <= 1
    assert (places != Layout(ITEMS, shards, slices, 1).places).any() or (shards, slices) == (1, 1)


def test_a_slice_without_an_epoch_is_refused():
    with pytest.raises(UserError, match="at least 4 training.epochs"):
        make(slices=7)


@pytest.mark.parametrize("slices", [1, 2, 5])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_forgetting_equals_training_without_bit_for_bit(train, rest, slices, optimiser):
    """A stream, one batch, and training that never saw the items give the same bytes."""
    training = TrainingSettings(lr=0.05, epochs=3, batch_size=8, optimiser=optimiser)
    asked = [5, 17, 33, 60]
    stream, batch, without = (SISA(network, training, 0, 3, slices) for _ in range(3))
    stream.fit(train)
    batch.fit(train)
    before = stream.logits(rest)
    stream.forget_stream(asked)
    batch.forget(asked)
    without.fit(train, without=asked)
    for one in (stream, batch):
        found, wanted = one.ensemble().state_dict(), without.ensemble().state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert torch.equal(one.predict(rest), without.predict(rest))
    assert not torch.equal(before, without.logits(rest))


def test_a_shard_is_the_training_of_its_remaining_items_alone(train):
    """With one slice the shard's model is what ``fit`` makes of these items and nothing else."""
    one = make(slices=1)
    one.fit(train)
    gone = members(one, 1)[:3]
    one.forget(gone)
    left = np.setdiff1d(members(one, 1), gone)
    alone = network(derive_seed(0, "sisa", 1))
    fit(alone, Examples.of(train.dataset, left), TRAINING, derive_seed(0, "sisa", 1, 0))
    found = one.ensemble().models[1].state_dict()
    assert all(torch.equal(value, found[name]) for name, value in alone.state_dict().items())


def test_dropout_is_as_exact(train, rest):
    def dropping(seed):
        model = network(seed)
        model.insert(3, nn.Dropout(0.5))
        return model

    one, without = (SISA(dropping, TRAINING, 0, 2, 2) for _ in range(2))
    one.fit(train)
    torch.rand(3)
    one.forget([4, 9])
    without.fit(train, without=[4, 9])
    assert torch.equal(one.logits(rest), without.logits(rest))


def test_no_request_retrains_nothing(train, rest):
    one = make()
    one.fit(train)
    before = one.logits(rest)
    work = one.forget([])
    assert (work.items, work.shards, work.stages, work.points, work.deleted) == (0, [], 0, 0, 0)
    assert torch.equal(one.logits(rest), before)


def test_one_request_touches_one_shard_from_its_slice_on(train):
    one = make(slices=3)
    first = one.fit(train)
    assert (first.shards, first.stages) == ([0, 1, 2], 9)
    models = [model.state_dict() for model in one.ensemble().models]
    for item, slice_number in ((int(one.layout.slice_positions(1, r)[0]), r) for r in (2, 1, 0)):
        work = one.forget(item)
        assert work.shards == [1]
        assert work.stages == work.deleted == 3 - slice_number
        sizes = [one.kept[one.layout.stage_positions(1, r)].sum() for r in range(slice_number, 3)]
        assert work.points == np.dot(sizes, one.epochs[slice_number:])
    after = [model.state_dict() for model in one.ensemble().models]
    same = [all(torch.equal(a[name], b[name]) for name in a) for a, b in zip(models, after, strict=True)]
    assert same == [True, False, True]


def test_dependent_checkpoints_are_deleted_from_the_folder(train, tmp_path):
    one = make(slices=3, folder=tmp_path)
    one.fit(train)
    before = files(tmp_path)
    assert len(before) == 9
    torn = tmp_path / ".shard-001-slice-001-abc.safetensors.ab3d_12c"
    torn.write_bytes(b"of a killed process")
    one.forget(int(one.layout.slice_positions(1, 1)[0]))
    after = files(tmp_path)
    assert {name[:19] for name in before - after} == {"shard-001-slice-001", "shard-001-slice-002"}
    assert len(after) == 9
    assert torn.name not in after


def test_checkpoints_are_gone_before_anything_is_trained_again(train, tmp_path, monkeypatch):
    one = make(folder=tmp_path)
    one.fit(train)
    seen = []
    monkeypatch.setattr(system, "fit", lambda *arguments: seen.append(files(tmp_path)))
    item = int(one.layout.slice_positions(0, 0)[0])
    one.forget(item)
    assert not any(name.startswith("shard-000") for name in seen[0])
    assert json.loads((tmp_path / "ensemble.json").read_text())["forgotten"] == [item]


class Crash(Exception):
    pass


def crash_after(monkeypatch, count):
    calls = []

    def breaking(*arguments):
        calls.append(1)
        if len(calls) > count:
            raise Crash
        return fit(*arguments)

    monkeypatch.setattr(system, "fit", breaking)
    return calls


def test_training_resumes_between_slices(train, rest, tmp_path, monkeypatch):
    crash_after(monkeypatch, 3)
    with pytest.raises(Crash):
        make(folder=tmp_path).fit(train)
    calls = crash_after(monkeypatch, 6)
    resumed, whole = make(folder=tmp_path), make()
    assert resumed.fit(train).stages == len(calls) == 3
    monkeypatch.undo()
    whole.fit(train)
    assert torch.equal(resumed.logits(rest), whole.logits(rest))


def test_a_request_that_broke_off_stays_forgotten(train, rest, tmp_path, monkeypatch):
    one = make(folder=tmp_path)
    one.fit(train)
    crash_after(monkeypatch, 1)
    with pytest.raises(Crash):
        one.forget(members(one, 0)[:8])
    with pytest.raises(UserError, match="broke off"):
        one.predict(rest)
    monkeypatch.undo()
    resumed, without = make(folder=tmp_path), make()
    resumed.fit(train)
    without.fit(train, without=members(one, 0)[:8])
    assert torch.equal(resumed.logits(rest), without.logits(rest))
    one.forget([])
    assert torch.equal(one.logits(rest), without.logits(rest))


def test_a_folder_of_another_system_is_refused(train, tmp_path):
    make(folder=tmp_path).fit(train)
    before = files(tmp_path)
    others = [make(folder=tmp_path, seed=1), make(folder=tmp_path, slices=1)]
    others.append(SISA(network, TrainingSettings(epochs=4), 0, 3, 2, folder=tmp_path))
    for other in others:
        with pytest.raises(UserError, match="other data, settings or versions"):
            other.fit(train)
    with pytest.raises(UserError, match="other data"):
        make(folder=tmp_path).fit(train.subset(np.arange(60)))
    assert files(tmp_path) == before


def test_a_damaged_checkpoint_is_named(train, tmp_path):
    make(folder=tmp_path).fit(train)
    damaged = next(tmp_path.glob("shard-001-slice-001*"))
    damaged.write_bytes(damaged.read_bytes()[:20])
    with pytest.raises(UserError, match=f"{damaged.name} is damaged"):
        make(folder=tmp_path).fit(train)


def test_more_slices_than_items_are_refused(train):
    with pytest.raises(UserError, match="sisa.shards 40 times sisa.slices 2 are more than the 61 items"):
        make(shards=40).fit(train)


def test_bad_requests_are_one_sentence(train):
    one = make()
    with pytest.raises(UserError, match="call fit first"):
        one.forget(3)
    one.fit(train)
    one.forget(3)
    cases = [
        ([5, 5], "gives item 5 twice"),
        ([ITEMS], f"names item {ITEMS}, which the ensemble was not trained on"),
        (-1, "names item -1, which"),
        (3, "item 3, which was forgotten before"),
        (np.setdiff1d(np.arange(ITEMS), [3]), "all 60 items that are left"),
        ([0.5], "whole numbers"),
    ]
    for request, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            one.forget(request)
    assert one.kept.sum() == ITEMS - 1
    with pytest.raises(UserError, match="make a new one"):
        one.fit(train)


@pytest.mark.parametrize("aggregation", ["mean", "proportional", "vote"])
def test_a_shard_without_items_has_no_say(train, rest, aggregation):
    one = make(aggregation=aggregation)
    one.fit(train)
    one.forget(members(one, 2))
    ensemble = one.ensemble()
    assert ensemble.weights[2] == 0
    others = Ensemble(list(ensemble.models)[:2], [len(members(one, s)) for s in (0, 1)], aggregation)
    x = rest.inputs(torch.arange(len(rest)))
    torch.testing.assert_close(ensemble(x), others.eval()(x))


class Fixed(nn.Module):
    """A model with the same probabilities for every item."""

    def __init__(self, *p):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, x):
        return self.p.log().expand(len(x), -1)


def aggregate(aggregation, sizes, *rows):
    return Ensemble([Fixed(*row) for row in rows], sizes, aggregation)(torch.zeros(1, 1))[0]


def test_aggregations_by_hand():
    rows = [(0.9, 0.1, 0.0), (0.3, 0.6, 0.1), (0.3, 0.6, 0.1)]
    torch.testing.assert_close(aggregate("mean", [5, 5, 9], *rows).exp(), torch.tensor([1.5, 1.3, 0.2]) / 3)
    torch.testing.assert_close(aggregate("proportional", [1, 1, 2], *rows).exp(), torch.tensor([1.8, 1.9, 0.3]) / 4)
    share = (1 - TIE_WEIGHT) * torch.tensor([1.0, 2.0, 0.0]) / 3 + TIE_WEIGHT * torch.tensor([1.5, 1.3, 0.2]) / 3
    torch.testing.assert_close(aggregate("vote", [5, 5, 9], *rows).exp(), share)


def test_a_tie_of_votes_goes_to_the_surer_shard_and_logarithms_are_finite():
    tied = aggregate("vote", [1, 1], (0.6, 0.4, 0.0), (0.1, 0.9, 0.0))
    assert tied.argmax() == 1
    assert aggregate("vote", [1, 1, 1], (0.51, 0.49), (0.51, 0.49), (0.0, 1.0)).argmax() == 0
    assert torch.isfinite(aggregate("vote", [1], (1.0, 1e-38))).all()
    with pytest.raises(UserError, match="fewer than 999"):
        Ensemble([Fixed(0.5, 0.5)] * 999, [1] * 999, "vote")
    with pytest.raises(UserError, match="must be mean, proportional or vote"):
        Ensemble([Fixed(0.5, 0.5)], [1], "median")


def test_what_breaks_isolation_is_refused(train):
    trained = fit(network(0), train, TRAINING, 0)
    with pytest.raises(UserError, match="warm start"):
        SISA(lambda seed: trained, TRAINING, 0)
    distilled = train.relabelled(1 - train.labels)
    with pytest.raises(UserError, match="distilling"):
        make().fit(distilled)
    with pytest.raises(UserError, match="item 4 is given twice"):
        make().fit(train.join(Examples.of(train.dataset, np.array([4]))))


def test_an_ensemble_handed_out_does_not_reach_the_shards(train, rest):
    one = make()
    one.fit(train)
    before = one.logits(rest)
    copy = one.ensemble()
    fit(copy, rest, TRAINING, 1)
    assert torch.equal(one.logits(rest), before)


def test_statistics_of_inputs_are_the_shards_own(train):
    one = make(slices=1)
    one.fit(train)
    for shard, model in enumerate(one.ensemble().models):
        x = Examples.of(train.dataset, members(one, shard)).inputs(torch.arange(len(members(one, shard))))
        torch.testing.assert_close(model[1].mean, x.mean(0))


def test_expected_cost_by_simulation_of_layouts():
    """Stages that contain a request run again on what is left: counted over draws, one batch and one by one."""
    n, s, r, k, epochs = 400, 4, 5, 6, 9
    draws, batch, stream = np.random.default_rng(0), [], []
    for seed in range(300):
        layout, asked = Layout(n, s, r, seed), draws.choice(n, k, replace=False)
        stages = [layout.stage_positions(a, b) for a in range(s) for b in range(r)]
        costs = stage_epochs(epochs, r) * s
        batch.append(
            sum(e * (~np.isin(p, asked)).sum() for p, e in zip(stages, costs, strict=True) if np.isin(asked, p).any())
        )
        done = range(1, k + 1)
        stream.append(
            sum(
                e * (~np.isin(p, asked[:i])).sum()
                for i in done
                for p, e in zip(stages, costs, strict=True)
                if asked[i - 1] in p
            )
        )
    found = expected_cost(n, s, r, epochs, k)
    assert np.mean(batch) == pytest.approx(found.batch, rel=0.02)
    assert np.mean(stream) == pytest.approx(found.stream, rel=0.03)


def test_the_method_prepares_an_ensemble_and_forgets_the_batch(data):
    forget = np.zeros(120, dtype=bool)
    forget[[2, 30]] = True
    parts = {"train": np.arange(61), "tuning": np.arange(61, 80), "nonmembers": np.arange(80, 100)}
    split = split_by(data, parts | {"test": np.arange(100, 120)}, forget)
    linear = partial(build, Linear(), (3,), 2)
    model = fit(linear(0), split.train, TRAINING, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = Settings(TRAINING, 3, torch.device("cpu"), linear, 0)
    found = METHODS.build({"name": "sisa", "shards": 4, "slices": 2}).unlearn(model, split, settings)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert 1 <= found.artefacts["shards_retrained"] <= 2
    assert found.cost.examples == found.artefacts["points_visited"] < found.artefacts["points_of_training"]
    assert found.cost.storage_bytes == found.artefacts["expected"]["storage_bytes"] > 0
    assert found.cost.preparation_seconds > 0
    without = SISA(lambda s: settings.fresh(model, s), TRAINING, derive_seed(3, "sisa"), 4, 2)
    without.fit(split.train, without=[2, 30])
    x = split.test.inputs(torch.arange(20))
    assert torch.equal(found.model(x), without.ensemble()(x))
    json.dumps(found.artefacts)


def test_the_bench_on_digits_follows_the_formulas(tmp_path, monkeypatch, capsys):
    """20 requests, one slice: within 10%; stream, batch and training without predict alike."""
    found = tmp_path / "figures.json"
    small = "--streams 1 --slices 1 --epochs 2 --requests 20"
    monkeypatch.setattr(sys, "argv", ["sisa.py", *small.split(), "--json", str(found)])
    benchmark.main()
    (row,) = json.loads(found.read_text())["rows"]
    assert row["stream_ratio"] == pytest.approx(1, abs=0.1)
    assert row["batch_ratio"] == pytest.approx(1, abs=0.1)
    assert row["equal"] is True
    assert "stream_ratio" in capsys.readouterr().out
