"""The peak of what operations allocate, on any device, from the tensors that they return."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make within it, as long as these live.

    Tensors that were there before, and views of them, count nothing; nor does what an operation needs within itself.

    Example:
        >>> with Allocated() as count:
        ...     for _ in range(3):
        ...         total = torch.ones(256).sum()  # 1024 bytes that are freed, 4 that stay
        >>> count.live, count.peak
        (4, 1032)

    Attributes:
        live: bytes now.
        peak: most bytes at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Sequence[Any], given: Sequence[Any] = (), named: Any = None
    ) -> Any:
        named = named or {}
        out = operation(*given, **named)
        there = {tensor.untyped_storage()._cdata for tensor in _tensors((given, named))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in there | self._counted:
                self._counted.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, number: int, size: int) -> None:
        self._counted.discard(number)
        self.live -= size


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
