"""Adapters: they start as nothing, are all that trains, and come to the same added to the weights as beside them."""

import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

import msgm
from msgm.config import load_config
from msgm.diffusion import ScoreModel
from msgm.errors import UserError
from msgm.generator.facts import given_facts
from msgm.objectives import Mixed, Obtuse, SalUn
from msgm.reading import read_json
from msgm.runs import Run
from msgm.settings import read_settings
from msgm.traces import traces, verify
from msgm.training import Trainer, train, unlearn
from msgm.training.adapters import plain
from msgm.training.checkpoints import checkpoints, raw_and_averaged
from msgm.training.run import load_data
from tests.conftest import TINY

pytest.importorskip("peft")

SAVED = "adapter_model.safetensors"
RANK_4 = "finetune.adapter={rank: 4, alpha: 6}"
HOOKS = "objective={name: obtuse, every: 2, alpha: 0.5, combine: agem, replay: 24, anchor: {by: fisher, items: 8}}"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Run:
    return train(load_config(None, TINY), tmp_path_factory.mktemp("base") / "run", device="cpu")


ANSWERS = ["objective.name=redirect", RANK_4, "finetune.lr=2e-2", "finetune.keep_every=6"]


@pytest.fixture(scope="module")
def forgot(base, tmp_path_factory) -> Run:
    """The base, made to forget with an adapter."""
    return unlearn(load_config(None, [*TINY, *ANSWERS]), base.path, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def trainer(base, tiny, tmp_path):
    """Make a trainer of the base with an adapter and an objective that may be any object."""

    def make(objective, *overrides: str) -> Trainer:
        config = tiny(RANK_4, *overrides)
        dataset, split = load_data(config)
        model = ScoreModel.load(base.model)
        return Trainer(model, objective, dataset, split.train, config.finetuning(), 0, Run(tmp_path / "run"), "cpu")

    return make


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.01, 0.2, 0.5, 0.9])


def test_reports_say_which_weights_were_trained(forgot, base):
    assert given_facts("it", forgot.model)["settings"]["training.adapter"] == {
        "rank": 4,
        "alpha": 6.0,
        "targets": ["*"],
    }
    assert "training.adapter" not in given_facts("it", base.model)["settings"]


def test_the_start_is_bit_for_bit_the_base(trainer):
    made = trainer(Obtuse())
    started = made.base.eps(*inputs())
    assert made.model is not made.base
    assert torch.equal(made.model.eps(*inputs()), started)
    assert torch.equal(plain(made.model, made.base).eps(*inputs()), started)


def test_the_adapter_alone_is_trained_averaged_and_given_moments(trainer):
    made = trainer(Obtuse(every=1))
    before = {name: weight.detach().clone() for name, weight in made.model.network.named_parameters()}
    of_base = {name: weight.detach().clone() for name, weight in made.base.network.named_parameters()}
    made.train()
    after = dict(made.model.network.named_parameters())
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    low_rank = {name for name in after if ".lora_" in name}
    assert moved == low_rank == set(made.update.weights) == set(made.state.ema.names)
    assert all(torch.equal(weight, of_base[name]) for name, weight in made.base.network.named_parameters())
    state = load_file(checkpoints(made.run.checkpoints)[-1] / "optimiser.safetensors")
    assert {name.partition("/")[2] for name in state} == low_rank


def test_weights_with_the_adapter_added_give_what_the_adapted_network_gives(trainer):
    made = trainer(Obtuse(every=1), "finetune.lr=2e-2")
    made.train()
    with made.state.ema.applied():
        beside = made.model.eps(*inputs())
    added = made.result()
    assert added.network.state_dict().keys() == made.base.network.state_dict().keys()
    assert (added.eps(*inputs()) - beside).abs().max() < 1e-5
    assert (made.base.eps(*inputs()) - beside).abs().max() > 1e-2


