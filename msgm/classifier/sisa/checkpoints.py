"""Where weights of finished stages are kept by name: in memory, or as safetensors files in a folder."""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from safetensors.torch import load, save
from torch import Tensor

from msgm.errors import UserError
from msgm.folders import sweep, write_bytes
from msgm.reading import read_tensors

State = dict[str, Tensor]
SUFFIX = ".safetensors"


class Checkpoints(Protocol):
    """Weights by name."""

    def __contains__(self, name: str) -> bool: ...

    def get(self, name: str) -> State:
        """Return the weights kept under ``name``."""
        ...

    def put(self, name: str, state: State) -> None:
        """Keep a copy of ``state``."""
        ...

    def keep(self, names: Collection[str]) -> int:
        """Delete every checkpoint except ``names`` and return how many were deleted."""
        ...

    def size(self) -> int:
        """Return the bytes kept."""
        ...


class InMemory:
    """Checkpoints that live as long as the process."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.states

    def get(self, name: str) -> State:
        return load(self.states[name])

    def put(self, name: str, state: State) -> None:
        self.states[name] = packed(state)

    def keep(self, names: Collection[str]) -> int:
        gone = self.states.keys() - set(names)
        for name in gone:
            del self.states[name]
        return len(gone)

    def size(self) -> int:
        return sum(map(len, self.states.values()))


class InFolder:
    """One file a checkpoint, whole or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_file()

    def get(self, name: str) -> State:
        try:
            return read_tensors(self._path(name))
        except UserError as error:
            raise UserError(f"{str(error).rstrip('.')}; delete it.") from error

    def put(self, name: str, state: State) -> None:
        write_bytes(self._path(name), packed(state))

    def keep(self, names: Collection[str]) -> int:
        sweep(self.folder)
        kept = {name + SUFFIX for name in names}
        gone = [path for path in self.folder.glob(f"*{SUFFIX}") if path.name not in kept]
        for path in gone:
            path.unlink(missing_ok=True)  # another process of the same run may be first
        return len(gone)

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob(f"*{SUFFIX}"))

    def _path(self, name: str) -> Path:
        return self.folder / (name + SUFFIX)


def packed(state: State) -> bytes:
    """Return the weights in the format of safetensors."""
    return save({name: value.detach().cpu().contiguous() for name, value in state.items()})
