"""``msgm.fit``: the command line's trainer, in memory, and with its memory of what was forgotten."""

import signal
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import msgm
from msgm.chain import Chain
from msgm.config import load_config
from msgm.data import Digits, load_dataset
from msgm.data.feed import EpochOrder
from msgm.diffusion import ScoreModel
from msgm.errors import Interrupted, RunError, UserError
from msgm.objectives import Card, Noised, Objective, Term, mean_square
from msgm.training import train, unlearn
from tests.conftest import TINY

SETTINGS = {"batch_size": 16, "lr": 2e-3, "log_every": 1, "device": "cpu"}
THREES = msgm.ForgetRequest(labels=[3])


def new(seed=0):
    return ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], mid_attention=False, seed=seed)


def fit(model, *arguments, steps=2, **settings):
    return msgm.fit(model, *(arguments or ("digits",)), steps=steps, **(SETTINGS | settings))


def weights(model):
    return torch.cat([tensor.flatten() for tensor in model.network.state_dict().values()])


def asked(model):
    return [entry.text.rsplit(" ", 1)[-1] for entry in model.chain.requests]


@pytest.fixture
def read(monkeypatch):
    """The items that are trained on from here on."""
    found, init = set(), EpochOrder.__init__

    def ordered(self, indices, seed, stream):
        found.update(indices.tolist())
        init(self, indices, seed, stream)

    monkeypatch.setattr(EpochOrder, "__init__", ordered)
    return found


def items_of(*labels):
    return set(np.flatnonzero(np.isin(load_dataset("digits").labels, labels)).tolist())


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("averaged", ["ema", "raw"])
def test_the_same_settings_give_the_weights_of_the_command_line(seed, averaged, tmp_path):
    overrides = [*TINY, f"seed={seed}", f"training.weights={averaged}", "training.steps=4"]
    run = train(load_config(None, overrides), tmp_path / "base", device="cpu")
    config = load_config(None, [*overrides, "objective={name: redirect, alpha: .6}", "finetune.steps=3"])
    unlearnt = unlearn(config, run.path, tmp_path / "made", device="cpu")

    base = fit(new(seed), steps=4, seed=seed, weights=averaged)
    assert torch.equal(weights(base), weights(ScoreModel.load(run.model)))
    wish = msgm.ForgetRequest(labels=["3", "7"])
    for start in (base, ScoreModel.from_pretrained(run.path)):
        made = fit(start, "digits", msgm.Redirect(alpha=0.6), wish, steps=3, seed=seed, weights=averaged)
        assert torch.equal(weights(made), weights(ScoreModel.load(unlearnt.model)))


def test_the_model_that_is_given_stays_as_it_was():
    model, objective = new(), msgm.Redirect()
    before = weights(model).clone()
    made = fit(model, "digits", objective, THREES)
    assert torch.equal(weights(model), before)
    assert not torch.equal(weights(made), before)
    assert not hasattr(objective, "items")
    assert (model.untrained, made.untrained) == (True, False)


def test_each_request_is_carried_on_and_brings_nothing_back(read):
    base = fit(new())
    once = fit(base, "digits", "redirect", THREES)
    read.clear()
    twice = fit(once, "digits", "unseen", msgm.ForgetRequest(labels=[5]))
    assert [asked(model) for model in (base, once, twice)] == [[], ["3"], ["3", "5"]]
    assert [entry.by for entry in twice.chain.requests] == ["redirect", "unseen"]
    assert read
    assert not read & items_of(3)
    read.clear()
    assert asked(fit(twice)) == ["3", "5"]
    assert not read & items_of(3, 5), "training on all data goes on without what was forgotten"
    assert once.key != twice.key


def test_the_chain_goes_through_a_folder_to_the_command_line(tmp_path, read):
    fit(fit(new()), "digits", "redirect", THREES).save_pretrained(tmp_path / "out")
    model = ScoreModel.from_pretrained(tmp_path / "out")
    config = load_config(None, [*TINY, "objective.name=unseen", "request.labels=[5]", "training.steps=1"])
    read.clear()
    run = unlearn(config, tmp_path / "out", tmp_path / "run", device="cpu")
    assert not read & items_of(3)
    assert asked(ScoreModel.from_pretrained(run.path)) == ["3", "5"]
    assert asked(fit(model, "digits", "unseen", msgm.ForgetRequest(labels=[5]))) == ["3", "5"]


def test_a_request_from_random_weights_is_retraining():
    assert fit(new(), "digits", "unseen", THREES).chain.requests[0].by == "unseen from random weights"


def test_a_fresh_chain_is_a_named_option(read):
    once = fit(fit(new()), "digits", "redirect", THREES)
    read.clear()
    made = fit(once, "digits", "redirect", msgm.ForgetRequest(labels=[5]), fresh_chain=True)
    assert asked(made) == ["5"]
    assert made.chain.anew[0].endswith("labels 3")
    assert read & items_of(3)


