"""Likelihood by msgm's solver against the way of score_sde: how much faster, at which error.

In one run, on the same dequantised images and the same Rademacher probes:

- ours: ``measure_likelihood`` with fixed RK4 steps, drift and divergence from one forward pass, on the device.
- reference: drift by one forward pass without gradient, divergence by another and a vector-Jacobian product;
  ``scipy.integrate.solve_ivp``'s RK45 in float64 on the CPU over x and t from t_min to 1, the whole batch one vector
  with one error norm, rtol = atol = 1e-5 (Song et al., arXiv 2011.13456, appendix D.2). Written anew here.
- truth: the first ``--truth-items`` images by ``dopri5`` in float64 at a tight tolerance; an error is the mean absolute
  difference from it in bits/dim.

The last lines take the speed-up apart: one RK4 step of our solver with drift and divergence fused against the same step
with both separate, and the network evaluations of both solvers. The solvers run one after the other: where other work
shares the machine, the ratio of their CPU seconds is the one to believe.
"""

import argparse
import copy
import dataclasses
import json
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from msgm.config import load_config
from msgm.data.pixels import dequantise
from msgm.diffusion import LikelihoodSettings, ScoreModel, likelihood, log_likelihood
from msgm.diffusion.augmented import Slope, eps_and_trace, runge_kutta_4
from msgm.diffusion.model import per_item
from msgm.diffusion.samplers import flow, sigma_space
from msgm.runs import find_model
from msgm.training.run import load_data, train

SEED = 0


@dataclass
class Solution:
    """Bits/dim of the images, (n,) float64, with the seconds, CPU seconds and network evaluations that they took."""

    bits: Tensor
    seconds: float
    cpu_seconds: float
    evaluations: int


@dataclass
class Images:
    """Images as levels, dequantised, and their probes, all (n, C, H, W)."""

    levels: Tensor
    count: int
    x: Tensor
    probe: Tensor

    def bits(self, log_density: Tensor) -> Tensor:
        """Return the bits/dim of the first images, given their log-densities in nats."""
        return -log_density / (self.x[0].numel() * math.log(2)) + likelihood.bits_offset(self.count)


def main() -> None:
    """Solve in the three ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="configs/digits/vp.yaml", help="data, and the model where --from has none")
    parser.add_argument("--from", dest="source", metavar="RUN", help="trained model; by default one is trained")
    parser.add_argument("--train-steps", type=int, default=600, help="steps of that training")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=90, help="RK4 steps of our solver")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="rtol and atol of the reference")
    parser.add_argument("--truth-items", type=int, default=24)
    parser.add_argument("--truth-tolerance", type=float, default=1e-6)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the comparison of one step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    model, images = prepare(options)
    settings = LikelihoodSettings("rk4", options.steps, exact_dims=0, batch_size=options.items)
    few = options.truth_items
    truth = true_bits(model, images, few, options.truth_tolerance)
    ours, reference = fused(model, images, settings), separate(model, images, options.tolerance)
    figures = {
        "speedup": reference.seconds / ours.seconds,
        "cpu_speedup": reference.cpu_seconds / ours.cpu_seconds,
        "error_bits_per_dim": float((ours.bits[:few] - truth).abs().mean()),
        "reference_error_bits_per_dim": float((reference.bits[:few] - truth).abs().mean()),
        "fused_against_separate": step_ratio(model, images, options.rounds),
        "evaluations_against_ours": reference.evaluations / ours.evaluations,
        "threads": torch.get_num_threads(),
        "items": len(images.x),
    }
    report(figures, ours, reference, options)


def prepare(options: argparse.Namespace) -> tuple[ScoreModel, Images]:
    """Return the trained model and the images: held-out ones first, then training ones."""
    config = load_config(options.config)
    dataset, split = load_data(config)
    assert dataset.levels, f"{options.config}: the bench is of images of levels"
    if options.source:
        model = ScoreModel.load(find_model(options.source))
    else:
        short = dataclasses.replace(config.training, steps=options.train_steps, trackers=[])
        with tempfile.TemporaryDirectory() as folder:
            run = train(dataclasses.replace(config, training=short), Path(folder) / "base", device=options.device)
            model = ScoreModel.load(run.path / "model")
    order = np.concatenate([split.test.all, split.validation.all, split.train.all])
    levels = dataset.take(order[: options.items])
    x = dequantise(levels, dataset.levels, likelihood._uniform(levels, SEED, range(len(levels)), 0))
    (probe,) = likelihood._probes(x, LikelihoodSettings(exact_dims=0), SEED, range(len(x)), 0)
    return model.to(options.device), Images(levels, dataset.levels, x, probe)


def true_bits(model: ScoreModel, images: Images, count: int, tolerance: float) -> Tensor:
    """Return the bits/dim of the first ``count`` images in float64 at a tight tolerance."""
    exact = copy.deepcopy(model)
    exact.network.double()
    settings = LikelihoodSettings("dopri5", tolerance=tolerance, exact_dims=0)
    return images.bits(log_likelihood(exact, images.x[:count].double(), settings, SEED))


def fused(model: ScoreModel, images: Images, settings: LikelihoodSettings) -> Solution:
    """Solve msgm's way."""
    began, worked = time.perf_counter(), time.process_time()
    found = likelihood.measure_likelihood(model, images.levels, images.count, settings, SEED)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    return Solution(found.per_item, seconds, cpu_seconds, int(found.evaluations[0]))


