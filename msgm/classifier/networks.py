"""Networks for classifiers: from logistic regression to any of torchvision's, and any module of the user's."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from msgm.checks import at_least
from msgm.classifier.data import Examples
from msgm.errors import UserError, nearest
from msgm.plugins import load_function
from msgm.registry import Registry
from msgm.seeding import derive_seed

CHUNK = 2000


class NetworkSettings(ABC):
    """Which network; subclasses are dataclasses whose fields are its settings."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return a network that maps (B, *shape) to (B, classes) logits, with weights by torch's global generator."""


CLASSIFIERS: Registry[NetworkSettings] = Registry("network")


def build(settings: NetworkSettings, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Return a network whose weights are drawn from ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "network"))
        return settings.build(shape, classes)


class Standardise(nn.Module):
    """Standardises each input feature by its mean and standard deviation over the training items.

    The statistics are computed again for every training, so that a retrained model or a shard uses only its own items.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def fit_inputs(self, examples: Examples) -> None:
        """Compute mean and standard deviation of vectors; images lie in [-1, 1] and stay as they are."""
        if examples.dataset.is_image:
            return
        x = torch.cat([part for part, _ in examples.batches(CHUNK)]).double()
        self.mean.copy_(x.mean(0))
        std = x.std(0, unbiased=False)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@CLASSIFIERS.register("linear")
@dataclass(frozen=True)
class Linear(NetworkSettings):
    """Multinomial logistic regression.

    Example:
        >>> network = Linear().build(shape=(64,), classes=10)
        >>> network(torch.randn(5, 64)).shape
        torch.Size([5, 10])
    """

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        size = int(torch.tensor(shape).prod())
        return nn.Sequential(nn.Flatten(), Standardise(size), nn.Linear(size, classes))


@CLASSIFIERS.register("mlp")
@dataclass(frozen=True)
class MLP(NetworkSettings):
    """Fully connected layers with ReLU.

    Example:
        >>> network = MLP(hidden=[32, 16]).build(shape=(1, 8, 8), classes=10)
        >>> network(torch.randn(5, 1, 8, 8)).shape
        torch.Size([5, 10])

    Attributes:
        hidden: units of each hidden layer.
    """

    hidden: list[int] = field(default_factory=lambda: [128, 64])

    def __post_init__(self) -> None:
        at_least(1, self, "network", "hidden")

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        size = int(torch.tensor(shape).prod())
        layers: list[nn.Module] = [nn.Flatten(), Standardise(size)]
        for width in self.hidden:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        return nn.Sequential(*layers, nn.Linear(size, classes))


@CLASSIFIERS.register("cnn")
@dataclass(frozen=True)
class CNN(NetworkSettings):
    """Three 3x3 convolutions with batch normalisation and ReLU, two poolings, one linear layer; for images.

    Example:
        >>> network = CNN(width=8).build(shape=(3, 32, 32), classes=10)
        >>> network(torch.randn(5, 3, 32, 32)).shape
        torch.Size([5, 10])

    Attributes:
        width: channels of the first convolution; the others have twice and four times as many.
    """

    width: int = 16

    def __post_init__(self) -> None:
        at_least(1, self, "network", "width")

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3:
            raise UserError(f"network.name: cnn is for images; items of shape {shape} need mlp or linear.")
        width = self.width
        return nn.Sequential(
            *_block(shape[0], width),
            nn.MaxPool2d(2),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * width, classes),
        )


def _block(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


@CLASSIFIERS.register("torchvision")
@dataclass(frozen=True)
class Torchvision(NetworkSettings):
    """Any classifier of torchvision, from random weights.

    Example:
        >>> network = Torchvision("resnet18", small_images=True).build(shape=(3, 32, 32), classes=10)
        >>> network(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Attributes:
        model: torchvision's name of it.
        small_images: for ResNets: a 3x3 first convolution of stride 1 and no pooling, as is usual for 32x32 pixels.
    """

    model: str = "resnet18"
    small_images: bool = False

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        import torchvision

        known = torchvision.models.list_models(module=torchvision.models)
        if self.model not in known:
            raise UserError(f"network.model: torchvision has no classifier {self.model!r}.{nearest(self.model, known)}")
        if len(shape) != 3:
            raise UserError(f"network.name: torchvision's classifiers are for images, not items of shape {shape}.")
        network = torchvision.models.get_model(self.model, weights=None, num_classes=classes)
        if self.small_images:
            if not isinstance(network, torchvision.models.ResNet):
                raise UserError(f"network.small_images is for ResNets, and {self.model} is none.")
            network.conv1 = nn.Conv2d(3, network.conv1.out_channels, 3, padding=1, bias=False)
            network.maxpool = nn.Identity()
        return network if shape[0] == 3 else nn.Sequential(_Grey(), network)


class _Grey(nn.Module):
    """Repeats a single channel three times."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


@CLASSIFIERS.register("normalised")
@dataclass(frozen=True)
class Normalised(NetworkSettings):
    """A network preceded by a change of pixel range and a normalisation per channel, as pretrained networks expect.

    It has the weights of ``network`` under the same names. A pixel in [-1, 1] is mapped to ``range``; then ``mean`` is
    subtracted and the result divided by ``std``.

    Example:
        >>> settings = Normalised({"name": "cnn"}, mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
        >>> network = settings.build(shape=(3, 32, 32), classes=10)
        >>> network(torch.rand(5, 3, 32, 32) * 2 - 1).shape
        torch.Size([5, 10])

    Attributes:
        network: settings of the network.
        range: its values of black and white; [0, 1] as torchvision's ``ToTensor`` gives them.
        mean: of each channel, in that range; empty for none.
        std: standard deviation of each channel, in that range; empty for none.
    """

    network: dict[str, Any] = field(default_factory=lambda: {"name": "cnn"})
    range: list[float] = field(default_factory=lambda: [0.0, 1.0])
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", CLASSIFIERS.resolve(self.network))
        numbers = [*self.range, *self.mean, *self.std]
        if len(self.range) != 2 or not all(map(math.isfinite, numbers)) or self.range[0] >= self.range[1]:
            raise UserError(f"network.range must be two finite numbers, the lower one first, got {self.range}.")
        if not all(value > 0 for value in self.std):
            raise UserError(f"network.std must be positive, got {self.std}.")

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3:
            raise UserError(f"network.name: normalised is for images, not items of shape {shape}.")
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (0, shape[0]):
                raise UserError(f"network.{key}: expected {shape[0]} numbers, one for each channel, or none.")
        network = CLASSIFIERS.build(self.network).build(shape, classes)
        network.register_forward_pre_hook(self._map)
        return network

    def _map(self, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        low, high = self.range
        x = (inputs[0] + 1) * ((high - low) / 2) + low
        mean, std = (
            x.new_tensor(values or [empty]).view(-1, 1, 1) for values, empty in ((self.mean, 0), (self.std, 1))
        )
        return ((x - mean) / std,)


@CLASSIFIERS.register("module")
@dataclass(frozen=True)
class Module(NetworkSettings):
    """A network of the user's.

    Example:
        >>> line = "from torch.nn import Linear; small = lambda shape, classes: Linear(*shape, classes)"
        >>> written = (out / "networks.py").write_text(line)
        >>> Module("networks.py:small").build(shape=(64,), classes=10)
        Linear(in_features=64, out_features=10, bias=True)

    Attributes:
        function: ``path/to/file.py:function``; ``function(shape, classes)`` returns a torch module.
    """

    function: str = ""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        network = load_function(self.function, "network.function")(shape, classes)
        if not isinstance(network, nn.Module):
            raise UserError(f"network.function: {self.function} returned {type(network).__name__}, no torch module.")
        return network


def head(model: nn.Module) -> nn.Linear:
    """Return the last linear layer, which turns features into logits.

    Raises:
        UserError: there is none.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise UserError("the model has no linear layer that could be its head.")
    return layers[-1]


@torch.no_grad()
def features(model: nn.Module, examples: Examples, device: torch.device | str = "cpu") -> Tensor:
    """Return (n, F) inputs of the model's head on the CPU, in eval mode."""
    seen: list[Tensor] = []
    mode = model.training
    model.eval().to(device)
    handle = head(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1).float().cpu()))
    try:
        for x, _ in examples.batches(CHUNK, device=device):
            model(x)
    finally:
        handle.remove()
        model.train(mode)
    return torch.cat(seen)


def reinitialised(model: nn.Module, fresh: nn.Module) -> nn.Module:
    """Return ``fresh`` after making sure that none of the trained model's weights are in it.

    Public code has "retrained" models of which only the last layer was new.

    Raises:
        UserError: the models differ in their weights' names or shapes, or a tensor is the same in both.
    """
    new, old = dict(fresh.named_parameters()), dict(model.named_parameters())
    if {k: v.shape for k, v in new.items()} != {k: v.shape for k, v in old.items()}:
        raise UserError("the network's settings do not give a model like the trained one: other weights or shapes.")
    for name, value in new.items():
        constant = value.min() == value.max()
        if torch.equal(value.cpu(), old[name].cpu()) and not constant:
            raise UserError(
                f"re-initialisation left the weights {name} as they were; a retrained model must share none."
            )
    return fresh