def test_peft_puts_the_saved_adapter_on_the_base_and_takes_it_off_again(base, forgot):
    from diffusers import UNet2DModel
    from peft import PeftModel

    assert {path.name for path in forgot.adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    of_base, of_run = (UNet2DModel.from_pretrained(run.model / "unet").eval() for run in (base, forgot))
    x, t = inputs()
    started = of_base(x, 999 * t).sample
    loaded = PeftModel.from_pretrained(of_base, forgot.adapter).eval()
    assert (loaded(x, 999 * t).sample - of_run(x, 999 * t).sample).abs().max() < 1e-5
    assert (started - of_run(x, 999 * t).sample).abs().max() > 1e-2
    with loaded.disable_adapter():
        assert torch.equal(loaded(x, 999 * t).sample, started)


def test_an_mlp_has_adapters_too(tmp_path):
    from peft import PeftModel

    overrides = ["data={name: gaussians}", "network={name: mlp, width: 16}", "request={labels: [1]}"]
    overrides += ["training={steps: 4, batch_size: 16, trackers: []}", "objective={name: redirect, bank: 50}"]
    config = load_config({}, [*overrides, "finetune={adapter: {rank: 2}, lr: 0.02}"])
    source = train(config, tmp_path / "base", device="cpu")
    run = unlearn(config, source.path, tmp_path / "run", device="cpu")
    started, made = ScoreModel.load(source.model), ScoreModel.load(run.model)
    x, t = torch.randn(5, 2), torch.linspace(0.1, 0.9, 5)
    assert not torch.allclose(started.eps(x, t), made.eps(x, t))
    loaded = PeftModel.from_pretrained(started.network, run.adapter)
    assert torch.allclose(loaded(x, started.process.label(t)), made.network(x, started.process.label(t)), atol=1e-5)


def test_targets_choose_layers_and_one_that_fits_none_is_refused(trainer):
    made = trainer(Obtuse(), "finetune.adapter.targets=['mid_block*', conv_out]")
    assert {name.split(".")[1] for name in made.update.weights} == {"mid_block", "conv_out"}
    shapes = {tuple(weight.shape)[1:] for name, weight in made.update.weights.items() if "lora_A" in name}
    assert len(shapes) > 1  # of linear and of convolutional layers
    with pytest.raises(UserError, match=r"^training.adapter.targets: 'conv_ou' fits the name of none .* 'conv_out'"):
        trainer(Obtuse(), "finetune.adapter.targets=[conv_ou]")


def test_a_penalty_is_of_the_weights_with_the_adapter_added(trainer):
    made = trainer(Obtuse(every=1), "finetune.weights=raw", "finetune.lr=1e-2")
    made.train()
    added, penalised = dict(made.result().network.named_parameters()), made.update.penalised
    assert set(penalised) == {name for name in added if name.endswith(".weight") and added[name].dim() > 1}
    for name, weight in penalised.items():
        assert torch.equal(weight, added[name])
        assert weight.requires_grad


def test_an_anchor_holds_an_adapter_near_the_base(base, tiny, tmp_path):
    started, moved = ScoreModel.load(base.model).network.state_dict(), []
    for weight in (0, 100):
        anchor = f"objective={{name: obtuse, every: 1, alpha: 0.5, anchor: {{by: identity, weight: {weight}}}}}"
        run = unlearn(tiny(anchor, RANK_4), base.path, tmp_path / str(weight), device="cpu")
        state = ScoreModel.load(run.model).network.state_dict()
        moved.append(sum(float((state[name] - started[name]).square().sum()) for name in started))
    assert 0 < moved[1] < 0.7 * moved[0]


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("gradient_checkpointing=true", 0),
        ("precision=bf16", 0.05),
        pytest.param("compile=true", 0.01, marks=pytest.mark.slow),
    ],
)
def test_an_adapter_trained_in_less_memory_or_time_is_the_same_or_close(base, tiny, tmp_path, setting, error):
    few = [HOOKS, "finetune.steps=2", "finetune.lr=1e-2"]
    plainly, otherwise = (
        load_file(unlearn(tiny(*few, RANK_4, *more), base.path, tmp_path / name, device="cpu").adapter / SAVED)
        for name, more in (("plain", []), ("other", [f"finetune.{setting}"]))
    )
    one, other = (torch.cat([found[name].flatten() for name in plainly]) for found in (plainly, otherwise))
    assert (one - other).norm() <= error * one.norm()
    assert any(tensor.any() for name, tensor in plainly.items() if "lora_B" in name)


