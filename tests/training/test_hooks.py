"""What every hook of an objective promises to all that use it."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file

import msgm
from msgm.data import Feed
from msgm.errors import UserError
from msgm.folders import write_json
from msgm.generator.facts import given_facts
from msgm.objectives import OBJECTIVES, Anchor, Card, Mask, Mixed, Objective, Obtuse, Phase, Term, Unseen, mean_square
from msgm.objectives.kernel import leave_one_out_bandwidth
from msgm.reading import read_json
from msgm.runs import Run
from msgm.seeding import generator
from msgm.training import Trainer, preparation, train, unlearn
from msgm.training.checkpoints import checkpoints
from msgm.training.run import load_data, new_model

ALL = "{name: obtuse, alpha: 0.5, every: 1, ADDED}"


def obtuse(added: str) -> str:
    return "objective=" + ALL.replace("ADDED", added)


@pytest.fixture
def trainer(tiny, tmp_path):
    """Make a trainer of an objective that may be any object."""

    def make(objective: Objective, *overrides: str, name: str = "run") -> Trainer:
        config = tiny(*overrides)
        dataset, split = load_data(config)
        run = Run(tmp_path / name)
        return Trainer(new_model(config, dataset), objective, dataset, split.train, config.training, 0, run, "cpu")

    return make


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run.checkpoints)[-1] / "network.safetensors")


def saved(run: Run) -> dict[str, torch.Tensor]:
    """The weights of a run's model folder, by their names in the network."""
    tensors = load_file(run.model / "unet" / "diffusion_pytorch_model.safetensors")
    return {f"unet.{name}": tensor for name, tensor in tensors.items()}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    a, b = (torch.cat([found[name].flatten() for name in one]) for found in (one, other))
    return bool((a - b).norm() < 1e-5 * a.norm())


def test_an_objective_of_forget_items_alone_draws_no_retain_batch_and_its_run_says_so(tiny, tmp_path, monkeypatch):
    read, whole = [], Feed.batches

    def noted(self, start):
        for batch in whole(self, start):
            read.append(self.stream)
            yield batch

    monkeypatch.setattr(Feed, "batches", noted)
    ascent = "objective={name: subtract, descent: nothing, weight: 1, ceiling: 1, anchor: {by: identity}}"
    run = train(tiny(ascent), tmp_path / "run", device="cpu")
    assert set(read) == {"forget"}
    assert read_json(run.manifest)["drawn"] == {"retain": 0, "forget": 6 * 16}


@pytest.mark.parametrize(
    ("objective", "drawn"),
    [
        ("objective.name=standard", {"retain": 0, "forget": 0, "all": 96}),
        ("objective.name=unseen", {"retain": 96, "forget": 0}),
        ("objective={name: obtuse, every: 3}", {"retain": 96, "forget": 32}),
        ("objective.name=subtract", {"retain": 0, "forget": 96, "all": 96}),
        ("objective={name: redirect, bank: 50}", {"retain": 146, "forget": 96}),
        (obtuse("mask: {items: 8}"), {"retain": 96, "forget": 104}),
        (obtuse("mask: {by: fisher, items: 8}, replay: 20"), {"retain": 0, "forget": 104, "replay": 96}),
        (
            "objective={name: orthogonal, variant: marginal, teacher_steps: 2, every: 6}",
            {"retain": 96, "forget": 16 + 32},
        ),
    ],
)
def test_the_run_says_how_many_items_of_each_part_were_drawn(tiny, tmp_path, objective, drawn):
    run = train(tiny(objective), tmp_path / "run", device="cpu")
    assert read_json(run.manifest)["drawn"] == drawn


def test_a_forget_only_objective_is_refused_what_would_read_retain_items(tiny, tmp_path):
    ascent = "objective={name: subtract, descent: nothing, weight: 1, ceiling: 1, anchor: {by: fisher}}"
    with pytest.raises(UserError, match="reads forget items alone, and what it prepares needs retain items"):
        train(tiny(ascent), tmp_path / "run", device="cpu")


def test_batches_that_importance_pairs_are_of_one_size(tiny, tmp_path):
    pairs = "objective={name: subtract, importance: 0.5}"
    with pytest.raises(UserError, match="objective.importance: it pairs the items"):
        train(tiny(pairs, "training.forget_batch_size=8"), tmp_path / "refused", device="cpu")
    train(tiny(pairs, "training.forget_batch_size=16", "training.steps=1"), tmp_path / "run", device="cpu")


