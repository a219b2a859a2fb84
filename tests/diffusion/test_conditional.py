"""Class-conditional networks: what they read, how they are saved, and that diffusers' own are read and agree."""

import json
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DiTTransformer2DModel, UNet2DModel

from msgm.diffusion import DDPM, Condition, ScoreModel
from msgm.errors import UserError
from msgm.objectives import Standard, noised
from tests.diffusion.test_model import UNET, contents

DIT = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 1, "num_layers": 2, "sample_size": 8}
SETTINGS = {
    "unet": {"channels": [8], "mid_attention": False},
    "dit": {"heads": 2, "head_dim": 8, "layers": 2},
    "mlp": {"width": 16, "depth": 1},
}


def model(name, classes=3, seed=0, process="ddpm"):
    shape = (2,) if name == "mlp" else (1, 8, 8)
    made = ScoreModel.new({"name": name} | SETTINGS[name] | {"classes": classes}, process, shape, seed)
    for weights in made.network.parameters():  # the authors' zeros of a transformer would hide everything
        torch.nn.init.normal_(weights, std=0.1, generator=torch.Generator().manual_seed(seed + weights.numel()))
    made.network.eval()
    return made


def some(made, count=4):
    x = torch.randn(count, *made.shape, generator=torch.Generator().manual_seed(3))
    return x, torch.linspace(0.2, 0.9, count)


def labels(*numbers):
    return Condition(torch.tensor(numbers))


NAMES = pytest.mark.parametrize("name", ["unet", "dit", "mlp"])


@NAMES
@torch.no_grad()
def test_each_row_reads_its_own_label(name):
    made = model(name)
    x, t = some(made)
    whole = made.eps(x, t, labels(0, 1, 2, -1))
    for row, label in enumerate([0, 1, 2, -1]):
        torch.testing.assert_close(made.eps(x, t, Condition.of(label, 4))[row], whole[row])
    same = made.eps(x[:1].expand_as(x), t[:1].expand(4), labels(0, 1, 2, -1)).flatten(1)
    assert torch.pdist(same).min() > 1e-4


@NAMES
@torch.no_grad()
def test_nothing_asked_is_the_null_condition(name):
    made = model(name)
    x, t = some(made)
    assert torch.equal(made.eps(x, t), made.eps(x, t, labels(-1, -1, -1, -1)))
    assert torch.equal(made.eps(x, t), made.eps(x, t, labels(0, 1, 2, 0).dropped(torch.ones(4, dtype=torch.bool))))


def test_an_unconditional_model_can_be_asked_for_nothing_when_it_was_read(tmp_path):
    model("unet", classes=0).save(tmp_path)
    again = ScoreModel.load(tmp_path)
    assert (again.network.classes, again.network.has_null) == (0, True)