def test_a_resume_with_hooks_is_bitwise(base, tiny, tmp_path):
    config = tiny(HOOKS, RANK_4, "finetune.checkpoint_every=3")
    run = unlearn(config, base.path, tmp_path / "run", device="cpu")
    newest = checkpoints(run.checkpoints)[-1]
    files = [*newest.glob("*.safetensors"), *run.model.rglob("*.safetensors"), *run.adapter.glob("*.safetensors")]
    made = {path: path.read_bytes() for path in files}
    assert len(made) == 5
    for folder in (newest, run.adapter):
        shutil.rmtree(folder)
    run.manifest.unlink()
    unlearn(config, base.path, run.path, resume=True, device="cpu")
    assert {path: path.read_bytes() for path in files} == made


def test_weights_kept_on_the_way_are_those_of_a_plain_network(forgot):
    model = load_file(forgot.model / "unet" / "diffusion_pytorch_model.safetensors")
    kept = load_file(forgot.course / "step-00000006.safetensors")
    raw, averaged = raw_and_averaged(checkpoints(forgot.checkpoints)[-1])
    for found in (kept, averaged):
        assert found.keys() == {f"unet.{name}" for name in model}
        assert all(torch.equal(found[f"unet.{name}"], model[name]) for name in model)
    assert raw.keys() == averaged.keys()
    assert not torch.equal(raw["unet.conv_out.weight"], averaged["unet.conv_out.weight"])


def test_the_run_says_which_share_of_the_weights_was_trained(forgot):
    found = read_json(forgot.manifest)["found"]["trained_share"]
    low_rank = load_file(forgot.adapter / "adapter_model.safetensors").values()
    trained, own = sum(weight.numel() for weight in low_rank), ScoreModel.load(forgot.model).parameter_count()
    assert found == trained / (trained + own)
    assert read_json(forgot.manifest)["parameters"] == own


def test_the_adapter_is_registered_and_sealed(forgot, tmp_path):
    copied = shutil.copytree(forgot.path, tmp_path / "run")
    assert copied / "adapter" in {trace.path for trace in traces(copied)}
    (copied / "adapter" / "adapter_model.safetensors").write_bytes(b"other")
    assert any("adapter_model.safetensors is not as it was written" in fault for fault in verify(copied)[1])


def test_fit_gives_a_plain_model_and_keeps_the_adapter_beside_its_checkpoints(base, tmp_path):
    model, request = ScoreModel.load(base.model), msgm.ForgetRequest(labels=[3, 7])
    given = {"steps": 3, "batch_size": 16, "lr": 1e-2, "adapter": {"rank": 2}}
    made = msgm.fit(model, "digits", "unseen", request, device="cpu", checkpoints=tmp_path / "kept", **given)
    assert made.network.state_dict().keys() == model.network.state_dict().keys()
    assert made.parameter_count() == model.parameter_count()
    assert not torch.equal(made.eps(*inputs()), model.eps(*inputs()))
    assert (tmp_path / "kept" / "adapter" / "adapter_config.json").is_file()


def test_a_teacher_is_tuned_whole_as_without_an_adapter(trainer):
    made = trainer(Obtuse())
    teacher = made._tune_on_forget(1)
    assert not (made.run.path / "teacher" / "adapter").exists()
    assert not torch.equal(teacher.eps(*inputs()), made.base.eps(*inputs()))


class Still(Mixed):
    """An objective of a plugin that lets no weight of the last layer change."""

    name = "still"

    def forget_loss(self, predicted, forget):
        return predicted.flatten(1).mean(1)

    def update_mask(self):
        return {"unet.conv_out.weight": torch.zeros(1, dtype=torch.bool)}


