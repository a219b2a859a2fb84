"""Base of networks: what a network reads and puts out, how it is saved, and which classes it knows."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from msgm.diffusion.conditions import Condition
from msgm.errors import UserError
from msgm.plugins import Plugin, load_recorded, note_changed, plugins_of
from msgm.registry import Registry


class Network(nn.Module):
    """A network that is saved in a folder of its own below ``model/``.

    Attributes:
        classes: number of class labels that it reads; 0 for an unconditional network.
        has_null: whether it can be asked for the null condition, by an embedding after those of the classes. Networks
            made here and unconditional ones can; of a class-conditional one of another make nobody can tell, so that it
            counts as one that cannot.
    """

    name: ClassVar[str]
    classes: int = 0
    has_null: bool = True

    @property
    @abstractmethod
    def item_dims(self) -> int:
        """First dimension of an item: channels of an image, length of a vector."""

    @abstractmethod
    def forward(self, x: Tensor, label: Tensor, condition: Condition | None = None) -> Tensor:
        """Map x (B, *shape) and label (B,) to (B, *shape); an unconditional network is called without a condition."""

    def check_condition(self, condition: Condition) -> None:
        """Refuse a condition that the network does not read; an unconditional one reads none.

        Raises:
            UserError: it does not read it.
        """
        if not self.classes:
            raise UserError(f"condition: this {self.name} is unconditional, and was asked for a condition.")
        if condition.labels is None:
            raise UserError(f"condition: this {self.name} reads labels of classes, and was asked for an embedding.")
        wrong = condition.labels[(condition.labels < -1) | (condition.labels >= self.classes)].tolist()
        if wrong:
            raise UserError(
                f"condition: this {self.name} knows labels 0 to {self.classes - 1}, and -1 for no condition; "
                f"asked for {wrong[0]}."
            )
        if bool(condition.null.any()):
            self._need_null()

    def encode(self, prompts: Sequence[str]) -> Condition:
        """Return prompts as a condition, one row each.

        Raises:
            UserError: the network reads no text.
        """
        raise UserError(f"condition: this {self.name} reads no text, and was asked for {prompts[0]!r}.")

    def decode(self, items: Tensor) -> Tensor:
        """Return what samples show: images of latents, other items as they are."""
        return items

    def class_labels(self, condition: Condition | None, count: int, device: torch.device) -> Tensor | None:
        """Return the rows of the class embedding that a condition means, (count,); None for an unconditional network.

        Raises:
            UserError: the network does not read the condition.
        """
        if condition is not None and (not self.classes or condition.labels is None):
            self.check_condition(condition)
        if not self.classes:
            return None
        if condition is None:
            self._need_null()
            return torch.full((count,), self.classes, device=device)
        assert condition.labels is not None
        if not self.has_null and bool(condition.null.any()):
            self._need_null()
        return torch.where(condition.labels < 0, self.classes, condition.labels)

    def _need_null(self) -> None:
        if not self.has_null:
            raise UserError(
                f"condition: this {self.name} has {self.classes} classes and, as far as its files tell, no null class, "
                "so every item needs a label; if its last class is the null one, say so by "
                "network.last_class_is_null()."
            )

    def checkpoint_gradients(self, on: bool) -> None:
        """Keep of the network's blocks only their inputs for the backward pass, which computes the rest anew; or all.

        Raises:
            UserError: this network cannot.
        """
        if on:
            raise UserError(
                f"training.gradient_checkpointing: network {self.name!r} cannot compute its blocks anew, as 'unet' and "
                "'dit' can; leave it out."
            )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write configuration and weights below ``folder``, as ``load`` reads them."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> "Network":
        """Read what ``save`` wrote below ``folder``."""


class NetworkSettings:
    """Settings of a network; ``build`` makes it for items of a shape."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, shape: tuple[int, ...]) -> Network:
        """Return a network with random weights for items of ``shape``."""

    @classmethod
    def load(cls, folder: Path) -> Network:
        """Read a network of this name, by the ``Network`` class of the same name."""
        return _class_named(cls.name).load(folder)


NETWORKS: Registry[NetworkSettings] = Registry("network")


def _class_named(name: str) -> type[Network]:
    """Return the class of networks with a name, the last one defined where there are several.

    Raises:
        UserError: there is none, or it has no ``load``.
    """
    kinds = _subclasses(Network)  # type: ignore[type-abstract]
    found = [kind for kind in kinds if getattr(kind, "name", None) == name]
    if not found or getattr(found[-1].load, "__isabstractmethod__", False):
        raise UserError(f"network.name: no class of networks named {name!r} has a load(folder), so no model is read.")
    return found[-1]


def _subclasses(kind: type[Network]) -> list[type[Network]]:
    return [one for direct in kind.__subclasses__() for one in (direct, *_subclasses(direct))]


def check_loadable(network: Network) -> None:
    """Refuse a network of the user's whose model could be written but not read again.

    Raises:
        UserError: no settings are registered under its name, or there is no way to load it.
    """
    if network.name not in NETWORKS.entries:
        raise UserError(f"network.name: the network calls itself {network.name!r}, and no such network is registered.")
    if NETWORKS.entries[network.name].load.__func__ is NetworkSettings.load.__func__:  # type: ignore[attr-defined]
        _class_named(network.name)


def read_network(name: str, plugins: Sequence[Plugin], folder: Path) -> Network:
    """Read the network of a model folder; the plugins that define it are imported first, if nothing has done so.

    Raises:
        UserError: an unknown network, plugins that are not trusted, or damaged files.
    """
    if name not in NETWORKS.entries:
        load_recorded(plugins, folder / "process.json")
    if name not in NETWORKS.entries:
        raise UserError(f"{folder}: unknown network {name!r}; known: {', '.join(NETWORKS.entries)}.")
    try:
        network = NETWORKS.entries[name].load(folder)
    except UserError as error:
        raise UserError(f"cannot read the model in {folder}: {error}") from error
    note_changed(plugins, plugins_of(type(network)), folder)
    return network