@pytest.mark.parametrize("by", ["saliency", "fisher"])
def test_masked_weights_are_bit_equal_after_steps_and_others_move(tiny, tmp_path, by):
    base = train(tiny(), tmp_path / "base", device="cpu")
    started = saved(base)
    config = tiny(obtuse(f"mask: {{by: {by}, keep: 0.3, items: 8}}"), "finetune.steps=3")
    run = unlearn(config, base.path, tmp_path / "run", device="cpu")
    model, moved = saved(run), weights(run)
    still = torch.cat([(moved[name] == started[name]).flatten() for name in moved])
    kept = round(0.3 * len(still))
    assert len(still) - kept <= still.sum() < len(still) - 0.9 * kept
    averaged = torch.cat([(model[name] == started[name]).flatten() for name in moved])
    assert torch.equal(averaged | ~still, torch.ones_like(still))


@pytest.mark.parametrize("kind", ["adamw", "momentum"])
def test_neither_weight_decay_nor_momentum_moves_a_masked_weight(trainer, kind):
    made = trainer(Obtuse(every=1, alpha=0.5, mask=Mask(keep=0.3, items=8)))
    weights = made.update.weights
    optimiser = {
        "adamw": lambda: torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.5),
        "momentum": lambda: torch.optim.SGD(weights.values(), lr=1e-2, momentum=0.9, weight_decay=0.1),
    }[kind]()
    for weight in weights.values():  # momentum from an update that had no mask
        weight.grad = torch.ones_like(weight)
    optimiser.step()
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    made.update.optimisers["both"] = made.state.optimiser = optimiser
    made.train()
    for name, allowed in made.update.mask.items():
        assert torch.equal(weights[name][~allowed], before[name][~allowed])
    assert any((weights[name] != before[name]).any() for name in weights)


class Pull(Objective):
    """A base of tests: plain training with a penalty of its own."""

    name, data = "pull", "retain"
    card = Card("a", "b", "c")

    def terms(self, predict, retain, forget):
        return {"retain": Term(1.0, mean_square(predict(retain.x, retain.t) - retain.eps))}

    def penalty(self, weights):
        return {"pull": 3 * sum(weight.square().sum() for weight in weights.values())}


