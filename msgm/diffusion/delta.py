"""Deltas: what a method changed in a model's weights, kept apart in a file, and put in or taken out bit for bit.

A difference of floating-point numbers does not restore them: (w + d) - d is rounded twice. So a delta holds the
exclusive or of the bits of both weights, of every tensor that differs. Adding it twice is adding nothing:

    after = before ^ delta,    before = after ^ delta
"""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from msgm.chain import Chain, ChainTree, chain_of
from msgm.diffusion.model import ScoreModel
from msgm.digests import weights_digest
from msgm.errors import UserError
from msgm.folders import write_bytes
from msgm.reading import parse_json, read_header, read_tensors

HEADER = "msgm.delta"
FORMAT = 1
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers that hold the bits of a number, by its bytes."""


class Header(TypedDict):
    """Contents of a file's header."""

    format: int
    before: str
    after: str
    chain_before: ChainTree | None
    chain_after: ChainTree | None


@dataclass(frozen=True)
class Delta:
    """The change of a model's weights.

    Example:
        >>> model = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8])
        >>> other = msgm.ScoreModel.new("unet", "vp", shape=(1, 8, 8), channels=[8], seed=1)
        >>> Delta.between(model, other).save(out / "change.safetensors")
        >>> changed = Delta.load(out / "change.safetensors").added_to(model)
        >>> restored = Delta.load(out / "change.safetensors").taken_from(changed)
        >>> all(a.equal(b) for a, b in zip(model.network.parameters(), restored.network.parameters()))
        True

    Whoever has the delta and the changed model has the model as it was, with what was forgotten: it is a trace, to be
    kept as safe as that model, and deleted where removal is asked.

    Attributes:
        bits: exclusive or of the bits of both weights, of the tensors that differ, by name.
        before: digest of the weights without the change.
        after: digest of the weights with it.
        chain_before: forget requests of the model without the change; None if unknown.
        chain_after: those of the model with it.
    """

    bits: dict[str, Tensor]
    before: str
    after: str
    chain_before: Chain | None = None
    chain_after: Chain | None = None

    @classmethod
    def between(cls, before: ScoreModel, after: ScoreModel) -> "Delta":
        """Return what must be added to the weights of ``before`` to have those of ``after``.

        Raises:
            UserError: networks with other tensors.
        """
        old, new = before.network.state_dict(), after.network.state_dict()
        if _kinds(old) != _kinds(new):
            raise UserError("delta: the two models have networks with other tensors; one must be made from the other.")
        bits = {name: _bits(old[name].cpu()) ^ _bits(new[name].cpu()) for name in old}
        changed = {name: tensor.contiguous() for name, tensor in bits.items() if bool(tensor.any())}
        digests = weights_digest(before.network), weights_digest(after.network)
        return cls(changed, *digests, before.history(), after.history())

    def added_to(self, model: ScoreModel) -> ScoreModel:
        """Return the model with the change, bit for bit as it was made.

        Raises:
            UserError: a model with other weights than the change was made from.
        """
        return self._applied(model, self.before, self.after, self.chain_after)

    def taken_from(self, model: ScoreModel) -> ScoreModel:
        """Return the model without the change, bit for bit as it was before.

        Raises:
            UserError: a model with other weights than the change led to.
        """
        return self._applied(model, self.after, self.before, self.chain_before)

    def _applied(self, model: ScoreModel, wanted: str, gives: str, chain: Chain | None) -> ScoreModel:
        if weights_digest(model.network) != wanted:
            if weights_digest(model.network) == gives:
                raise UserError("delta: the model is as the change leaves it already; there is nothing to do.")
            raise UserError("delta: the change was made from a model with other weights; give that one.")
        network = copy.deepcopy(model.network)
        _flip(network, self.bits)
        if weights_digest(network) != gives:
            raise UserError("delta: the file is damaged; its change does not lead to the weights that it names.")
        return replace(model, network=network, chain=chain, sealed=gives, folder=None)

    def save(self, file: Path | str) -> None:
        """Write the change to a safetensors file, whole or not at all.

        Raises:
            OSError: the machine cannot write; it names the file.
        """
        from safetensors.torch import save

        chains = [chain and chain.to_json() for chain in (self.chain_before, self.chain_after)]
        names = ("format", "before", "after", "chain_before", "chain_after")
        header = dict(zip(names, (FORMAT, self.before, self.after, *chains), strict=True))
        write_bytes(Path(file), save(self.bits, {HEADER: json.dumps(header)}))

    @classmethod
    def load(cls, file: Path | str) -> "Delta":
        """Read a file that ``save`` wrote.

        Raises:
            UserError: the file is missing or damaged, no delta, or one of a newer msgm.
        """
        file = Path(file)
        bits, found = read_tensors(file), read_header(file)
        if HEADER not in found:
            raise UserError(f"{file} holds no delta: its header has no {HEADER!r}.")
        header = parse_json(found[HEADER], f"{file}, its header", Header)
        if header["format"] > FORMAT:
            raise UserError(f"{file} was written by a newer msgm (format {header['format']}; this one reads {FORMAT}).")
        chains = [tree and chain_of(tree, str(file)) for tree in (header["chain_before"], header["chain_after"])]
        return cls(bits, header["before"], header["after"], *chains)


def _kinds(state: dict[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def _bits(tensor: Tensor) -> Tensor:
    """Return the bits of a tensor's numbers as integers, in the same memory."""
    return tensor.detach().view(BITS[tensor.element_size()])


def _flip(network: nn.Module, bits: dict[str, Tensor]) -> None:
    """Flip those bits of a network's tensors that are 1 in ``bits``, in place; of tied tensors once."""
    state, done = network.state_dict(), set[int]()
    for name, change in bits.items():
        if name not in state or state[name].shape != change.shape:
            raise UserError(f"delta: the file is damaged; the network has no tensor {name} of that shape.")
        own = _bits(state[name])
        if own.numel() and own.data_ptr() not in done:
            own ^= change.to(own.device)
            done.add(own.data_ptr())
