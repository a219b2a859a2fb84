import json
import os
import shutil

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    PNDMPipeline,
    PNDMScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file
from torch import nn

from msgm.diffusion import DDPM, NETWORKS, VE, VP, SamplingSettings, ScoreModel, SubVP, sample
from msgm.diffusion import model as model_module
from msgm.errors import UserError
from msgm.runs import find_model
from tests.helpers import PROCESS_CASES, Counted, Mixture

CASES = pytest.mark.parametrize("process", PROCESS_CASES.values(), ids=PROCESS_CASES)
SHAPES = {"unet": (1, 8, 8), "mlp": (2,)}
TINY = {"unet": {"channels": [8, 16]}, "mlp": {"width": 16, "depth": 1, "frequencies": 4}}
PARTS = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
}
UNET = {
    **PARTS,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}


def tiny(process, name="unet", shape=None, seed=0):
    torch.manual_seed(seed)
    shape = shape or SHAPES[name]
    return ScoreModel(NETWORKS.build({"name": name, **TINY[name]}).build(shape), process, shape)


def some(model, count=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, *model.shape, generator=g), torch.tensor([0.01, 0.4, 1.0])[:count]


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def foreign(folder, scheduler=None, **changes):
    torch.manual_seed(0)
    scheduler = scheduler or DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    DDPMPipeline(UNet2DModel(**UNET | changes), scheduler).save_pretrained(folder)
    return folder


@CASES
@pytest.mark.parametrize("name", ["unet", "mlp"])
def test_a_saved_model_loads_as_it_was(process, name, tmp_path):
    model = tiny(process, name)
    model.save(tmp_path / "model")
    loaded = ScoreModel.load(tmp_path / "model")
    assert (loaded.process, loaded.shape, loaded.prediction) == (process, model.shape, "epsilon")
    x, t = some(model)
    model.network.eval(), loaded.network.eval()
    assert torch.equal(loaded.eps(x, t), model.eps(x, t))


@pytest.mark.parametrize(
    "process",
    [
        VE(sigma_min=0.1, sigma_max=20.0),
        VP(beta_max=10.0),
        SubVP(beta_min=0.2),
        DDPM(steps=40, schedule="scaled_linear"),
        DDPM(betas=(0.1, 0.2, 0.3)),
    ],
)
def test_settings_of_the_process_survive(process, tmp_path):
    tiny(process, "mlp").save(tmp_path / "model")
    assert ScoreModel.load(tmp_path / "model").process == process


@CASES
def test_a_second_save_writes_the_same_files(process, tmp_path):
    tiny(process).save(tmp_path / "one")
    ScoreModel.load(tmp_path / "one").save(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_no_path_of_the_machine_is_saved(tmp_path):
    tiny(VP()).save(tmp_path / "one")
    ScoreModel.load(tmp_path / "one").save(tmp_path / "two")
    assert not any(str(tmp_path).encode() in data for data in contents(tmp_path / "two").values())


def test_the_folder_holds_no_pickle(tmp_path):
    tiny(VP()).save(tmp_path / "model")
    assert {p.suffix for p in contents(tmp_path / "model")} == {".json", ".safetensors"}


@CASES
def test_score_denoise_and_eps_are_one_thing(process):
    model = tiny(process, "mlp")
    x, t = some(model)
    t = t * process.top
    eps = model.eps(x, t)
    signal, noise = process.signal(t)[:, None], process.noise(t)[:, None]
    torch.testing.assert_close(model.score(x, t), -eps / noise)
    torch.testing.assert_close(signal * model.denoise(x, t) + noise * eps, x, rtol=1e-4, atol=1e-4)


@CASES
def test_score_and_denoise_of_exact_data_are_the_gradient_and_the_posterior_mean(process):
    model = Mixture(process, [[-1.0, 0.5], [1.0, 0.2]], [0.4, 0.3], [1.0, 2.0])
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    x = torch.tensor([[0.4, -0.3], [0.1, 0.9]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.log_density(x, t).sum(), x)
    torch.testing.assert_close(model.score(x, t), gradient)
    for i in range(2):
        eps, weights = model.eps_nodes(x[i].detach(), t[i : i + 1])
        clean = (x[i].detach() - process.noise(t[i]) * eps) / process.signal(t[i])
        torch.testing.assert_close(model.denoise(x, t)[i].detach(), weights @ clean)


class Says(nn.Module):
    """Puts out what it is told, and records what it read."""

    def __init__(self, out):
        super().__init__()
        self.out, self.read = out, []

    def forward(self, x, label):
        self.read.append((x, label))
        return self.out


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("process", [VP(), DDPM()], ids=["vp", "ddpm"])
def test_every_prediction_type_gives_the_same_noise(process, prediction):
    x0, eps = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.01, 0.2, 0.7, 1.0], dtype=torch.float64)
    signal, noise = process.signal(t)[:, None], process.noise(t)[:, None]
    out = {"epsilon": eps, "v_prediction": signal * eps - noise * x0, "sample": x0}[prediction]
    model = ScoreModel(Says(out), process, (3,), prediction)
    x = signal * x0 + noise * eps
    torch.testing.assert_close(model.eps(x, t), eps)
    torch.testing.assert_close(model.denoise(x, t), x0, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.score(x, t), -eps / noise)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_prediction_types_agree_with_diffusers(prediction):
    scheduler = DDPMScheduler(prediction_type=prediction, clip_sample=False)
    x, out = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(0))
    model = ScoreModel(Says(out), DDPM(), (3,), prediction)
    for label in (0, 300, 999):
        expected = scheduler.step(out, label, x, generator=torch.Generator()).pred_original_sample
        ours = model.denoise(x, torch.tensor([(label + 1) / 1000]))
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_the_prediction_type_is_saved(prediction, tmp_path):
    model = tiny(DDPM(), "mlp")
    model.prediction = prediction
    model.save(tmp_path / "model")
    assert ScoreModel.load(tmp_path / "model").prediction == prediction