def test_a_penalty_is_logged_and_its_gradient_added_once_a_step(trainer):
    gradients = {}
    for parts in (1, 4):
        for objective in (Pull(), Unseen()):
            made = trainer(objective, f"training.accumulate={parts}", "training.clip=null", name=f"{parts}{objective}")
            made._prepare()
            retain, _ = made.feeds.batches(0, 0)
            advance = made.update._advance
            made.update._advance = lambda *given, made=made, objective=objective, parts=parts, advance=advance: (
                gradients.update({(parts, objective.name): {n: w.grad.clone() for n, w in made.update.weights.items()}})
                or advance(*given)
            )
            started = {n: w.detach().clone() for n, w in made.update.weights.items()}
            made._step(0, next(retain), None)
            assert ("pull" in made._pending[0][1]) == isinstance(objective, Pull)
    for parts in (1, 4):
        for name, plain in gradients[parts, "unseen"].items():
            torch.testing.assert_close(gradients[parts, "pull"][name] - plain, 6 * started[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("by", ["fisher", "identity", "base"])
def test_an_anchor_is_not_multiplied_by_accumulated_parts(tiny, tmp_path, by):
    weight = {"fisher": 1e4, "identity": 1.0, "base": 0.7}[by]
    config = tiny(obtuse(f"anchor: {{by: {by}, weight: {weight}, items: 8}}"), "network.dropout=0")
    whole = train(config, tmp_path / "1", device="cpu")
    parts = train(replace(config, training=replace(config.training, accumulate=4)), tmp_path / "4", device="cpu")
    free = train(tiny(obtuse("mask: null"), "network.dropout=0"), tmp_path / "0", device="cpu")
    assert close(weights(whole), weights(parts))
    assert not close(weights(whole), weights(free))


def test_an_anchor_holds(tiny, tmp_path):
    base = train(tiny(), tmp_path / "base", device="cpu")
    started = saved(base)
    moved = []
    for number, weight in enumerate((0.0, 10.0)):
        added = obtuse(f"anchor: {{by: identity, weight: {weight}}}")
        run = unlearn(tiny(added, "finetune.steps=8"), base.path, tmp_path / str(number), device="cpu")
        moved.append(sum(float((w - started[name]).square().sum()) for name, w in weights(run).items()))
    assert moved[1] < 0.5 * moved[0]


def test_the_base_as_target_is_distillation(trainer):
    """At the start the student is the base: its retain loss is zero."""
    made = trainer(Unseen(anchor=Anchor("base")), "network.dropout=0")
    made._prepare()
    retain, _ = made.feeds.batches(0, 0)
    made._step(0, next(retain), None)
    assert float(made._pending[0][1]["retain"]) < 1e-10


def test_only_weights_that_fit_a_pattern_are_trained_and_have_a_state(tiny, tmp_path):
    base = train(tiny(), tmp_path / "base", device="cpu")
    started = saved(base)
    run = unlearn(
        tiny("objective.name=redirect", "finetune.trainable=['mid_block.*']"), base.path, tmp_path / "run", device="cpu"
    )
    moved = {name for name, weight in weights(run).items() if not torch.equal(weight, started[name])}
    assert moved
    assert all(name.startswith("unet.mid_block.") for name in moved)
    state = load_file(checkpoints(run.checkpoints)[-1] / "optimiser.safetensors")
    assert {name.partition("/")[2] for name in state} >= moved
    assert all("/unet.mid_block." in name for name in state)


def test_weights_are_trainable_again_afterwards(trainer):
    made = trainer(Unseen(), "training.trainable=['conv_in.*']")
    assert sum(p.requires_grad for p in made.model.network.parameters()) == 2
    made.train()
    assert all(p.requires_grad for p in made.model.network.parameters())


def test_a_pattern_without_a_weight_is_refused(trainer):
    with pytest.raises(UserError, match="training.trainable: 'midblock.*' fits the name of no weight"):
        trainer(Unseen(), "training.trainable=['conv_in.*', 'midblock.*']")


def test_replays_take_the_place_of_retain_items_and_stay_the_same_on_a_resume(tiny, tmp_path):
    config = tiny(obtuse("replay: 20"), "training.checkpoint_every=2")
    run = train(config, tmp_path / "run", device="cpu")
    kept = (run.path / "replay" / "20.safetensors").read_bytes()
    items = load_file(run.path / "replay" / "20.safetensors")["items"]
    assert items.shape == (20, 1, 8, 8)
    assert items.abs().max() <= 1
    assert json.loads((run.path / "traces.json").read_text())["written"]["replay"]["part"] == "all"
    again = train(config, tmp_path / "again", device="cpu")
    assert (again.path / "replay" / "20.safetensors").read_bytes() == kept


def test_a_conditional_model_replays_each_class_that_is_retained_under_its_label(tiny, tmp_path):
    config = tiny(obtuse("replay: 20"), "network.classes=10", "training.cond_drop=0")
    dataset, split = load_data(config)
    objective, seen = Obtuse(every=1, replay=20), []
    terms = objective.terms
    objective.terms = lambda predict, retain, forget: seen.append(retain) or terms(predict, retain, forget)
    made = Trainer(
        new_model(config, dataset), objective, dataset, split.train, config.training, 0, Run(tmp_path), "cpu"
    )
    made.train()
    items = load_file(tmp_path / "replay" / "20.safetensors")["items"]
    expected = [label for label in range(10) if label not in (3, 7)]
    for batch in seen:
        for item, label in zip(batch.clean, batch.condition.labels.tolist(), strict=True):
            place = int((items - item).abs().flatten(1).sum(1).argmin())
            assert torch.equal(items[place], item)
            assert label == expected[place % 8]


def test_a_bank_is_of_replays_too_and_no_retain_item_is_read(tiny, tmp_path):
    run = train(tiny("objective={name: redirect, replay: 40}"), tmp_path / "run", device="cpu")
    assert read_json(run.manifest)["drawn"] == {"retain": 0, "forget": 96, "replay": 96}


def test_moments_are_kept_in_the_run_folder_and_taken_once(tiny, tmp_path, monkeypatch):
    from msgm.training import preparation

    taken, whole = [], preparation.moments
    monkeypatch.setattr(preparation, "moments", lambda *given: taken.append(1) or whole(*given))
    config = tiny(obtuse("mask: {by: fisher, items: 8}, anchor: {items: 8}"))
    run = train(config, tmp_path / "run", device="cpu")
    assert len(taken) == 2  # forget for the mask, retain for both
    kept = {path.name: path.read_bytes() for path in (run.path / "moments").iterdir()}
    assert kept.keys() == {"forget-8x10-by-1.safetensors", "retain-8x10-by-1.safetensors"}
    run.manifest.unlink()
    train(config, tmp_path / "run", resume=True, device="cpu")
    assert len(taken) == 2


@pytest.fixture
def phased():
    """An objective of two updates a step, the first of which is masked."""
    known = dict(OBJECTIVES.entries)

    @OBJECTIVES.register("phased")
    @dataclass
    class Phased(Mixed):
        every: int = 1
        card = Card("a", "b", "c")

        def phases(self, step):
            return (Phase("forget", rate=0.5), Phase("retain", masked=False))

        def forget_loss(self, predicted, forget):
            return mean_square(predicted - forget.eps)

        def terms(self, predict, retain, forget):
            assert (retain is None) != (forget is None)
            batch, name = (retain, "retain") if forget is None else (forget, "forget")
            return {name: Term(1.0, mean_square(predict(batch.x, batch.t) - batch.eps))}

    yield Phased
    OBJECTIVES.entries.clear()
    OBJECTIVES.entries.update(known)


def test_each_phase_has_an_optimiser_of_its_own_and_a_resume_goes_on_with_both(tiny, tmp_path, phased):
    whole = train(tiny("objective.name=phased"), tmp_path / "whole", device="cpu")
    last = checkpoints(whole.checkpoints)[-1]
    states = [load_file(last / f"{name}.safetensors") for name in ("optimiser", "optimiser-retain")]
    assert states[0].keys() == states[1].keys()
    assert all(float(state[key]) == 6 for state in states for key in state if key.startswith("step/"))
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])
    lines = [json.loads(line) for line in whole.metrics.read_text().splitlines()]
    assert lines[0].keys() == {"step", "forget", "retain", "gradient_forget", "gradient_retain", "images_per_second"}
    config = tiny("objective.name=phased", "training.checkpoint_every=3")
    parts = train(config, tmp_path / "parts", device="cpu")
    newest = checkpoints(parts.checkpoints)[-1]
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    parts.manifest.unlink()
    again = train(config, tmp_path / "parts", resume=True, device="cpu")
    for file in ("network", "ema", "optimiser", "optimiser-retain"):
        name = f"{file}.safetensors"
        assert (checkpoints(again.checkpoints)[-1] / name).read_bytes() == (last / name).read_bytes()


