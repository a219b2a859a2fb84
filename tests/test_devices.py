"""Names of devices, and work on a device that has no float64. No such device is needed: one is pretended."""

import pytest
import torch

import msgm
from msgm import devices
from msgm.devices import chosen_device, precise
from msgm.diffusion import SAMPLERS, LikelihoodSettings, SamplingSettings, negative_log_likelihood
from msgm.diffusion.variational import variational_bound
from msgm.evaluation.metrics.inception_score import inception_score
from msgm.evaluation.rates import total
from msgm.evaluation.reference import Moments
from tests.pretended import PRETENDED, Pretending

LEVELS = torch.arange(12).view(6, 2) % 8


@pytest.fixture
def pretended(monkeypatch):
    """A device without float64, inside ``Pretending``."""
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", ("meta",))
    return PRETENDED


def model(process="vp"):
    return msgm.ScoreModel.new("mlp", process, shape=(2,), seed=0)


@pytest.mark.parametrize(("name", "part"), [("gpu", "cuda:N"), ("cdua", "Did you mean 'cuda'?"), ("cuda:x", "unknown")])
def test_an_unknown_device_is_refused(name, part):
    with pytest.raises(msgm.UserError, match=f"--device {name}: unknown device; known are auto, cpu, cuda") as refusal:
        chosen_device(name)
    assert part in str(refusal.value)


@pytest.mark.parametrize("name", ["mps", "cuda", "cuda:0"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(msgm.UserError, match=f"--device {name}: no .* device is available here"):
        chosen_device(name)


def test_auto_takes_cuda_and_never_mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == torch.device("cpu")
    assert chosen_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert chosen_device("auto") == torch.device("cuda")


def test_a_gpu_by_number_is_the_one_that_libraries_take(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert chosen_device("cuda:1") == torch.device("cuda:1")
    assert taken == [1]
    with pytest.raises(msgm.UserError, match="--device cuda:2: there is no such CUDA device here; they are cuda:0 to"):
        chosen_device("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(msgm.UserError, match="--device cuda:1: every process of a launch has a GPU of its own"):
        chosen_device("cuda:1")


def test_the_command_line_knows_the_names(capsys):
    from msgm.cli import parser

    assert parser().parse_args(["sample", "run", "--device", "cuda:1"]).device == "cuda:1"
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["sample", "run", "--device", "tpu"])
    assert end.value.code == 2
    assert "mps" in capsys.readouterr().err


def test_float64_is_refused_where_it_is_pretended_away(pretended):
    with Pretending():
        tensor = torch.ones(3).to(pretended)
        with pytest.raises(TypeError, match="no float64"):
            tensor.double()
        with pytest.raises(TypeError, match="no float64"):
            torch.zeros(3, dtype=torch.float64, device=pretended)
        with pytest.raises(RuntimeError, match="same device"):
            tensor + torch.ones(3)
    assert precise(tensor).dtype == torch.float64
    assert precise(tensor).device.type == "cpu"


@pytest.mark.parametrize("exact_dims", [0, 16])
@pytest.mark.parametrize("solver", ["heun", "rk4", "dopri5"])
def test_likelihoods_are_those_of_the_cpu(pretended, solver, exact_dims):
    settings = LikelihoodSettings(solver=solver, steps=3, tolerance=0.1, exact_dims=exact_dims)
    expected = negative_log_likelihood(model(), LEVELS, 8, settings)
    with Pretending():
        found = negative_log_likelihood(model().to(pretended), LEVELS, 8, settings)
    assert found.device.type == "cpu"
    assert torch.equal(found, expected)


def test_the_variational_bound_is_that_of_the_cpu(pretended):
    expected = variational_bound(model("ddpm"), LEVELS, 8, terms=3)
    with Pretending():
        found = variational_bound(model("ddpm").to(pretended), LEVELS, 8, terms=3)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("process", ["vp", "ddpm"])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS.entries))
def test_samples_are_those_of_the_cpu(pretended, sampler, process):
    options = {"rtol": 0.1, "atol": 0.1} if sampler == "pf-ode-adaptive" else {}
    settings = SamplingSettings(sampler=sampler, steps=3, options=options)
    expected = msgm.sample(model(process), 3, settings, seed=1)
    with Pretending():
        found = msgm.sample(model(process).to(pretended), 3, settings, seed=1)
    torch.testing.assert_close(found, expected)


def test_moments_and_rates_are_those_of_the_cpu(pretended):
    values = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    shares = values / values.sum(1, keepdim=True)
    with Pretending():
        there = shares.to(pretended)
        found = Moments.of(there), inception_score(there, 2), total(there)
    assert torch.equal(found[0].covariance, Moments.of(shares).covariance)
    assert found[1:] == (inception_score(shares, 2), total(shares))


def test_metrics_take_tensors_of_the_device(pretended):
    scores, members = torch.tensor([0.9, 0.4, 0.5, 0.1]), torch.tensor([True, True, False, False])
    area, rate = msgm.MembershipAUC(), msgm.ForgettingRate([0.45])
    with Pretending():
        area.update(scores.to(pretended), members.to(pretended))
        rate.update(scores.to(pretended), scores.to(pretended) + 1)
    assert float(area.compute()) == 0.75
    assert float(rate.compute()) == 1.0


@pytest.mark.parametrize(("avx", "amx", "slow"), [(False, False, True), (True, False, False), (False, True, False)])
def test_bf16_on_a_processor_without_its_instructions_is_told_once(monkeypatch, capsys, avx, amx, slow):
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    devices.note_slow_bf16.cache_clear()
    for _ in range(2):
        devices.note_slow_bf16(torch.device("cpu"))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == slow
    assert all(line.startswith("note: training.precision: this CPU has no instructions for bf16") for line in told)
    assert devices.slow_bf16(torch.device("cuda")) is None
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    assert devices.slow_bf16(torch.device("cpu")) is None
