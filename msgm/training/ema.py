"""Exponential moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from msgm.training.sharding import local, part_of


class EMA:
    """Averaged weights, ``average <- d average + (1 - d) weights`` with d = min(decay, (1 + n) / (10 + n)) at update n.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> average = EMA(network, decay=0.999)
        >>> with torch.no_grad():
        ...     _ = network.weight.fill_(1.0)
        >>> average.update()
        >>> with average.applied():
        ...     _ = print(network.weight.item() < 1)
        True

    The warm-up (as in score_sde) makes a fresh average follow the weights at once, so that unlearning, which always
    starts a fresh one, is not hidden behind the old weights.

    Args:
        network: the bare network; its trained parameters are averaged.
        decay: d once warmed up.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names: list[str] = list(trained)
        self._weights: list[Tensor] = list(trained.values())
        self._average = [p.detach().clone() for p in self._weights]

    def restart(self) -> None:
        """Begin anew from the present weights."""
        self.updates = 0
        self._average = [p.detach().clone() for p in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(_locals(self._average), _locals(self._weights), 1 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context with the averaged weights in the network; trained ones are restored on exit, also after errors."""
        trained = [p.detach().clone() for p in self._weights]
        try:
            self._copy(self._average)
            yield
        finally:
            self._copy(trained)

    def state(self) -> dict[str, Tensor]:
        """Return the averages by parameter name; the counter ``updates`` is saved apart."""
        return dict(zip(self.names, self._average, strict=True))

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Restore what ``state`` returned and the counter."""
        self._average = [
            part_of(state[name].to(p.dtype), p).to(p.device) for name, p in zip(self.names, self._weights, strict=True)
        ]
        self.updates = updates

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(_locals(self._weights), _locals(values))


def _locals(tensors: list[Tensor]) -> list[Tensor]:
    return [local(tensor) for tensor in tensors]
