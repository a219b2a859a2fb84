"""Whether the bandwidth that redirect finds from its bank is the best one for items that the bank does not hold.

For each config: the bandwidth of highest leave-one-out likelihood of the retain items that a model is trained on,
beside the one under which the retain items of the test part are likeliest, and how much likelier these are under the
latter, in bits/dim, with a 95% interval over the items. The rule carries over where that is next to nothing.

    python scripts/bench/bandwidth.py configs/digits/vp.yaml configs/mnist/ve_small.yaml --bank 6000
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from msgm.config import load_config
from msgm.data import Dataset
from msgm.data.pixels import dequantise
from msgm.objectives.kernel import leave_one_out_bandwidth
from msgm.training.run import load_data

WIDEST = 4.0
"""The best bandwidth is looked for from this part to this multiple of the one by the rule."""


def main() -> None:
    """Print one line a config, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--bank", type=int, default=6000, help="retain items of the bank, at most (6000)")
    parser.add_argument("--items", type=int, default=1000, help="test items, at most (1000)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    found = {config: figures(config, given.bank, given.items) for config in given.configs}
    for config, told in found.items():
        rule = f"{told['bank']} items, bandwidth by the rule {told['bandwidth']:.4f}"
        best = f"best for {told['items']} test items {told['best']:.4f}"
        print(f"{config}: {rule}; {best}, likelier by {told['gain']:.5f} +- {told['margin']:.5f} bits/dim")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


def figures(source: str, most_bank: int, most_items: int) -> dict[str, Any]:
    """Return a config's two bandwidths, and by how much the best one's held-out likelihood is higher."""
    dataset, split = load_data(load_config(source))
    bank, test = drawn(dataset, split.train.retain, most_bank), drawn(dataset, split.test.retain, most_items)
    bandwidth = leave_one_out_bandwidth(bank)
    best = best_bandwidth(bank, test, bandwidth)
    gained = held_out_bits(bank, test, best) - held_out_bits(bank, test, bandwidth)
    return {
        "bank": len(bank),
        "items": len(test),
        "bandwidth": bandwidth,
        "best": best,
        "gain": float(gained.mean()),
        "margin": 1.96 * float(gained.std()) / math.sqrt(len(gained)),
    }


def drawn(dataset: Dataset, positions: NDArray[np.int64], most: int) -> Tensor:
    """Return up to ``most`` items in [-1, 1], drawn with seed 0."""
    chosen = np.random.default_rng(0).permutation(positions)[:most]
    items = dataset.take(chosen)
    return items.float() if dataset.levels is None else dequantise(items, dataset.levels)


def held_out_bits(bank: Tensor, items: Tensor, bandwidth: float) -> Tensor:
    """Return the (n,) log-densities of ``items`` under kernels of this width around ``bank``, in bits/dim."""
    centres, points = bank.flatten(1).double(), items.flatten(1).double()
    squares = torch.cdist(points, centres).square()
    dims = points.shape[1]
    log_density = (-0.5 * squares / bandwidth**2).logsumexp(1) - math.log(len(centres))
    return (log_density / dims - math.log(bandwidth) - 0.5 * math.log(2 * math.pi)) / math.log(2)


def best_bandwidth(bank: Tensor, items: Tensor, near: float) -> float:
    """Return the bandwidth with which ``items`` are likeliest, looked for around ``near``."""
    middle = math.log(near)
    bounds = (middle - math.log(WIDEST), middle + math.log(WIDEST))

    def loss(log_width: float) -> float:
        return -float(held_out_bits(bank, items, math.exp(log_width)).mean())

    return math.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x)


if __name__ == "__main__":
    main()