@CASES
def test_the_network_reads_scaled_input_and_label(process):
    network = Says(torch.zeros(3, 2))
    x, t = torch.ones(3, 2), torch.tensor([0.01, 0.5, 1.0])
    ScoreModel(network, process, (2,)).eps(x, t)
    ((read, label),) = network.read
    torch.testing.assert_close(read, x * process.input_scale(t)[:, None])
    torch.testing.assert_close(label, process.label(t))


def test_low_precision_networks_predict_in_float32():
    model = ScoreModel(Says(torch.zeros(2, 3, dtype=torch.bfloat16)), VP(), (3,))
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    assert model.eps(x, torch.tensor([0.1, 0.2])).dtype == torch.float32


@pytest.mark.parametrize("process", [VP(), DDPM(), DDPM(steps=100, schedule="squaredcos_cap_v2")])
def test_diffusers_loads_and_samples_a_saved_model(process, tmp_path):
    model = tiny(process)
    model.save(tmp_path / "model")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np")
    assert images.images.shape == (2, 8, 8, 1)
    x, t = some(model)
    model.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(pipeline.unet(x, process.label(t)).sample, model.eps(x, t))


def test_the_scheduler_of_a_ddpm_model_has_its_noise(tmp_path):
    process = DDPM(steps=100, schedule="squaredcos_cap_v2")
    tiny(process).save(tmp_path / "model")
    scheduler = DDPMPipeline.from_pretrained(tmp_path / "model").scheduler
    t = torch.arange(1, 101, dtype=torch.float64) / 100
    assert scheduler.config.num_train_timesteps == 100
    torch.testing.assert_close(scheduler.alphas_cumprod, (process.signal(t) ** 2).float(), rtol=1e-4, atol=1e-7)