def test_a_mask_holds_in_the_phases_that_it_is_for_and_momentum_of_others_does_not_leak(trainer, phased):
    """SFR-on's released code has one Adam for both updates: momentum moves masked weights in the forget update."""
    made = trainer(phased(mask=Mask(keep=0.3, items=8)))
    moved, advance = {}, made.update._advance

    def watched(optimiser, mask):
        before = {name: weight.detach().clone() for name, weight in made.update.weights.items()}
        length = advance(optimiser, mask)
        for name, weight in made.update.weights.items():
            allowed = made.update.mask[name]
            moved.setdefault(bool(mask), []).append(bool((weight != before[name])[~allowed].any()))
        return length

    made.update._advance = watched
    made.train()
    assert not any(moved[True])
    assert any(moved[False])


def test_a_clip_is_of_the_gradient_that_the_mask_lets_through(trainer):
    """SalUn's released code clips first, so that weights that stay still take their part of the length."""
    made = trainer(Obtuse(every=1, mask=Mask(keep=0.3, items=8)), "training.clip=0.01")
    made._prepare()
    weights = made.update.weights
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    made.update._advance(torch.optim.SGD(weights.values(), lr=1.0), made.update._own_mask)
    moved = torch.cat([(weight.detach() - before[name]).flatten() for name, weight in weights.items()])
    assert moved.norm() == pytest.approx(0.01, rel=1e-3)


def test_every_step_is_along_the_gradient_of_its_own_batch_alone(trainer):
    """SFD's code of DDPM clips, steps, then calls backward, and never sets gradients to zero."""
    made = trainer(Obtuse(every=1), "training.lr=1", "training.clip=0.01", "training.steps=3", "network.dropout=0")
    made.update.optimisers["both"] = made.state.optimiser = torch.optim.SGD(made.update.weights.values(), lr=1.0)
    step, off = made.update.step, []

    def watched(number, parts):
        terms = made.objective.terms(made.update.view.eps, *parts[0])
        loss = sum(term.weight * term.values.mean() for term in terms.values())
        weights = list(made.update.weights.values())
        own = torch.cat([found.flatten() for found in torch.autograd.grad(loss, weights)])
        before = torch.cat([weight.detach().flatten().clone() for weight in weights])
        means = step(number, parts)
        move = torch.cat([weight.detach().flatten() for weight in weights]) - before
        off.append(float((move + 0.01 * own / own.norm()).norm() / 0.01))
        return means

    made.update.step = watched
    made._checkpoint = lambda: None
    made.train()
    assert len(off) == 3
    assert max(off) < 1e-2


