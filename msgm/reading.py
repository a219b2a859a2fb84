"""Strict reading of files: a damaged file is refused with a one-sentence error, and nothing in it is guessed.

JSON and YAML are bounded in size and depth, hold no NaN, no infinity and no key twice, and are checked against a shape
(``msgm.shapes``).
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.shapes import MAX_DEPTH, Shape, check, short

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEXT = 1 << 30
KINDS = {"f": "real numbers", "i": "whole numbers", "u": "whole numbers", "b": "true and false", "U": "text"}
Arrays = dict[str, NDArray[Any]]


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Read a file.

    Raises:
        UserError: it is missing, cannot be read, is no regular file, or is larger than ``limit`` bytes.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {path}: it is {'a folder' if path.is_dir() else 'no regular file'}.")
        if limit is not None and path.stat().st_size > limit:
            raise UserError(f"cannot read {path}: it is larger than {limit} bytes.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a null byte in a path is a ValueError
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}.") from error


def read_text(path: Path) -> str:
    """Read a UTF-8 file; a byte order mark is left out.

    Raises:
        UserError: as ``read_bytes``, it is larger than ``MAX_TEXT`` bytes, or it is not UTF-8.
    """
    return decoded(read_bytes(path, MAX_TEXT), str(path))


def read_json(path: Path, shape: Shape = Any) -> Any:
    """Read JSON of a shape.

    Raises:
        UserError: the file is missing, is not strict JSON, is nested too deeply, or is not of the shape.
    """
    return parse_json(read_text(path), str(path), shape)


def read_jsonl(path: Path, shape: Shape = Any) -> list[Any]:
    """Read one JSON value a line; the last line, too, ends with a newline.

    Raises:
        UserError: as ``read_json``, with the number of the line, an empty line, or a last line that was cut.
    """
    text = read_text(path)
    if text and not text.endswith("\n"):
        raise UserError(f"{path} is damaged: line {text.count(chr(10)) + 1} was cut; every line ends with a newline.")
    return [parse_json(line, f"{path}, line {k}", shape) for k, line in enumerate(text.split("\n")[:-1], 1)]


def parse_json(text: str, source: str, shape: Shape = Any) -> Any:
    """Read JSON of a shape from ``text``; errors begin with ``source``.

    Raises:
        UserError: as ``read_json``.
    """
    try:
        tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        what = "it is empty" if not text.strip() else f"{error}; expected JSON"
        raise UserError(f"{source} is damaged: {what}.") from error
    except RecursionError as error:
        raise UserError(f"{source} is damaged: it is nested more than {MAX_DEPTH} levels deep.") from error
    except ValueError as error:  # of the hooks here, or an integer of thousands of digits
        text = str(error) if isinstance(error, UserError) else "a number has too many digits"
        raise UserError(f"{source} is damaged: {text}.") from error
    return check(tree, shape, source)


def read_yaml(path: Path, shape: Shape = Any) -> Any:
    """Read one YAML document of a shape: plain values only, no anchors, no tags; ``${...}`` is text.

    Raises:
        UserError: as ``read_json``.
    """
    return parse_yaml(read_text(path), str(path), shape)


def parse_yaml(text: str, source: str, shape: Shape = Any) -> Any:
    """Read YAML of a shape from ``text``; errors begin with ``source``, and never show the text.

    Raises:
        UserError: as ``read_json``.
    """
    with yaml_errors(source):
        tree = yaml.load(text, _Loader)
    return check(tree, shape, source)


@contextmanager
def yaml_errors(source: str) -> Iterator[None]:
    """Turn PyYAML's errors into a UserError that begins with ``source`` and never shows the text."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{source} is no valid YAML: {error.problem or error.context}{place}.") from error
    except RecursionError as error:
        raise UserError(f"{source} is damaged: it is nested more than {MAX_DEPTH} levels deep.") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        what = "a character that YAML does not allow" if isinstance(error, yaml.YAMLError) else "a number out of range"
        raise UserError(f"{source} is no valid YAML: it holds {what}.") from error