def test_the_scheduler_of_a_vp_model_has_at_each_label_the_noise_of_that_label(tmp_path):
    process = VP()
    tiny(process).save(tmp_path / "model")
    config = json.loads((tmp_path / "model/scheduler/scheduler_config.json").read_text())
    t = torch.arange(1000, dtype=torch.float64) / 999
    t[0] = process.t_min
    kept = (1 - torch.tensor(config["trained_betas"], dtype=torch.float64)).cumprod(0)
    torch.testing.assert_close(kept, process.signal(t) ** 2, rtol=1e-10, atol=0)
    torch.testing.assert_close(1 - kept, process.noise(t) ** 2, rtol=1e-8, atol=0)
    torch.testing.assert_close(process.label(t)[1:], torch.arange(1.0, 1000.0).double())
    scheduler = DDPMPipeline.from_pretrained(tmp_path / "model").scheduler
    torch.testing.assert_close(scheduler.alphas_cumprod, kept.float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("process", [VE(), SubVP()], ids=["ve", "subvp"])
def test_processes_that_diffusers_lacks_get_no_pipeline(process, tmp_path):
    tiny(process).save(tmp_path / "model")
    assert not (tmp_path / "model/model_index.json").exists()
    assert not (tmp_path / "model/scheduler").exists()


def settings(scheduler):
    return {key: value for key, value in scheduler.config.items() if not key.startswith("_")}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_foreign_model_loads_and_goes_back_with_its_scheduler(prediction, tmp_path):
    scheduler = DDPMScheduler(200, beta_schedule="squaredcos_cap_v2", clip_sample=False, prediction_type=prediction)
    foreign(tmp_path / "foreign", scheduler)
    model = ScoreModel.load(tmp_path / "foreign")
    assert (model.shape, model.prediction, model.process.steps) == ((1, 8, 8), prediction, 200)
    t = torch.arange(1, 201, dtype=torch.float64) / 200
    torch.testing.assert_close((model.process.signal(t) ** 2).float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-7)

    model.save(tmp_path / "ours")
    ScoreModel.load(tmp_path / "ours").save(tmp_path / "again")
    for folder in ("ours", "again"):
        pipeline = DDPMPipeline.from_pretrained(tmp_path / folder)
        assert settings(pipeline.scheduler) == settings(scheduler)
        assert torch.equal(pipeline.scheduler.betas, scheduler.betas)
        original = DDPMPipeline.from_pretrained(tmp_path / "foreign").unet.state_dict()
        assert all(torch.equal(w, original[k]) for k, w in pipeline.unet.state_dict().items())


def test_a_foreign_model_predicts_what_diffusers_predicts(tmp_path):
    model = ScoreModel.load(foreign(tmp_path / "foreign"))
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "foreign")
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model.network.eval()
    with torch.no_grad():
        ours = model.eps(x, torch.tensor([0.001, 0.5]))
        theirs = pipeline.unet(x, torch.tensor([0, 499])).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"class_embed_type": "timestep"}, "reads its classes as 'timestep'"),
        ({"out_channels": 3}, "reads 1 channels and puts out 3"),
        ({"sample_size": None}, "sample_size"),
    ],
)
def test_models_that_cannot_be_unlearnt_are_refused(changes, says, tmp_path):
    foreign(tmp_path / "foreign", DDPMScheduler(), **changes)
    with pytest.raises(UserError, match=says):
        ScoreModel.load(tmp_path / "foreign")


def test_a_scheduler_without_signal_at_its_end_is_read_and_sampled_from_the_top(tmp_path):
    foreign(tmp_path / "foreign", DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction"))
    model = ScoreModel.load(tmp_path / "foreign")
    assert (model.process.betas[-1], model.process.at_top()[1] < 200) == (1, True)
    assert sample(model, 2, SamplingSettings(steps=3)).isfinite().all()
    model.save(tmp_path / "again")
    again = ScoreModel.load(tmp_path / "again")
    assert again.process == model.process
    assert again.scheduler["rescale_betas_zero_snr"] is True


def test_a_pipeline_of_another_kind_of_scheduler_is_refused(tmp_path):
    foreign(tmp_path / "foreign")
    file = tmp_path / "foreign/scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "ScoreSdeVeScheduler"}))
    with pytest.raises(UserError, match="ScoreSdeVeScheduler.*DDPMScheduler"):
        ScoreModel.load(tmp_path / "foreign")


@pytest.mark.parametrize(
    ("change", "says"), [({"network": "gan"}, "unknown network 'gan'"), ({"shape": [3, 8, 8]}, "shape")]
)
def test_a_description_that_does_not_fit_the_network_is_refused(change, says, tmp_path):
    tiny(VP()).save(tmp_path / "model")
    file = tmp_path / "model/process.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=says):
        ScoreModel.load(tmp_path / "model")


def test_a_text_conditional_unet_is_refused(tmp_path):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    UNet2DConditionModel(**PARTS, **blocks, cross_attention_dim=8, attention_head_dim=4).save_pretrained(
        tmp_path / "unet"
    )
    DDPMScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(UserError, match="UNet2DConditionModel"):
        ScoreModel.load(tmp_path)


@pytest.mark.parametrize("ours", [True, False])
def test_missing_weights_are_not_made_up(ours, tmp_path):
    folder = tmp_path / "model"
    tiny(VP()).save(folder) if ours else foreign(folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    kept = load_file(weights)
    del kept["conv_out.weight"]
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"conv_out\.weight"):
        ScoreModel.load(folder)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_a_model_is_a_user_error(exists, tmp_path):
    folder = tmp_path / "model"
    if exists:
        folder.mkdir()
    with pytest.raises(UserError, match="holds no model"):
        ScoreModel.load(folder)


WEIGHTS = {"unet": "unet/diffusion_pytorch_model.safetensors", "mlp": "mlp/model.safetensors"}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_truncated_weights_are_a_user_error(name, keep, tmp_path):
    tiny(VP(), name).save(tmp_path / "model")
    file = tmp_path / "model" / WEIGHTS[name]
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot read the model"):
        ScoreModel.load(tmp_path / "model")


def test_truncated_weights_of_a_foreign_model_are_a_user_error(tmp_path):
    foreign(tmp_path / "foreign")
    file = tmp_path / "foreign" / WEIGHTS["unet"]
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match="cannot read the model"):
        ScoreModel.load(tmp_path / "foreign")


