"""Quality and seconds of every sampler against its network evaluations, beside a reference of 1000 steps.

Quality is measured on samples of a trained model, two ways, both lower for better:

- junk %: samples farther from every training item than 99% of real held-out items are (``Reality``);
- Frechet: the Frechet distance of pixels (of images pooled to 8x8, at most) to the real items of the validation and
  test parts, in float64. Few items of few pixels: it compares samplers, and with nothing else.

The reference, reverse diffusion of 1000 steps, is drawn with several seeds, whose spread is the noise (of junk at least
the binomial deviation); a sampler is *within noise* when both of its numbers lie at most two standard deviations above
the reference's mean. Each sampler
walks the same number of items from the same seed, as many steps as a budget of evaluations allows. Seconds are of this
process's CPU time, or of the wall clock on a GPU. ``torchsde`` is left out unless named: its Brownian tree takes longer
than a small network.

Example: ``python scripts/bench/samplers.py runs/digits-vp --json samplers.json --plot samplers.png``.
"""

import argparse
import math
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msgm.config import load_config
from msgm.data import Dataset, dequantise
from msgm.devices import chosen_device
from msgm.diffusion import SAMPLERS, SamplingSettings, ScoreModel, sample
from msgm.evaluation.reality import Reality, to_items
from msgm.folders import write_bytes, write_json
from msgm.pictures import figure_png
from msgm.runs import Run, find_model
from msgm.splits import Split
from msgm.training.run import load_data

REFERENCE = SamplingSettings("reverse-diffusion", 1000)
SLOW = ("torchsde",)


@dataclass
class Line:
    """What one sampler gave at one number of steps.

    Attributes:
        sampler: its name with its options.
        steps: grid steps.
        evaluations: network evaluations of a sample, on average; padding of a pass to its full size counts.
        seconds: a thousand samples.
        junk: per cent.
        frechet: distance to real items.
        within: whether it lies within the reference's noise.
    """

    sampler: str
    steps: int
    evaluations: int
    seconds: float
    junk: float
    frechet: float
    within: bool = False


class Ruler:
    """Measures samples against a data set."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        self.levels = dataset.levels
        self.reality = Reality.of(dataset, split)
        real = dataset.take(np.concatenate([split.validation.all, split.test.all]))
        self.mean, self.covariance = moments(self._features(real))

    def __call__(self, samples: Tensor) -> tuple[float, float]:
        """Return junk in per cent, and the Frechet distance."""
        items = to_items(samples, self.levels)
        junk = self.reality.junk(self.reality.distances(items)).double().mean().item()
        return 100 * junk, frechet(self.mean, self.covariance, *moments(self._features(items)))

    def _features(self, items: Tensor) -> Tensor:
        x = items if self.levels is None else dequantise(items, self.levels)
        if x.dim() == 4 and x.shape[-1] > 8:
            x = F.adaptive_avg_pool2d(x, 8)
        return x.flatten(1).double()


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and covariance (D, D) of features (N, D)."""
    return x.mean(0), x.T.cov()


def frechet(mean: Tensor, covariance: Tensor, other_mean: Tensor, other: Tensor) -> float:
    """Return |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of two normal distributions."""
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ other @ root).clamp_min(0).sqrt().sum()
    return float((mean - other_mean).square().sum() + covariance.trace() + other.trace() - 2 * cross)