def separate(model: ScoreModel, images: Images, tolerance: float) -> Solution:
    """Solve score_sde's way."""
    process, shape, count = model.process, images.x.shape, len(images.x)
    probe = images.probe.to(model.device)
    model.network.eval()

    def drift(x: Tensor, t: Tensor) -> Tensor:
        f, g = (per_item(c(t), x) for c in (process.drift, process.diffusion))
        return f * x - 0.5 * g**2 * model.score(x, t)

    def divergence(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x.requires_grad_(True)
            (product,) = torch.autograd.grad((drift(x, t) * probe).sum(), x)
        return (product * probe).flatten(1).sum(1)

    def rate(time: float, state: NDArray[np.float64]) -> NDArray[np.float64]:
        x = torch.from_numpy(state[:-count]).view(shape).to(model.device, torch.float32)
        t = torch.full((count,), time, device=model.device)
        with torch.no_grad():
            parts = drift(x, t).flatten(), divergence(x, t)
        return torch.cat(parts).cpu().double().numpy()

    began, worked = time.perf_counter(), time.process_time()
    start = np.concatenate([images.x.double().flatten().numpy(), np.zeros(count)])
    solved = solve_ivp(rate, (process.t_min, 1.0), start, method="RK45", rtol=tolerance, atol=tolerance)
    end = torch.from_numpy(solved.y[:, -1])
    normal = torch.distributions.Normal(0.0, process.prior_std)
    log_density = normal.log_prob(end[:-count].view(count, -1)).sum(1) + end[-count:]
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    return Solution(images.bits(log_density), seconds, cpu_seconds, solved.nfev)


def step_ratio(model: ScoreModel, images: Images, rounds: int) -> float:
    """Return how much longer an RK4 step takes with two passes, the median of rounds in which both take turns."""
    eps, x, probe = sigma_space(model), images.x.to(model.device), images.probe.to(model.device)

    def one_pass(z: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        out, trace = eps_and_trace(eps, math.hypot(1, ratio) * z, ratio, [probe])
        return flow(out, z, ratio), ratio * trace

    def two_passes(z: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            out = eps(math.hypot(1, ratio) * z, ratio)
        return flow(out, z, ratio), one_pass(z, ratio)[1]

    def seconds(slope: Slope) -> float:
        began = time.perf_counter()
        _, gain = runge_kutta_4(slope, x, 1.0, 1.1)
        gain.cpu()
        return time.perf_counter() - began

    with likelihood._frozen(model):
        seconds(one_pass), seconds(two_passes)
        return statistics.median(seconds(two_passes) / seconds(one_pass) for _ in range(rounds))


def report(figures: dict[str, float], ours: Solution, reference: Solution, options: argparse.Namespace) -> None:
    """Print the table, and write the figures when asked."""
    print(f"{options.config}, {figures['items']} images, {figures['threads']} thread(s), {options.device}; errors")
    print(f"against dopri5 at {options.truth_tolerance:g} in float64 on {options.truth_items} images\n")
    print(f"{'':38s}{'seconds':>9s}{'CPU s':>9s}{'evaluations':>13s}{'bits/dim':>10s}{'error':>10s}")
    rows = (
        (f"separate, scipy RK45 at {options.tolerance:g}", reference, figures["reference_error_bits_per_dim"]),
        (f"ours, rk4 of {options.steps} steps", ours, figures["error_bits_per_dim"]),
    )
    for name, solution, error in rows:
        cost = f"{solution.seconds:9.1f}{solution.cpu_seconds:9.1f}{solution.evaluations:13d}"
        print(f"{name:38s}{cost}{float(solution.bits.mean()):10.4f}{error:10.5f}")
    print(f"\n{figures['speedup']:.2f} times faster, {figures['cpu_speedup']:.2f} in CPU seconds: an evaluation")
    print(f"is {figures['fused_against_separate']:.2f} times faster in one pass than in two, and", end=" ")
    print(f"{figures['evaluations_against_ours']:.2f} times fewer of them are made")
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        spent = {"seconds": ours.seconds, "reference_seconds": reference.seconds}
        counts = {"evaluations": ours.evaluations, "reference_evaluations": reference.evaluations}
        everything = figures | spent | counts | {"settings": settings}
        Path(options.json).write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    main()
