"""Boundary shrink: items of a forgotten class are given to the class whose boundary is nearest.

    x' = clip(x + bound * range * sign(grad_x CE(f_0(x), y))),   y' = argmax_{k retained} f_0(x')_k,
    minimise CE(f(x), y') over the forget items,

with f_0 the original model, frozen. The range of images is 2, from -1 to 1; that of vectors is each feature's own in
the training items, and a step is clipped to it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msgm.checks import positive
from msgm.classifier.data import Examples, Split
from msgm.classifier.methods.base import METHODS, Card, Ledger, Settings
from msgm.classifier.methods.steps import (
    AS_TRAINED,
    HELD,
    Descent,
    GradientMethod,
    cross_entropy,
    passes,
    require_class_request,
    retained_classes,
)
from msgm.classifier.training import norms
from msgm.ranges import Range, ranges

CHUNK = 2000


@METHODS.register("boundary-shrink")
@dataclass(frozen=True)
class BoundaryShrink(GradientMethod):
    """Boundary shrink.

    Example:
        >>> made = msgm.classifier.BoundaryShrink(epochs=2).forget(network, data, {"labels": [2]})

    Attributes:
        epochs: passes over the forget set.
        lr_share: learning rate over the original training's; ``lr`` itself wins.
        bound: length of the adversarial step, as a share of the inputs' range.
    """

    epochs: int = 5
    lr_share: float = 0.02
    bound: float = 0.1

    search = ranges(bound=Range(0.01, 0.5, log=True))
    card = Card(
        formula="descend CE on forget items under the class that one adversarial step leads the original to",
        source=(
            "Chen et al., CVPR 2023, section 3.2; bound 0.1 for inputs in [0, 1], 10 epochs, lr searched from 1e-8 on"
        ),
        needs=("forget", "retain"),
        family="approximate update",
        deviations=(
            "the adversarial label is never a forgotten class; perturbed inputs are not rounded to grey levels; retain "
            f"items are not trained on, they tell the classes (and the range of vectors); {HELD}; {AS_TRAINED}"
        ),
        scopes=("class",),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "methods", "bound")

    def _forget(self, model: nn.Module, split: Split, settings: Settings, ledger: Ledger) -> nn.Module:
        require_class_request(self, split)
        forget = split.forget.relabelled(nearest_classes(model, split, self.bound, settings))
        ledger.saw(len(forget))
        descent = Descent(model, self.rate(settings), settings, ledger, still=norms(model))
        return descent.run(passes(forget, self.epochs, settings, self.name), cross_entropy(model))


def nearest_classes(model: nn.Module, split: Split, bound: float, settings: Settings) -> Tensor:
    """Return (n,) retained classes that the model gives the forget items after one adversarial step."""
    low, high = (limit.to(settings.device) for limit in input_range(split.train))
    classes = retained_classes(split)
    found = []
    model.eval()
    for x, y in split.forget.batches(settings.training.batch_size, device=settings.device):
        x.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
        moved = (x.detach() + bound * (high - low) * slope.sign()).clamp(low, high)
        with torch.no_grad():
            found.append(classes[model(moved).cpu()[:, classes].argmax(1)])
    return torch.cat(found)


def input_range(examples: Examples) -> tuple[Tensor, Tensor]:
    """Return the least and the largest input: -1 and 1 for images, (D,) of each feature for vectors."""
    if examples.dataset.is_image:
        return torch.tensor(-1.0), torch.tensor(1.0)
    lows, highs = zip(*((x.amin(0), x.amax(0)) for x, _ in examples.batches(CHUNK)), strict=True)
    return torch.stack(lows).amin(0), torch.stack(highs).amax(0)
