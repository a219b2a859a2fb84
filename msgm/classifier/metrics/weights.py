"""Relative distance of the weights from the original's: |theta - theta_0| / |theta_0|, over all parameters, in L2.

Retrained models lie far away, as they start from other weights. So it is not an aim, but zero shows that nothing was
done.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgm.classifier.metrics.base import METRICS, Case, Metric, Number

if TYPE_CHECKING:
    from torch import nn


@METRICS.register("weights")
@dataclass(frozen=True)
class Weights(Metric):
    """Distance of the weights from the original's.

    Example:
        >>> Weights().measure(case)
        {'weight_distance': 0.1...}
        >>> weight_distance(network, network)
        0.0
    """

    numbers = {  # noqa: RUF012
        "weight_distance": Number(
            "L2 distance of the weights from the original's over their norm, 0 and up", "residue"
        ),
    }
    live = True

    def measure(self, case: Case) -> dict[str, float | None]:
        live = case.live
        return {"weight_distance": None if live is None else weight_distance(live.model, live.original)}


def weight_distance(model: "nn.Module", original: "nn.Module") -> float | None:
    """Return |theta - theta_0| / |theta_0|; None for other names or shapes of weights, or an original of zeros."""
    new, old = ({name: p.detach() for name, p in one.named_parameters()} for one in (model, original))
    if {k: v.shape for k, v in new.items()} != {k: v.shape for k, v in old.items()}:
        return None
    before = {name: value.cpu().double() for name, value in old.items()}
    moved = sum(float((new[name].cpu().double() - value).square().sum()) for name, value in before.items())
    norm = sum(float(value.square().sum()) for value in before.values())
    return (moved / norm) ** 0.5 if norm > 0 else None