@pytest.mark.parametrize("missing", ["unet", "unet/config.json", WEIGHTS["unet"]])
def test_a_folder_with_missing_files_is_a_user_error(missing, tmp_path):
    tiny(VP()).save(tmp_path / "model")
    path = tmp_path / "model" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError):
        ScoreModel.load(tmp_path / "model")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "process": {"name": "vp"}, "network": "gan"}'])
def test_a_damaged_description_is_a_user_error(text, tmp_path):
    tiny(VP()).save(tmp_path / "model")
    (tmp_path / "model/process.json").write_text(text)
    with pytest.raises(UserError):
        ScoreModel.load(tmp_path / "model")


def test_a_model_of_a_newer_format_is_refused(tmp_path):
    tiny(VP()).save(tmp_path / "model")
    file = tmp_path / "model/process.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="newer msgm"):
        ScoreModel.load(tmp_path / "model")


def test_28x28_with_four_levels_runs_and_comes_back(tmp_path):
    shape = (1, 28, 28)
    network = NETWORKS.build({"name": "unet", "channels": [8, 8, 8, 8]}).build(shape)
    model = ScoreModel(network, VP(), shape)
    model.save(tmp_path / "model")
    loaded = ScoreModel.load(tmp_path / "model")
    x, t = some(model, 2)
    model.network.eval(), loaded.network.eval()
    assert model.eps(x, t).shape == x.shape
    assert torch.equal(model.eps(x, t), loaded.eps(x, t))
    assert sample(loaded, 2, SamplingSettings(steps=2)).shape == (2, *shape)


def test_padding_is_zeros_below_and_right():
    network = NETWORKS.build({"name": "unet", "channels": [8, 8, 8]}).build((1, 6, 5)).eval()
    x = torch.randn(1, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(1, 1, 8, 8)
    padded[..., :6, :5] = x
    label = torch.ones(1)
    torch.testing.assert_close(network(x, label), network.unet(padded, label).sample[..., :6, :5])


@pytest.mark.parametrize(("name", "shape"), [("unet", (2,)), ("mlp", (1, 8, 8))])
def test_a_network_for_other_shapes_is_refused(name, shape):
    with pytest.raises(UserError, match=r"network\.name"):
        NETWORKS.build({"name": name}).build(shape)


def test_widths_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"network\.channels"):
        NETWORKS.build({"name": "unet", "channels": [8, 15], "groups": 4}).build((1, 8, 8))


@pytest.mark.parametrize("attention", [{}, {"channels": [4, 16], "attention": [8], "mid_attention": False}])
def test_a_head_wider_than_its_level_is_refused(attention):
    with pytest.raises(UserError, match=r"network\.head_dim must be at most .* 4, got 8"):
        NETWORKS.build({"name": "unet", "channels": [4]} | attention).build((1, 8, 8))


def test_attention_sits_at_the_resolutions_asked_for():
    network = NETWORKS.build({"name": "unet", "channels": [8, 8, 8], "attention": [8]}).build((1, 16, 16))
    assert network.unet.config.down_block_types == ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D")
    assert network.unet.config.up_block_types == ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")


def fail(*_, **__):
    raise OSError("disk full")


