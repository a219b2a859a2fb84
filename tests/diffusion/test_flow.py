"""Flow matching: its velocity and diffusers' are one thing, and models of it come from diffusers and go back."""

import json

import pytest
import torch
from diffusers import DDPMPipeline, DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler, UNet2DModel
from torch import nn

from msgm.diffusion import SAMPLERS, Condition, Flow, SamplingSettings, ScoreModel, log_likelihood, sample
from msgm.diffusion.samplers import Grid, Noise, sigma_space
from msgm.errors import UserError
from tests.diffusion.test_conditional import DIT
from tests.diffusion.test_model import UNET, contents
from tests.helpers import Mixture

MEANS, STDS = [[-1.0, 0.5], [1.0, 0.2]], [0.4, 0.3]


class Velocity(nn.Module):
    """The exact E[eps - x_0 | x_t] of a mixture, of what the network reads."""

    def __init__(self):
        super().__init__()
        self.exact = Mixture(Flow(), MEANS, STDS)
        self.seen = nn.Parameter(torch.zeros(1))

    def forward(self, x, label, condition=None):
        t = label.double() / 1000
        eps = self.exact.eps(x.double(), t, condition)
        return (eps - (x - t[:, None] * eps) / (1 - t[:, None])).to(x.dtype)


def velocity():
    return ScoreModel(Velocity(), Flow(), (2,), "flow_prediction")


def test_a_velocity_gives_the_exact_noise_score_and_posterior_mean():
    made = velocity()
    exact = made.network.exact
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(exact.log_density(x, t).sum(), x)
    torch.testing.assert_close(made.eps(x, t), exact.eps(x, t))
    torch.testing.assert_close(made.score(x, t), gradient)
    torch.testing.assert_close(made.denoise(x, t), exact.denoise(x, t))


@torch.no_grad()
def test_at_the_end_a_velocity_still_says_where_the_data_lie():
    made = velocity()
    t, x = torch.ones(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    made.network.forward = lambda x, label: x - torch.tensor([0.3, 0.2])
    torch.testing.assert_close(made.denoise(x, t), torch.tensor([[0.3, 0.2]] * 2).double())
    torch.testing.assert_close(made.eps(x, t), x)


def test_samples_of_a_velocity_are_those_of_its_noise():
    made, settings = velocity(), SamplingSettings("dpm++2m-sde", 12)
    ours = sample(made, 6, settings, condition=[0, 1, -1] * 2)
    exact = sample(made.network.exact, 6, settings, condition=[0, 1, -1] * 2)
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4)


def test_the_likelihood_of_a_velocity_is_the_density():
    made = velocity()
    x = made.network.exact.draw(5).float()
    t = torch.full((5,), Flow().t_min, dtype=torch.float64)
    for asked in (None, Condition(torch.tensor([0, 1, -1, 0, 1]))):
        near = made.network.exact.log_density(x, t, asked)
        found = log_likelihood(made, x, condition=asked)
        torch.testing.assert_close(found[near > -8], near[near > -8], rtol=0, atol=0.02)


def euler(body, scheduler, x, sigmas):
    scheduler.set_timesteps(sigmas=sigmas)
    for time in scheduler.timesteps:
        x = scheduler.step(body(x, time.expand(len(x))).sample, time, x).prev_sample
    return x


def test_ddim_is_the_library_s_euler_step():
    torch.manual_seed(0)
    body = UNet2DModel(**UNET).eval()
    made = ScoreModel.from_pretrained(_pipeline(body))
    made.network.eval()
    sigmas = [Flow().top, 0.8, 0.5, 0.3, 0.05]
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = euler(body, FlowMatchEulerDiscreteScheduler(), x, sigmas)
        grid = Grid(Flow(), [*(s / (1 - s) for s in sigmas), 0.0])
        noise = Noise(0, range(3), made.shape, made.device)
        y = x / (1 - sigmas[0])
        ours = SAMPLERS.entries["ddim"]().run(sigma_space(made), y, grid, noise, lambda state: None)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def _pipeline(body):
    return DDPMPipeline(body, FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0))


def test_a_model_of_another_make_comes_and_goes_with_its_scheduler(tmp_path):
    torch.manual_seed(0)
    _pipeline(UNet2DModel(**UNET)).save_pretrained(tmp_path / "foreign")
    made = ScoreModel.load(tmp_path / "foreign")
    assert (made.process, made.prediction) == (Flow(), "flow_prediction")
    made.save(tmp_path / "ours")
    ScoreModel.load(tmp_path / "ours").save(tmp_path / "again")
    assert contents(tmp_path / "ours") == contents(tmp_path / "again")
    for folder in ("foreign", "ours"):
        config = json.loads((tmp_path / folder / "scheduler/scheduler_config.json").read_text())
        assert (config["_class_name"], config["shift"]) == ("FlowMatchEulerDiscreteScheduler", 3.0)


def test_samples_of_its_pipeline_are_the_library_s():
    torch.manual_seed(0)
    theirs = _pipeline(UNet2DModel(**UNET).eval())
    ours = ScoreModel.from_pretrained(theirs).to_pipeline()
    images = [
        pipeline(2, torch.Generator().manual_seed(7), num_inference_steps=4, output_type="pt").images
        for pipeline in (theirs, ours)
    ]
    assert torch.equal(*images)


def test_a_transformer_of_flow_matching_is_read(tmp_path):
    torch.manual_seed(0)
    body = DiTTransformer2DModel(**DIT, num_embeds_ada_norm=4).eval()
    body.save_pretrained(tmp_path / "transformer")
    FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    made = ScoreModel.load(tmp_path)
    made.network.eval()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.25, 0.75])
    with torch.no_grad():
        v = body(x, timestep=1000 * t, class_labels=torch.tensor([3, 4])).sample
        found = made.eps(x, t, Condition(torch.tensor([3, -1])))
    torch.testing.assert_close(found, x + (1 - t[:, None, None, None]) * v)


def test_models_made_for_it_put_out_the_velocity(tmp_path):
    made = ScoreModel.new("mlp", "flow", shape=(2,))
    assert made.prediction == "flow_prediction"
    made.save(tmp_path / "model")
    assert ScoreModel.load(tmp_path / "model").prediction == "flow_prediction"
    assert made.sample(3, steps=4).isfinite().all()


def test_time_from_noise_to_data_is_refused():
    with pytest.raises(UserError, match="invert_sigmas"):
        ScoreModel.from_pretrained(
            DDPMPipeline(UNet2DModel(**UNET), FlowMatchEulerDiscreteScheduler(invert_sigmas=True))
        )


def test_a_network_that_diffusers_would_not_sample_gets_no_pipeline():
    made = ScoreModel.new("unet", "flow", channels=[8])
    made.prediction = "epsilon"
    with pytest.raises(UserError, match="no pipeline for process 'flow'"):
        made.to_pipeline()