def test_preparation_sees_items_in_the_range_of_training(trainer, monkeypatch):
    """Selective Amnesia's code takes its Fisher diagonal at images in [0, 1], where the model is of [-1, 1]."""
    seen, take = [], preparation.moments
    monkeypatch.setattr(
        preparation, "moments", lambda model, items, *more: seen.append(items) or take(model, items, *more)
    )
    setup = trainer(Obtuse())._setup()
    setup.moments("retain", 8, 1)
    for items in (seen[0], setup.retain(8), setup.forget(8).items):
        assert items.min() < -0.8
        assert 0.8 < items.max() <= 1


def test_a_copy_is_tuned_from_the_weights_that_it_is_compared_with(trainer):
    """A task vector from a copy of raw weights to averaged ones would hold how training ended."""
    made = trainer(Obtuse(), "training.lr=1e-9")
    tuned, started = made._tune_on_forget(1), made.base
    for one, other in zip(tuned.network.parameters(), started.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_phase_of_half_the_rate_moves_the_weights_half_as_far(trainer, phased, monkeypatch):
    """A factor of the loss would not: an Adam of its own divides it out."""
    moved = []
    for rate in (1.0, 0.5):
        monkeypatch.setattr(phased, "phases", lambda self, step, rate=rate: (Phase("forget", rate=rate),))
        made = trainer(phased(), "training.steps=1", name=f"rate-{rate}")
        before = torch.cat([weight.detach().flatten().clone() for weight in made.update.weights.values()])
        made.train()
        moved.append(torch.cat([weight.detach().flatten() for weight in made.update.weights.values()]) - before)
    torch.testing.assert_close(2 * moved[1], moved[0], rtol=1e-3, atol=1e-6)
    assert moved[0].abs().max() > 1e-5


@pytest.mark.parametrize("parts", [1, 4])
def test_uniform_numbers_go_by_name_whatever_the_parts(trainer, parts):
    made = trainer(Unseen(), f"training.accumulate={parts}")
    batch = next(made.feeds.batches(0, 0)[0])
    cut = list(made._noised(0, made.feeds.kept, batch))
    drawn = {name: torch.cat([part.uniform(name) for part in cut]).flatten() for name in ("", "one", "other")}
    assert all(torch.equal(drawn[name], torch.cat([p.uniform(name) for p in cut]).flatten()) for name in drawn)
    whole = generator(0, "retain", "uniform", 0, "one")
    assert torch.equal(drawn["one"], torch.rand(16, 1, 8, 8, generator=whole).flatten())
    assert float(torch.corrcoef(torch.stack(list(drawn.values()))).triu(1).abs().max()) < 0.2


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("objective={name: redirect, bank: 50}", {"bandwidth"}),
        ("objective={name: redirect, bank: 50, bandwidth: 0.2}", set()),
        ("objective.name=subtract", {"beta"}),
        (obtuse("mask: {keep: 0.3, items: 8}"), {"kept_share", "kept_shares"}),
        ("objective.name=unseen", set()),
    ],
)
def test_the_run_says_what_was_found_in_preparation_again_after_a_resume(tiny, tmp_path, objective, names):
    config = tiny(objective, "training.steps=2")
    run = train(config, tmp_path / "run", device="cpu")
    manifest = read_json(run.manifest)
    assert manifest["found"].keys() == names
    assert given_facts("it", run.model)["found"] == manifest["found"]
    write_json(run.manifest, {key: value for key, value in manifest.items() if key != "found"} | {"status": "running"})
    assert read_json(train(config, run.path, resume=True, device="cpu").manifest)["found"] == manifest["found"]


def test_what_is_found_is_what_training_used(trainer):
    made = trainer(msgm.Redirect(bank=50, mask=Mask(keep=0.3, items=8)), "training.steps=1")
    made.train()
    found = made.update.found()
    assert found["bandwidth"] == leave_one_out_bandwidth(made.objective.density.items) > 0
    masks = made.update.mask
    allowed = torch.cat([masks[name].flatten() for name in made.update.weights])
    assert found["kept_share"] == pytest.approx(float(allowed.double().mean()))
    assert found["kept_share"] == pytest.approx(0.3, abs=0.01)
    assert found["kept_shares"] == {name: float(mask.float().mean()) for name, mask in masks.items()}
    share = len(made.part.forget) / len(made.part.all)
    calibrated = trainer(msgm.Subtract(), "training.steps=1", name="other")
    calibrated.train()
    assert calibrated.update.found() == {"beta": share}
