"""The blocks of a network, first to last, for methods that treat its last ones apart."""

from torch import nn

from msgm.errors import UserError

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def blocks(model: nn.Module) -> list[nn.ModuleList]:
    """Return the network's blocks in the order in which it names them, which must be that of its forward pass.

    A block is a part with weights that is no ``nn.Sequential``; these are opened, as is a network that consists of
    one part. Normalisation belongs to the block before it. A ResNet has its stem, its residual blocks and its last
    layer; an MLP its linear layers. Weights that the network holds itself, outside its parts, are in no block.
    """
    parts = _opened(list(model.children()))
    while len(parts) == 1 and any(_has_weights(child) for child in parts[0].children()):
        parts = _opened(list(parts[0].children()))
    found: list[nn.ModuleList] = []
    for part in parts:
        if found and isinstance(part, _NORMS):
            found[-1].append(part)
        else:
            found.append(nn.ModuleList([part]))
    return found or [nn.ModuleList([model])]


def last_blocks(model: nn.Module, k: int) -> nn.ModuleList:
    """Return the last ``k`` blocks, which share the model's storage.

    Raises:
        UserError: the network has fewer.
    """
    found = blocks(model)
    if k > len(found):
        raise UserError(f"methods.k must be at most {len(found)}, the number of this network's blocks, got {k}.")
    return nn.ModuleList(found[-k:])


def _has_weights(module: nn.Module) -> bool:
    return isinstance(module, _NORMS) or any(True for _ in module.parameters())


def _opened(modules: list[nn.Module]) -> list[nn.Module]:
    """Return the modules with weights, every ``nn.Sequential`` replaced by its children."""
    found: list[nn.Module] = []
    for module in modules:
        if isinstance(module, nn.Sequential):
            found += _opened(list(module.children()))
        elif _has_weights(module):
            found.append(module)
    return found