@pytest.mark.parametrize("step", ["weights", "description", "scheduler", "rename", "second rename"])
def test_an_error_while_saving_leaves_the_old_model_whole(step, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    tiny(VP(), seed=0).save(folder)
    before = contents(folder)
    other = tiny(VP(), seed=1)
    with monkeypatch.context() as patch:
        if step == "weights":
            patch.setattr(UNet2DModel, "save_pretrained", fail)
        elif step == "description":
            patch.setattr(model_module, "describe", fail)
        elif step == "scheduler":
            patch.setattr(DDPMScheduler, "save_pretrained", fail)
        else:
            replace, calls, at = os.replace, [], {"rename": 1, "second rename": 2}[step]
            patch.setattr(os, "replace", lambda *a: fail() if calls.append(a) or len(calls) == at else replace(*a))
        with pytest.raises(OSError, match="disk full"):
            other.save(folder)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    other.save(folder)
    assert contents(folder) != before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_saving_over_another_kind_of_model_leaves_nothing_of_it(tmp_path):
    tiny(VP()).save(tmp_path / "model")
    tiny(VE(), "mlp").save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["mlp", "process.json"]


def test_a_wrapped_network_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="Counted"):
        ScoreModel(Counted(), VP(), (2,)).save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_view_shares_everything_but_the_network():
    model = tiny(VP(), "mlp")
    view = model.with_network(Counted(2.0))
    x, t = some(model)
    torch.testing.assert_close(view.eps(x, t), 2 * x)
    assert (view.process, view.shape) == (model.process, model.shape)
    assert view.parameter_count() == 1
    assert model.parameter_count() == sum(p.numel() for p in model.network.parameters()) > 1


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(
            num_train_timesteps=300,
            steps_offset=1,
            set_alpha_to_one=False,
            clip_sample=False,
            timestep_spacing="trailing",
        ),
        DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"),
        PNDMScheduler(num_train_timesteps=400, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
    ],
    ids=["ddim", "ddim-zero-snr", "pndm"],
)
def test_a_pipeline_goes_out_as_what_it_came(scheduler, tmp_path):
    kind = {"DDIMScheduler": DDIMPipeline, "PNDMScheduler": PNDMPipeline}[type(scheduler).__name__]
    torch.manual_seed(0)
    kind(UNet2DModel(**UNET), scheduler).save_pretrained(tmp_path / "foreign")
    model = ScoreModel.load(tmp_path / "foreign")
    assert (model.process.steps, model.prediction) == (len(scheduler.betas), scheduler.config.prediction_type)
    model.save(tmp_path / "ours")
    ScoreModel.load(tmp_path / "ours").save(tmp_path / "again")
    for folder in ("ours", "again"):
        found = DiffusionPipeline.from_pretrained(tmp_path / folder)
        assert (type(found), type(found.scheduler)) == (kind, type(scheduler))
        assert settings(found.scheduler) == settings(scheduler)
        assert torch.equal(found.scheduler.betas, scheduler.betas)


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "2KB"}], ids=["whole", "sharded"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_variants_and_shards_are_read_in_float32(variant, shards, tmp_path, capsys):
    torch.manual_seed(0)
    network = UNet2DModel(**UNET)
    network = network.half() if variant else network
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path / "foreign", variant=variant, **shards)
    names = [path.name for path in (tmp_path / "foreign/unet").glob("*.safetensors")]
    assert (len(names) > 1, all("fp16" in name for name in names)) == (bool(shards), bool(variant))
    model = ScoreModel.load(tmp_path / "foreign")
    weights = model.network.unet.state_dict()
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(torch.equal(weights[name], weight.float()) for name, weight in network.state_dict().items())
    assert ("weights of fp16 only" in capsys.readouterr().out) == bool(variant)
    assert sample(model, 1, SamplingSettings(steps=2)).isfinite().all()


def test_plain_weights_stand_before_variants_and_several_variants_are_refused(tmp_path):
    foreign(tmp_path / "foreign")
    plain = tmp_path / "foreign" / WEIGHTS["unet"]
    for variant in ("fp16", "bf16"):
        shutil.copy(plain, plain.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    assert ScoreModel.load(tmp_path / "foreign").shape == (1, 8, 8)
    plain.unlink()
    with pytest.raises(UserError, match="weights of bf16, fp16; keep the files of one"):
        ScoreModel.load(tmp_path / "foreign")


@pytest.mark.parametrize(("kept", "says"), [(["unet", "unet_ema"], "unet and unet_ema"), (["unet_ema"], "unet_ema:")])
def test_a_training_checkpoint_is_refused_with_what_to_do(kept, says, tmp_path):
    for name in kept:
        UNet2DModel(**UNET).save_pretrained(tmp_path / "checkpoint" / name)
    assert find_model(tmp_path / "checkpoint") == tmp_path / "checkpoint"
    with pytest.raises(UserError, match=f"training checkpoint with {says}.*named unet.*scheduler_config.json"):
        ScoreModel.load(tmp_path / "checkpoint")


def test_weights_without_a_scheduler_are_refused_with_what_to_do_and_then_read(tmp_path):
    foreign(tmp_path / "foreign")
    shutil.move(tmp_path / "foreign/scheduler", tmp_path / "scheduler")
    (tmp_path / "foreign/model_index.json").unlink()
    with pytest.raises(UserError, match=r"no scheduler/scheduler_config\.json.*copy scheduler/"):
        ScoreModel.load(tmp_path / "foreign")
    shutil.move(tmp_path / "scheduler", tmp_path / "foreign/scheduler")
    assert ScoreModel.load(tmp_path / "foreign").shape == (1, 8, 8)
