"""Runs of edits: a run folder like any other, made without steps."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import msgm
from msgm.chain import read_chain
from msgm.data import load_dataset
from msgm.diffusion import ScoreModel
from msgm.errors import RunError, UserError
from msgm.folders import write_json
from msgm.generator.facts import given_facts
from msgm.objectives import Unseen
from msgm.objectives.edits import EDITS, Edit, TaskVector
from msgm.runs import Run
from msgm.seeding import derive_seed
from msgm.training import train, unlearn
from msgm.training.editing import Editor
from msgm.training.run import split_data
from tests.conftest import TINY

OF_ITEMS = [name for name, edit in EDITS.entries.items() if edit.data != "prompts"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    config = msgm.load_config(None, TINY)
    return train(config, tmp_path_factory.mktemp("edit") / "base", device="cpu")


def edited(tiny, base, out, *overrides, **given):
    return unlearn(tiny("finetune.steps=2", *overrides), base.path, out, device="cpu", **given)


def weights(run):
    return torch.cat([value.flatten() for value in ScoreModel.load(run.model).network.state_dict().values()])


@pytest.mark.parametrize("name", OF_ITEMS)
def test_unlearn_makes_every_edit_and_records_it(tiny, base, tmp_path, name):
    settings = {"influence": ["edit.iterations=2", "edit.items=4"], "task-vector": ["edit.steps=2"]}
    run = edited(tiny, base, tmp_path / "run", f"edit.name={name}", *settings.get(name, ["edit.items=4"]))
    manifest = json.loads(run.manifest.read_text())
    assert (manifest["status"], manifest["start"], manifest["objective"]) == ("finished", "edit", name)
    assert manifest["weights"] == "edited"
    assert manifest["seconds"] > 0
    assert 0 < manifest["edited"]["changed_share"] <= 1
    assert not torch.equal(weights(run), weights(base))
    assert [entry.by for entry in read_chain(run.model).requests] == [name]
    assert not run.checkpoints.exists()


@pytest.fixture(scope="module")
def asked_base(tmp_path_factory):
    config = msgm.load_config(None, [*TINY, "network.classes=10"])
    return train(config, tmp_path_factory.mktemp("edit") / "asked", device="cpu")


@pytest.mark.parametrize("name", OF_ITEMS)
def test_class_conditional_models_are_edited_too(tiny, asked_base, tmp_path, name):
    settings = {"influence": ["edit.iterations=2", "edit.items=4"], "task-vector": ["edit.steps=2"]}
    given = ["network.classes=10", "request.means=condition", *settings.get(name, ["edit.items=4"])]
    run = edited(tiny, asked_base, tmp_path / "run", f"edit.name={name}", *given)
    assert ScoreModel.load(run.model).classes == 10
    assert not torch.equal(weights(run), weights(asked_base))


def test_labels_are_those_that_training_reads(tiny, asked_base, tmp_path):
    config = tiny("network.classes=10", "request.means=condition", "training.cond_drop=0.5")
    dataset = load_dataset(config.data)
    part = split_data(config, dataset).train
    given = (dataset, part, config.training, 3, Run(tmp_path), "cpu", "edit", config.request.means)
    setup = Editor(ScoreModel.load(asked_base.model), EDITS.build({"name": "prune"}), *given)._edit_setup()
    forget, retain = setup.items("forget", 60).labels, setup.items("retain", 200).labels
    assert set(forget.tolist()) == {3, 7}
    assert {-1, 0, 9} <= set(retain.tolist())
    assert not {3, 7} & set(retain.tolist())


def test_the_same_run_gives_the_same_weights_and_another_seed_others(tiny, base, tmp_path):
    settings = ("edit.name=reinit", "edit.items=4", "edit.share=0.1")
    one, same = (edited(tiny, base, tmp_path / name, *settings) for name in ("one", "same"))
    other = edited(tiny, base, tmp_path / "other", *settings, "seed=1")
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_a_second_edit_leaves_out_the_items_of_the_first_request(tiny, base, tmp_path):
    first = edited(tiny, base, tmp_path / "first", "edit.name=prune", "edit.items=4")
    second = edited(tiny, first, tmp_path / "second", "edit.name=refit-head", "edit.items=4", "request.labels=[5]")
    asked = read_chain(second.model).requests
    assert [entry.by for entry in asked] == ["prune", "refit-head"]
    assert json.loads(second.manifest.read_text())["items"]["gone"] > 0


def test_a_task_vector_that_was_stopped_goes_on_with_the_copy_that_it_tuned(tiny, base, tmp_path, monkeypatch):
    settings = ("edit.name=task-vector", "edit.steps=3")
    whole = edited(tiny, base, tmp_path / "whole", *settings)
    with monkeypatch.context() as patched:
        patched.setattr(TaskVector, "change", lambda self, model, setup: (setup.tune_on_forget(3), 1 / 0))
        with pytest.raises(ZeroDivisionError):
            edited(tiny, base, tmp_path / "run", *settings)
    teacher = Run(tmp_path / "run" / "teacher")
    state = teacher.checkpoints / "step-00000003" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"seconds": 1000.0}))
    run = edited(tiny, base, tmp_path / "run", *settings, resume=True)
    assert torch.equal(weights(run), weights(whole))
    assert 1000 < json.loads(run.manifest.read_text())["seconds"] < 1100


def test_items_are_those_of_training_and_come_in_any_number(tiny, base, tmp_path):
    config = tiny("edit.name=prune")
    dataset = load_dataset(config.data)
    part = split_data(config, dataset).train
    editor = Editor(
        ScoreModel.load(base.model), EDITS.build(config.edit), dataset, part, config.training, 3, Run(tmp_path), "cpu"
    )
    setup = editor._edit_setup()
    assert setup.forget_share == len(part.forget) / (len(part.forget) + len(part.retain))
    many = setup.items("forget", len(part.forget) + 5).items
    assert len(many) == len(part.forget) + 5
    assert torch.equal(many, setup.items("forget", len(part.forget) + 5).items)
    for name, indices in (("forget", part.forget), ("retain", part.retain)):
        found, labels = setup.items(name, 40)
        assert labels is None
        levels = ((found + 1) / 2 * dataset.levels).floor().clamp(0, dataset.levels - 1)
        known = {item.numpy().tobytes() for item in dataset.items[indices]}
        kind = dataset.items.numpy().dtype
        assert all(item.numpy().astype(kind).tobytes() in known for item in levels)
    assert not torch.equal(setup.items("forget", 8).items[0], setup.items("retain", 8).items[0])


def test_items_do_not_depend_on_how_training_cuts_its_batches(tiny, base, tmp_path):
    config = tiny("edit.name=prune")
    dataset = load_dataset(config.data)
    part = split_data(config, dataset).train
    found = []
    for size in (4, 16, 128):
        settings = replace(config.training, batch_size=size)
        given = (dataset, part, settings, 3, Run(tmp_path), "cpu")
        editor = Editor(ScoreModel.load(base.model), EDITS.build(config.edit), *given)
        found.append(editor._edit_setup().items("forget", 100).items)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_weights_that_are_not_finite_are_not_saved(tiny, base, tmp_path, monkeypatch):
    def broken(self, model, setup):
        next(model.network.parameters()).data.fill_(np.inf)

    monkeypatch.setattr(TaskVector, "change", broken)
    with pytest.raises(RunError, match="task-vector gave weights that are not finite"):
        edited(tiny, base, tmp_path / "run", "edit.name=task-vector")
    assert not (tmp_path / "run" / "model").exists()


THEN = ("edit.name=prune", "edit.items=4", "edit.share=0.1", "objective.name=unseen", "finetune.steps=4")


def test_the_steps_that_follow_an_edit_start_from_its_weights(tiny, base, tmp_path):
    alone = edited(tiny, base, tmp_path / "alone", *THEN[:3])
    config = tiny(*THEN)
    dataset = load_dataset(config.data)
    given = (dataset, split_data(config, dataset).train, config.finetuning(), derive_seed(config.seed, "finetune"))
    edit, run = EDITS.build(config.edit), Run(tmp_path / "inside")
    editor = Editor(ScoreModel.load(base.model), edit, *given, run, "cpu", objective=Unseen())
    editor._prepare()
    with editor.state.ema.applied():
        averaged = torch.cat([value.flatten() for value in editor.model.network.state_dict().values()])
    started = torch.cat([value.flatten() for value in editor.model.network.state_dict().values()])
    assert torch.equal(started, weights(alone))
    assert torch.equal(averaged, weights(alone))
    assert not alone.metrics.exists()
    followed = edited(tiny, base, tmp_path / "then", *THEN)
    manifest = json.loads(followed.manifest.read_text())
    assert (manifest["start"], manifest["objective"], manifest["weights"]) == ("edit", "prune+unseen", "ema")
    assert manifest["edited"] == json.loads(alone.manifest.read_text())["edited"]
    assert manifest["drawn"]["retain"] == 4 + 4 * config.training.batch_size
    assert [entry.by for entry in read_chain(followed.model).requests] == ["prune+unseen"]
    facts = [given_facts("it", run.model) for run in (alone, followed)]
    assert [(f["objective"], f["steps"]) for f in facts] == [("prune", 0), ("prune+unseen", 4)]
    plain = edited(tiny, base, tmp_path / "plain", *THEN[3:])
    moved = [(weights(run) - weights(alone)).norm() for run in (followed, plain)]
    assert 0 < moved[0] < 0.5 * moved[1]


def test_an_edit_with_steps_that_was_stopped_goes_on_bit_for_bit(tiny, base, tmp_path):
    settings = (*THEN, "finetune.checkpoint_every=2")
    whole = edited(tiny, base, tmp_path / "whole", *settings)
    expected = weights(whole)
    shutil.rmtree(whole.checkpoints / "step-00000004")
    shutil.rmtree(whole.model)
    write_json(whole.manifest, json.loads(whole.manifest.read_text()) | {"status": "running"})
    assert torch.equal(weights(edited(tiny, base, whole.path, *settings, resume=True)), expected)


def test_gradients_are_checkpointed_in_the_steps_and_not_in_the_edit(tiny, base, tmp_path):
    settings = ("edit.name=influence", "edit.iterations=2", "edit.items=4", *THEN[3:])
    kept = edited(tiny, base, tmp_path / "kept", *settings)
    anew = edited(tiny, base, tmp_path / "anew", *settings, "training.gradient_checkpointing=true")
    torch.testing.assert_close(weights(anew), weights(kept), rtol=1e-4, atol=1e-5)


def test_both_an_edit_and_the_steps_after_it_may_tune_a_copy(tiny, base, tmp_path):
    objective = "objective={name: orthogonal, variant: marginal, teacher_steps: 1, every: 1}"
    run = edited(tiny, base, tmp_path / "run", "edit.name=task-vector", "edit.steps=1", objective)
    copies = [ScoreModel.load(run.path / "teacher" / name / "model") for name in ("", "edit")]
    one, other = (torch.cat([p.flatten() for p in made.network.parameters()]) for made in copies)
    assert not torch.equal(one, other)


def test_training_from_random_weights_makes_no_edit(tiny, tmp_path):
    with pytest.raises(UserError, match=r"edit.name: 'prune' edits a trained model; use unlearn"):
        train(tiny("edit.name=prune"), tmp_path / "run", device="cpu")


def test_in_memory_it_is_the_edit_of_the_command_line(tiny, base, tmp_path):
    run = edited(tiny, base, tmp_path / "run", "edit.name=prune", "edit.items=4", "training.batch_size=8")
    model = ScoreModel.from_pretrained(base.path)
    request = msgm.ForgetRequest(labels=[3, 7])
    prune = EDITS.build({"name": "prune", "items": 4})
    made = msgm.edit(model, "digits", prune, request, batch_size=8, device="cpu")
    assert torch.equal(torch.cat([value.flatten() for value in made.network.state_dict().values()]), weights(run))
    assert [entry.by for entry in made.history().requests] == ["prune"]
    assert made.history().unknown is None
    assert prune.facts["changed_share"] > 0


def test_an_edit_is_refused_weights_to_train(tiny, base):
    model, request = ScoreModel.from_pretrained(base.path), msgm.ForgetRequest(labels=[3])
    with pytest.raises(UserError, match="^edit.trainable: an edit chooses the weights that it changes itself; leave"):
        msgm.edit(model, "digits", "influence", request, trainable=["conv_in.*"], device="cpu")
    with pytest.raises(UserError, match="^finetune.trainable: an edit chooses"):
        tiny("edit.name=prune", "finetune.trainable=['conv_in.*']")
    with pytest.raises(UserError, match="^rows.mine: training.trainable: an edit chooses"):
        tiny("rows.mine={start: edit, edit: {name: prune}, training: {trainable: ['conv_in.*']}}")


def test_weights_that_a_base_was_trained_without_are_edited_too(tiny, base, tmp_path):
    settings = ("edit.name=influence", "edit.iterations=2", "edit.items=4")
    run = edited(tiny, base, tmp_path / "run", *settings, "training.trainable=['conv_in.*']")
    assert torch.equal(weights(run), weights(edited(tiny, base, tmp_path / "all", *settings)))


def test_in_memory_data_of_another_shape_are_refused(base):
    model = replace(ScoreModel.from_pretrained(base.path), shape=(1, 9, 9))
    with pytest.raises(UserError, match="edit: the model makes items of shape"):
        msgm.edit(model, "digits", "prune", msgm.ForgetRequest(labels=[3]))


def test_the_users_own_edit_is_taken_as_it_is(base):
    class Own(Edit):
        name, data, card = "own", "forget", None

        def change(self, model, setup):
            with torch.no_grad():
                next(model.network.parameters()).zero_()

    model = ScoreModel.from_pretrained(base.path)
    made = msgm.edit(model, "digits", Own(), msgm.ForgetRequest(labels=[3]), device="cpu")
    assert not next(made.network.parameters()).any()