def test_other_data_than_that_of_earlier_requests_is_refused():
    once = fit(fit(new()), "digits", "redirect", THREES)
    other = load_dataset("digits")
    other.items = other.items.flip(0)
    other.labels = other.labels[::-1].copy()
    five = msgm.ForgetRequest(labels=[5])
    with pytest.raises(UserError, match="data.validation is 0.0 here"):
        fit(once, load_dataset("digits"), "unseen", five)
    whole = fit(fit(new(), load_dataset("digits")), load_dataset("digits"), "unseen", THREES)
    with pytest.raises(UserError, match="item 0 of the data is not the one that stood there"):
        fit(whole, other, "unseen", five)


def test_a_model_of_nobody_knows_where_says_so(tmp_path):
    bare = ScoreModel(new().network, new().process, (1, 8, 8))
    assert "made elsewhere" in fit(bare).chain.unknown
    assert "made elsewhere" in fit(bare, "digits", "unseen", THREES).chain.unknown
    bare.save(tmp_path / "model")
    assert "no chain.json" in fit(ScoreModel.from_pretrained(tmp_path / "model")).chain.unknown
    assert fit(new()).chain.unknown is None


def test_a_loop_that_records_nothing_is_noticed(tmp_path):
    models = [new(), fit(new()), fit(fit(new()), "digits", "unseen", THREES)]
    models[1].save_pretrained(tmp_path / "one")
    models.append(ScoreModel.from_pretrained(tmp_path / "one"))
    for model in models:
        requests = model.chain.requests
        with torch.no_grad():
            next(model.network.parameters()).add_(1.0)
        assert not model.untrained
        assert "recorded no request" in model.history().unknown
        assert model.history().requests == requests
        assert "recorded no request" in fit(model).chain.unknown
    models[0].save_pretrained(tmp_path / "out")
    assert "Requests before these are not known." in (tmp_path / "out" / "README.md").read_text()
    assert ScoreModel.from_pretrained(tmp_path / "out").chain.unknown


@pytest.mark.parametrize("data", ["digits", {"name": "digits"}, Digits(), Digits(split_seed=3)])
def test_a_data_set_by_name_or_settings_is_split_as_they_say(data, read):
    made = fit(new(), data)
    seed = getattr(data, "split_seed", 0)
    assert read == set(Digits(split_seed=seed).parts(load_dataset("digits"))["train"].tolist())
    assert made.chain.data.split["data.split_seed"] == seed


def test_a_data_set_is_used_whole_but_for_its_published_test_set(read):
    data = load_dataset("digits")
    fit(new(), data)
    assert read == set(range(1797))
    read.clear()
    data.test = np.arange(1797) < 300
    fit(new(), data, "unseen", THREES)
    assert read == set(range(300, 1797))


def test_data_of_another_library_are_the_same_data():
    data = load_dataset("digits")
    expected = fit(fit(new(), data), data, "redirect", THREES)
    arrays = (data.items.numpy() / 16, data.labels)
    base = fit(new(), arrays, levels=17)
    made = fit(base, arrays, "redirect", THREES, levels=17)
    assert torch.equal(weights(made), weights(expected))
    numbers = np.flatnonzero(data.labels == 3)
    for wish in (
        msgm.ForgetRequest(mask=data.labels == 3),
        msgm.ForgetRequest(predicate=lambda item, label: label == 3),
        msgm.ForgetRequest(dataset=arrays[0][numbers]),
    ):
        assert torch.equal(weights(fit(base, arrays, "redirect", wish, levels=17)), weights(expected))


CODE = """
import msgm
model = msgm.ScoreModel.from_pretrained("runs/base")      # a run, a diffusers folder or pipeline object; a hub id when allowed
base = msgm.fit(msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8)), dataset, steps=1500, seed=0)
made = msgm.fit(base, dataset, objective=msgm.Redirect(alpha=.5), forget=msgm.ForgetRequest(labels=[3, 7]), steps=500)
images = made.sample(64, sampler="dpm++2m", seed=0)
made.save_pretrained("out"); pipe = made.to_pipeline()
"""  # noqa: E501


def test_the_code_that_was_asked_for_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(load_config(None, [*TINY, "training.steps=1"]), "runs/base", device="cpu")
    data = load_dataset("digits")
    names = {"dataset": (data.items.numpy(), data.labels)}
    exec(CODE.replace("1500", "2").replace("500", "2"), names)
    assert names["images"].shape == (64, 1, 8, 8)
    assert (tmp_path / "out" / "model_index.json").is_file()
    assert type(names["pipe"]).__name__ == "DDPMPipeline"
    assert asked(ScoreModel.from_pretrained("out")) == ["7"]