@pytest.mark.parametrize("objective", [SalUn(), Still()])
def test_a_mask_of_single_weights_is_refused(trainer, objective):
    with pytest.raises(UserError, match=f"^training.adapter: {objective.name} has a mask of single weights"):
        trainer(objective).train()


def test_a_model_with_random_weights_is_refused_before_anything_is_written(tiny, tmp_path):
    refused = "^training.adapter: an adapter is of a trained model, and this one starts from random weights"
    with pytest.raises(UserError, match=refused):
        train(tiny("training.adapter={}"), tmp_path / "run", device="cpu")
    with pytest.raises(UserError, match=refused):
        msgm.compare(tiny("training.adapter={}"), tmp_path / "compare", device="cpu")
    assert not (tmp_path / "compare").exists()
    with pytest.raises(UserError, match=refused):
        msgm.fit(ScoreModel.new(channels=[8]), "digits", device="cpu", steps=1, adapter={})
    with pytest.raises(UserError, match="^rows.x: training.adapter: an adapter is of a trained model, and the row has"):
        tiny("rows.x={start: scratch, objective: {name: unseen}, training: {adapter: {}}}")


def test_an_edit_other_weights_to_train_and_bad_numbers_are_refused(tiny, base):
    with pytest.raises(UserError, match="^finetune.adapter: an edit chooses the weights"):
        tiny("edit.name=prune", "finetune.adapter={}")
    with pytest.raises(UserError, match="^rows.x: training.adapter: an edit chooses the weights"):
        tiny("rows.x={start: edit, edit: {name: prune}, training: {adapter: {}}}")
    with pytest.raises(UserError, match="^edit.adapter: an edit chooses the weights"):
        msgm.edit(ScoreModel.load(base.model), "digits", "prune", msgm.ForgetRequest(labels=[3]), adapter={})
    with pytest.raises(UserError, match="^training.adapter: steps that follow an edit train the edited weights"):
        overrides = ["edit.name=prune", "objective.name=unseen", "training.adapter={}"]
        unlearn(tiny(*overrides), base.path, base.path.parent / "edited", device="cpu")
    with pytest.raises(UserError, match="^finetune.trainable: it and adapter each say which weights train"):
        tiny("finetune={adapter: {}, trainable: ['*']}")
    with pytest.raises(UserError, match="^finetune.adapter.rank must be at least 1, got 0"):
        tiny("finetune.adapter.rank=0")


def test_without_peft_an_adapter_is_refused_before_anything_is_written(tiny, base, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    config = tiny("objective.name=redirect", RANK_4)  # a config can be read without it
    message = r"^training.adapter: an adapter needs peft, which is not installed: pip install 'msgm\[adapters\]'."
    with pytest.raises(UserError, match=message):
        msgm.compare(config, tmp_path / "compare", device="cpu")
    with pytest.raises(UserError, match=message):
        unlearn(config, base.path, tmp_path / "run", device="cpu")
    assert not (tmp_path / "compare").exists()


def test_a_row_changes_one_number_of_the_adapter_that_all_rows_have():
    config = load_config(read_settings("digits/vp"), ["finetune.adapter.targets=['conv_*']"])
    changed = load_config(
        read_settings("digits/vp"),
        [
            "finetune.adapter.targets=['conv_*']",
            "rows.redirect.training.adapter.rank=16",
            "rows.obtuse.training.adapter=null",
        ],
    )
    assert config.training.adapter is None
    found = [changed.row_training(changed.rows[name]).adapter for name in ("redirect", "unseen", "obtuse")]
    assert [(a.rank, a.targets) if a else None for a in found] == [(16, ["conv_*"]), (8, ["conv_*"]), None]
    again = load_config(changed.to_dict())
    assert again.row_training(again.rows["redirect"]) == changed.row_training(changed.rows["redirect"])
