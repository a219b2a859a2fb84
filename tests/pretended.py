"""A device that is not there: its tensors lie on ``meta``, refuse float64 as ``mps`` does, and hold numbers.

Nothing of Metal is run, and torch that is built without it knows no tensor on ``mps``; hence the other name. Found is
what fails by type or by place: a float64 tensor on the device, or one operation on tensors of the device and the CPU.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

PRETENDED = torch.device("meta")
ACROSS = ("copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_")
"""Operations that take tensors of two places: copies, and indices, which may lie on the CPU."""


class Placed(torch.Tensor):
    """A tensor on the pretended device; ``held`` has its numbers."""

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError("the device has no float64")
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=PRETENDED, requires_grad=held.requires_grad
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), options=None):
        return perform(operation, arguments, options or {})


class Pretending(TorchDispatchMode):
    """Inside, what is made on ``meta`` is ``Placed``."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        return perform(operation, arguments, options or {})


def perform(operation, arguments, options):
    """Run one operation of torch on the numbers that placed tensors hold, and place what comes out."""
    given = []
    tree_map_only(torch.Tensor, given.append, (arguments, options))
    placed = any(isinstance(tensor, Placed) for tensor in given)
    name = operation.overloadpacket.__name__
    if placed and name not in ACROSS and any(t.dim() and not isinstance(t, Placed) for t in given):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found the device and cpu.")
    where = options.get("device")
    here = torch.device(where).type == "meta" if where is not None else placed
    if here and options.get("dtype") == torch.float64:
        raise TypeError("the device has no float64")
    plain = options | ({"device": "cpu"} if where is not None else {})
    arguments_, plain = tree_map_only(Placed, lambda tensor: tensor.held, (arguments, plain))
    found = operation(*arguments_, **plain)
    if name.endswith("_") and not name.startswith("_"):
        return arguments[0]
    return tree_map_only(torch.Tensor, Placed, found) if here else found
