"""What a model folder's ``process.json`` says, and how the parts of a model are named."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NotRequired, Protocol, TypedDict, TypeVar

from torch import nn

from msgm.diffusion.prediction import Prediction
from msgm.diffusion.processes import Process
from msgm.errors import UserError
from msgm.plugins import Plugin
from msgm.reading import check_finite
from msgm.registry import plain
from msgm.shapes import Positive, Rule

FORMAT = 1


class HasNetwork(Protocol):
    """Anything with a network."""

    network: nn.Module


Loaded = TypeVar("Loaded", bound=HasNetwork)


class Written(TypedDict):
    """Keys of ``process.json`` in every format."""

    format: Positive


class Description(Written):
    """Keys of ``process.json`` in the present format."""

    process: dict[str, Any]
    network: str
    shape: Annotated[list[Positive], Rule("a list of one to three sizes", lambda value: 1 <= len(value) <= 3)]
    prediction: Prediction
    plugins: NotRequired[list[Plugin]]


def describe(process: Process) -> dict[str, Any]:
    """Return a process's settings as plain JSON, its name first."""
    return {"name": process.name, **{k: plain(v) for k, v in asdict(process).items()}}  # type: ignore[call-overload]


def named(part: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a part given by its name, or by its name and settings, as settings."""
    return {"name": part} if isinstance(part, str) else dict(part)


def replaceable(folder: Path) -> bool:
    """Return whether a folder is empty or a model's own."""
    return (folder / "process.json").is_file() or not any(folder.iterdir())


def guarded(load: Callable[[Path], Loaded], folder: Path) -> Loaded:
    """Return the model that ``load`` reads from a folder, checked to be finite; what diffusers raises is a UserError.

    Raises:
        UserError: it cannot be read.
    """
    try:
        model = load(folder)
    except UserError:
        raise
    except Exception as error:  # diffusers raises a dozen kinds for settings and weights that do not fit
        detail = str(error).split("\n")[0].rstrip(".")
        raise UserError(f"cannot read the model in {folder}: {detail}.") from error
    check_finite(model.network.state_dict(), str(folder))
    return model