def main() -> None:
    """Measure, print the table, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", metavar="RUN", help="a run with its config.yaml")
    parser.add_argument("--samplers", metavar="NAME,NAME", help="by default all but torchsde")
    parser.add_argument("--budgets", default="20,50,100", metavar="N,N", help="network evaluations (20,50,100)")
    parser.add_argument("--samples", type=int, default=2000, help="samples a measurement (2000)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the reference, at least 2 (3)")
    parser.add_argument("--reference-steps", type=int, default=REFERENCE.steps, help="steps of the reference (1000)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: the noise needs at least two")
    dataset, split = load_data(load_config(Run(options.run).config))
    model = ScoreModel.load(find_model(options.run)).to(chosen_device(options.device))
    ruler = Ruler(dataset, split)
    reference = SamplingSettings(REFERENCE.sampler, options.reference_steps)
    print(f"{options.run}: {options.samples} samples a line, {torch.get_num_threads()} threads\n{HEAD}", flush=True)
    references = []
    for seed in range(options.seeds):
        references.append(measure(model, ruler, reference, options.samples, 1 + seed))
        show(references[-1])
    lines = []
    for settings in cases(options.samplers, [int(n) for n in options.budgets.split(",")]):
        line = measure(model, ruler, settings, options.samples, 0)
        line.within = within(line, references, options.samples)
        show(line)
        lines.append(line)
    found = {
        "run": str(options.run),
        "samples": options.samples,
        "threads": torch.get_num_threads(),
        "reference": [asdict(line) for line in references],
        "lines": [asdict(line) for line in lines],
    }
    if options.json:
        write_json(Path(options.json), found)
    if options.plot:
        write_bytes(Path(options.plot), plot(lines, references, options.samples))


def cases(names: str | None, budgets: list[int]) -> list[SamplingSettings]:
    """Return the settings to measure: of each sampler as many steps as each budget allows, an adaptive one once."""
    chosen = names.split(",") if names else [name for name in SAMPLERS.entries if name not in SLOW]
    return [
        SamplingSettings(name, steps)
        for name in chosen
        for steps in dict.fromkeys(affordable(SamplingSettings(name), budget) for budget in budgets)
        if steps > 1
    ]


def affordable(settings: SamplingSettings, budget: int) -> int:
    """Return the most steps whose network evaluations stay within the budget; 2 for an adaptive sampler."""
    sampler = settings.build()
    if settings.evaluations is None:
        return 2
    return max((n for n in range(1, budget + 1) if (sampler.evaluations(n) or 0) <= budget), default=0)


def measure(model: ScoreModel, ruler: Ruler, settings: SamplingSettings, count: int, seed: int) -> Line:
    """Draw samples and measure them."""
    evaluated = [0]

    def count_items(network: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        evaluated[0] += len(output)

    handle = model.network.register_forward_hook(count_items)
    clock = time.perf_counter if model.device.type == "cuda" else time.process_time
    began = clock()
    samples = sample(model, count, settings, seed)
    seconds = clock() - began
    handle.remove()
    junk, distance = ruler(samples)
    return Line(settings.sampler, settings.steps, round(evaluated[0] / count), 1000 * seconds / count, junk, distance)


def noise(key: str, references: list[Line], count: int) -> tuple[float, float]:
    """Return mean and standard deviation of the references' ``key``.

    Few seeds may agree by chance: a share of ``count`` samples has the binomial deviation at least.
    """
    known = [getattr(reference, key) for reference in references]
    mean, spread = statistics.fmean(known), statistics.stdev(known)
    return mean, max(spread, math.sqrt(mean * (100 - mean) / count)) if key == "junk" else spread


def within(line: Line, references: list[Line], count: int) -> bool:
    """Return whether both numbers of ``count`` samples lie at most two deviations above the references' mean."""
    limits = {key: noise(key, references, count) for key in ("junk", "frechet")}
    return all(getattr(line, key) <= mean + 2 * spread for key, (mean, spread) in limits.items())


HEAD = f"{'sampler':22s}{'steps':>6s}{'evaluations':>13s}{'s / 1000':>10s}{'junk %':>8s}{'Frechet':>9s}  within noise"


def show(line: Line) -> None:
    """Print one line of the table."""
    print(
        f"{line.sampler:22s}{line.steps:6d}{line.evaluations:13d}{line.seconds:10.2f}"
        f"{line.junk:8.2f}{line.frechet:9.4f}  {'yes' if line.within else ''}",
        flush=True,
    )


def plot(lines: list[Line], references: list[Line], count: int) -> bytes:
    """Return a PNG: both measures of quality, and seconds, against network evaluations."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, key, label in zip(
        panels, ("junk", "frechet", "seconds"), ("junk %", "Frechet distance", "seconds for 1000 samples"), strict=True
    ):
        for i, name in enumerate(dict.fromkeys(line.sampler for line in lines)):
            own = sorted((line for line in lines if line.sampler == name), key=lambda line: line.evaluations)
            marker = "ov^sDPX*<>hp"[i % 12]
            x, y = [line.evaluations for line in own], [getattr(line, key) for line in own]
            panel.plot(x, y, marker=marker, markersize=5, linewidth=1, color=f"C{i % 10}", label=name)
        if key != "seconds":
            middle, spread = noise(key, references, count)
            panel.axhspan(max(0, middle - 2 * spread), middle + 2 * spread, color="0.85", zorder=0)
            panel.axhline(middle, color="0.5", linewidth=1, label=f"{references[0].evaluations}-step reference")
        panel.set(xscale="log", yscale="log", xlabel="network evaluations", ylabel=label)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure_png(figure)


if __name__ == "__main__":
    main()