@dataclass
class Pull(Objective):
    """An objective that nobody registered."""

    data = "retain+forget"
    card = Card("", "", "")
    pull: float = 0.1

    def uses_forget(self, step):
        return True

    def forget_batches(self, step):
        return step

    def terms(self, predict, retain: Noised, forget: Noised | None):
        pulled = mean_square(predict(forget.x, forget.t))
        return {
            "retain": Term(1.0, mean_square(predict(retain.x, retain.t) - retain.eps)),
            "pull": Term(self.pull, pulled),
        }


def test_an_objective_of_ones_own_needs_no_registering():
    assert fit(fit(new()), "digits", Pull(), THREES).chain.requests[0].by == "Pull"


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("digits", "redirect"), {}, "'redirect' needs to know what to forget; give forget=msgm.ForgetRequest"),
        (("digits", msgm.Unseen()), {}, "'unseen' needs to know what to forget"),
        (
            ("digits", "standard", THREES),
            {},
            "'standard' trains on the forget set too; to unlearn, choose one of .*redirect",
        ),
        (("digits", "redirekt", THREES), {}, "unknown objective 'redirekt'.*Did you mean 'redirect'"),
        (("digits",), {"batch_sise": 3}, "fit.batch_sise: unknown setting.*Did you mean 'batch_size'"),
        (("digits",), {"steps": 0}, "steps must be at least 1"),
        (("digits",), {"keep_every": 1}, "fit.keep_every: what it writes needs a folder"),
        (("gaussians",), {}, r"items of shape \(1, 8, 8\), but the data has \(2,\)"),
        (({"name": "digts"},), {}, "unknown data 'digts'"),
        ((3,), {}, "dataset: expected"),
        (("digits", "unseen", msgm.ForgetRequest(labels=["x"])), {}, "request.labels"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, settings, said):
    with pytest.raises(UserError, match=said):
        fit(new(), *arguments, **settings)


def test_several_processes_need_a_folder(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="give checkpoints=FOLDER"):
        fit(new())


def test_a_stopped_fit_goes_on_from_its_checkpoints(tmp_path):
    class Stops(msgm.Standard):
        calls = 0

        def terms(self, *arguments):
            type(self).calls += 1
            if type(self).calls == 2:
                signal.raise_signal(signal.SIGINT)
            return super().terms(*arguments)

    with pytest.raises(Interrupted, match=f"stopped after step 2; saved in {tmp_path / 'kept'}"):
        fit(new(), "digits", Stops(), steps=4, checkpoints=tmp_path / "kept")
    made = fit(new(), "digits", Stops(), steps=4, checkpoints=tmp_path / "kept")
    assert Stops.calls == 4
    assert torch.equal(weights(made), weights(fit(new(), steps=4)))
    Stops.calls = 0
    with pytest.raises(Interrupted, match="nothing is kept, since fit was given no folder"):
        fit(new(), "digits", Stops(), steps=4)


def test_checkpoints_of_another_fit_are_refused(tmp_path):
    folder = tmp_path / "kept"
    fit(new(), "digits", "unseen", THREES, checkpoints=folder)
    for changes in (
        {"seed": 1},
        {"lr": 1e-3},
        {"objective": "redirect"},
        {"forget": msgm.ForgetRequest(labels=[4])},
        {"model": new(1)},
    ):
        given = {"model": new(), "objective": "unseen", "forget": THREES} | changes
        with pytest.raises(UserError, match="checkpoints of another fit"):
            fit(given.pop("model"), "digits", given.pop("objective"), given.pop("forget"), checkpoints=folder, **given)
    meant = {means: msgm.ForgetRequest(labels=[3], means=means) for means in ("items", "condition")}
    asked = ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], mid_attention=False, classes=10)
    fit(asked, "digits", "unseen", meant["items"], checkpoints=tmp_path / "meant")
    with pytest.raises(UserError, match="checkpoints of another fit .means: items -> condition"):
        fit(asked, "digits", "unseen", meant["condition"], checkpoints=tmp_path / "meant")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        fit(new(), checkpoints=tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_not_finite_stops_with_the_step():
    class Breaks(msgm.Standard):
        def terms(self, *arguments):
            (name, term), *_ = super().terms(*arguments).items()
            return {name: Term(1.0, term.values / 0)}

    with pytest.raises(RunError, match="became (nan|inf) at step 1; earlier steps: nothing is kept"):
        fit(new(), "digits", Breaks())


def test_nothing_is_left_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    marginal = msgm.Orthogonal(variant="marginal", teacher_steps=1)
    fit(fit(new()), "digits", marginal, THREES)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_chain_is_that_of_a_new_model():
    assert new().chain == Chain()
    assert new().history() == Chain()