def read_npz(path: Path, needed: Mapping[str, str] | None = None) -> Arrays:
    """Read the arrays of an ``.npz`` file by name; an ``.npy`` file holds one, named ``""``. Nothing is unpickled.

    Args:
        path: the file.
        needed: names that must be there, each with the kinds of numbers it may hold (NumPy's ``dtype.kind``, such as
            ``"fiu"``) and, after a space, its number of dimensions.

    Raises:
        UserError: the file is missing or damaged, or an array is missing, of another kind or of another rank.
    """
    content = read_bytes(path)
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
        arrays = {name: found[name] for name in found.files} if hasattr(found, "files") else {"": found}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is no array")
    except Exception as error:  # zip, zlib and NumPy's header parser raise a dozen kinds for damaged bytes
        raise UserError(f"{path} is no file of plain NumPy arrays, or it is damaged.") from error
    for name, wanted in (needed or {}).items():
        kinds, _, rank = wanted.partition(" ")
        if name not in arrays:
            raise UserError(f"{path}: the array {name} is missing; it holds {', '.join(arrays) or 'nothing'}.")
        array = arrays[name]
        if array.dtype.kind not in kinds:
            names = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds))
            raise UserError(f"{path}: {name} must hold {names}, got {array.dtype}.")
        if rank and array.ndim != int(rank):
            raise UserError(f"{path}: {name} must have {rank} dimensions, got the shape {array.shape}.")
    return arrays


def read_tensors(path: Path, like: "Mapping[str, Tensor] | None" = None) -> "dict[str, Tensor]":
    """Read the tensors of a safetensors file, onto the CPU; all numbers in them are finite.

    Args:
        path: the file.
        like: the names and shapes that it must hold, no more and no less; None takes any.

    Raises:
        UserError: the file is missing or damaged, a tensor is missing, unknown, of another shape or not finite.
    """
    tensors: dict[str, Tensor] = _safetensors(path, "pt")[0]
    if like is not None:
        _check_names(
            path, {k: tuple(v.shape) for k, v in tensors.items()}, {k: tuple(v.shape) for k, v in like.items()}
        )
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: "Mapping[str, Tensor]", source: str) -> None:
    """Refuse weights with NaN or infinity.

    Raises:
        UserError: there are; names ``source`` and the tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{source}: the tensor {name} holds numbers that are not finite.")


def read_headed_arrays(path: Path, key: str, shape: Shape) -> tuple[Arrays, Any]:
    """Read the NumPy arrays of a safetensors file, and the JSON of a shape that its header holds under ``key``.

    Raises:
        UserError: the file is missing or damaged, has no such header, or an array holds NaN.
    """
    arrays, header = _safetensors(path, "numpy")
    if key not in header:
        raise UserError(f"{path} is damaged or no file of msgm's: its header has no {key!r}.")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise UserError(f"{path}: the array {name} holds NaN.")
    return arrays, parse_json(header[key], f"{path}, its header", shape)


def read_header(path: Path) -> dict[str, str]:
    """Return the texts by name at the head of a safetensors file.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _safetensors(path, "numpy")[1]


def _safetensors(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import safe_open

    if not path.is_file():
        read_bytes(path)
    try:
        with safe_open(path, framework) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # SafetensorError, OSError of the mapping, or a dtype that the framework lacks
        raise UserError(f"{path} is damaged or no file of msgm's: it cannot be read as safetensors.") from error


def _check_names(path: Path, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    for name in wanted.keys() - found.keys():
        raise UserError(f"{path}: the tensor {name} is missing; these are weights of another network.")
    for name in found.keys() - wanted.keys():
        raise UserError(f"{path}: the network has no tensor {name}; these are weights of another network.")
    for name, shape in wanted.items():
        if found[name] != shape:
            text = f"the tensor {name} has the shape {found[name]}, the network's has {shape}"
            raise UserError(f"{path}: {text}; these are weights of another network.")


def decoded(content: bytes, source: str) -> str:
    """Return UTF-8 bytes as text, less a byte order mark; errors begin with ``source``.

    Raises:
        UserError: they are not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is damaged: byte {error.start + 1} is not UTF-8 text.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"the key {short(twice)} stands in it twice")
    return tree


def _no_constant(text: str) -> None:
    raise UserError(f"{text} is no number that JSON has")


class BoundedLoader(yaml.SafeLoader):
    """A YAML loader that refuses documents nested too deeply."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            what = f"it is nested more than {MAX_DEPTH} levels deep"
            raise yaml.composer.ComposerError(None, None, what, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Loader(BoundedLoader):
    """A YAML loader for plain values only: repeated anchors could expand beyond memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "anchors are not read here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is None:
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain name", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, "a key stands in it twice", key.start_mark)
            seen.add(name)
        return {str(self.construct_object(k)): self.construct_object(v, deep=True) for k, v in node.value}

    def construct_yaml_map(self, node: Any) -> Any:
        return self.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_yaml_map)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, found) for tag, found in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(  # 1e-3 is a number in settings; YAML 1.1 has it as text
    "tag:yaml.org,2002:float", re.compile("[-+]?[0-9][0-9_]*(?:[.][0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