@NAMES
def test_a_saved_model_knows_its_classes(name, tmp_path):
    made = model(name)
    made.save(tmp_path / "one")
    again = ScoreModel.load(tmp_path / "one")
    again.save(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (again.network.classes, again.network.has_null) == (3, True)
    again.network.eval()
    x, t = some(made)
    for asked in (None, labels(0, 2, -1, 1)):
        assert torch.equal(again.eps(x, t, asked), made.eps(x, t, asked))


@NAMES
def test_training_moves_the_embeddings_asked_for(name):
    made = model(name)
    x0, t = some(made)
    batch = noised(made.process, x0, t, torch.randn_like(x0), condition=labels(0, 1, 1, -1))
    (term,) = Standard().terms(made.eps, batch, None).values()
    term.values.mean().backward()
    tables = [p.grad for n, p in made.network.named_parameters() if "class_emb" in n or "embed_class" in n]
    tables += [p.grad for n, p in made.network.named_parameters() if "embedding_table" in n]
    assert tables
    for table in tables:
        assert table.abs().sum(1).gt(0).tolist() == [True, True, False, True]


@NAMES
def test_labels_that_it_does_not_know_are_refused(name):
    network = model(name).network
    network.check_condition(labels(0, 2, -1))
    with pytest.raises(UserError, match="knows labels 0 to 2.*asked for 3"):
        network.check_condition(labels(0, 3))
    with pytest.raises(UserError, match="was asked for an embedding"):
        network(*some(model(name), 2), Condition(embedding=torch.zeros(2, 1, 4)))


def test_a_transformer_drops_no_labels_of_its_own_in_training():
    made = model("dit")
    made.network.train()
    x, t = some(made)
    asked = labels(0, 1, 2, 0)
    first = made.eps(x, t, asked)
    assert all(torch.equal(made.eps(x, t, asked), first) for _ in range(20))


def test_an_unconditional_transformer_has_the_null_class_alone():
    made = model("dit", classes=0)
    x, t = some(made)
    assert made.eps(x, t).shape == x.shape
    with pytest.raises(UserError, match="unconditional"):
        made.eps(x, t, labels(0, 0, 0, 0))


@pytest.mark.parametrize(("name", "shape"), [("dit", (1, 8, 6)), ("dit", (2,)), ("dit", (1, 7, 7))])
def test_shapes_that_a_transformer_cannot_cut_are_refused(name, shape):
    with pytest.raises(UserError, match="square|divide"):
        ScoreModel.new(name, "vp", shape)


def test_an_unconditional_unet_is_what_it_was():
    made = model("unet", classes=0)
    assert made.network.unet.config.num_class_embeds is None
    assert not any("class" in name for name, _ in made.network.named_parameters())


def foreign(folder, **changes):
    torch.manual_seed(0)
    DDPMPipeline(UNet2DModel(**UNET | changes), DDPMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder


def test_a_conditional_unet_of_another_make_is_read_with_its_labels(tmp_path):
    made = ScoreModel.load(foreign(tmp_path / "foreign", num_class_embeds=3))
    made.network.eval()
    x, t = some(made, 3)
    asked = torch.tensor([0, 1, 2])
    with torch.no_grad():
        theirs = made.network.unet(x, made.process.label(t), asked).sample
        torch.testing.assert_close(made.eps(x, t, Condition(asked)), theirs)
    assert made.network.classes == 3
    for unlabelled in (None, labels(0, -1, 1)):
        with pytest.raises(UserError, match="no null class"):
            made.eps(x, t, unlabelled)
    with pytest.raises(UserError, match="no null class"):
        made.network.check_condition(labels(0, -1))


def test_the_last_class_of_another_make_can_be_called_the_null_one(tmp_path):
    made = ScoreModel.load(foreign(tmp_path / "foreign", num_class_embeds=3))
    made.network.last_class_is_null()
    made.save(tmp_path / "ours")
    again = ScoreModel.load(tmp_path / "ours")
    again.network.eval()
    assert (again.network.classes, again.network.has_null) == (2, True)
    x, t = some(again, 2)
    with torch.no_grad():
        theirs = again.network.unet(x, again.process.label(t), torch.tensor([2, 2])).sample
        torch.testing.assert_close(again.eps(x, t), theirs)
    again.network.last_class_is_null()
    assert again.network.classes == 2


def test_a_conditional_unet_goes_back_to_diffusers_whole(tmp_path):
    ScoreModel.load(foreign(tmp_path / "foreign", num_class_embeds=3)).save(tmp_path / "ours")
    theirs, ours = (DDPMPipeline.from_pretrained(tmp_path / name).unet for name in ("foreign", "ours"))
    kept = theirs.state_dict()
    assert all(torch.equal(weight, kept[name]) for name, weight in ours.state_dict().items())
    assert ours.config.num_class_embeds == 3


def test_no_pipeline_gives_a_unet_its_labels():
    with pytest.raises(UserError, match="no pipeline that gives labels"):
        model("unet").to_pipeline()


def ddim(body, scheduler, x, asked, steps):
    """diffusers' DDIM by its own scheduler."""
    scheduler.set_timesteps(steps)
    for time in scheduler.timesteps:
        out = body(x, time.expand(len(x)), class_labels=asked).sample
        x = scheduler.step(out[:, : x.shape[1]], time, x, eta=0.0).prev_sample
    return x


def wide(folder, name):
    """A folder of a network that learns its variance."""
    torch.manual_seed(0)
    if name == "unet":
        body = UNet2DModel(**UNET | {"out_channels": 2}, num_class_embeds=3)
    else:
        body = DiTTransformer2DModel(**DIT, out_channels=2, num_embeds_ada_norm=3)
    body.save_pretrained(folder / ("unet" if name == "unet" else "transformer"))
    DDIMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    return body.eval()


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_learned_variance_is_kept_and_the_mean_used(name, tmp_path, capsys):
    body = wide(tmp_path / "foreign", name)
    made = ScoreModel.load(tmp_path / "foreign")
    assert "learns its variance; msgm uses and trains its mean" in capsys.readouterr().out
    made.network.eval()
    x, t = some(made, 2)
    asked = torch.tensor([2, 0])
    with torch.no_grad():
        theirs = body(x, made.process.label(t), class_labels=asked).sample
        torch.testing.assert_close(made.eps(x, t, Condition(asked)), theirs[:, :1])
    made.save(tmp_path / "ours")
    again = ScoreModel.load(tmp_path / "ours")
    kept = body.state_dict()
    assert all(torch.equal(weight, kept[key]) for key, weight in again.network.body.state_dict().items())
    assert again.network.learns_variance
    assert json.loads((tmp_path / "ours/scheduler/scheduler_config.json").read_text())["_class_name"] == "DDIMScheduler"


def test_a_pipeline_object_with_a_transformer_is_read(tmp_path):
    body = wide(tmp_path / "foreign", "dit")
    made = ScoreModel.from_pretrained(SimpleNamespace(transformer=body, scheduler=DDIMScheduler()))
    assert (made.network.name, made.network.classes, made.shape) == ("dit", 3, (1, 8, 8))
    assert made.process == DDPM(betas=tuple(DDIMScheduler().betas.double().tolist()))


def test_a_model_card_says_what_can_be_asked_for_and_what_is_not_used(tmp_path):
    wide(tmp_path / "foreign", "dit")
    ScoreModel.from_pretrained(tmp_path / "foreign").save_pretrained(tmp_path / "ours")
    text = (tmp_path / "ours/README.md").read_text()
    assert "condition=0" in text
    assert "`condition`, 0 to 2" in text
    assert "puts out a variance" in text
    assert "unconditional-image-generation" not in text
    assert "DiTPipeline" in text
    model("mlp").save_pretrained(tmp_path / "points")
    assert "0 to 2" in (tmp_path / "points/README.md").read_text()


def test_a_pipeline_with_a_learned_variance_samples_as_the_library_s():
    torch.manual_seed(0)
    scheduler = DDPMScheduler(variance_type="learned_range")
    theirs = DDPMPipeline(UNet2DModel(**UNET | {"out_channels": 2}).eval(), scheduler)
    ours = ScoreModel.from_pretrained(theirs).to_pipeline()
    images = [
        pipeline(2, torch.Generator().manual_seed(7), num_inference_steps=4, output_type="pt").images
        for pipeline in (theirs, ours)
    ]
    assert torch.equal(*images)
