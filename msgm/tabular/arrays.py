"""The columns of Parquet files and of NumPy's; what no cell can be is refused when the column is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msgm.errors import UserError
from msgm.reading import read_bytes, read_npz
from msgm.tabular.columns import Cells

EXPECTED = "expected text, numbers, booleans or dates"
NOT_A_TIME = -(2**63)
"""How NumPy stores NaT."""
Loaders = tuple[list[str], list[Callable[[], Cells]]]


def from_numpy(path: Path) -> Loaders:
    """Return names and columns of an ``.npz`` or ``.npy`` file.

    Raises:
        UserError: the file cannot be read, or its arrays are not of one length, which is not 0.
    """
    columns: dict[str, NDArray[Any]] = {}
    names = []
    for name, array in read_npz(path).items():
        for title, column in _flat(path, name, array):
            names.append(title)
            columns[title] = column
    lengths = {name: len(column) for name, column in columns.items()}
    if not max(lengths.values(), default=0):
        raise UserError(f"{path} holds no rows.")
    if len(set(lengths.values())) > 1:
        raise UserError(f"{path}: its arrays differ in length: {lengths}.")
    return names, [partial(_from_array, path, name, columns[name]) for name in names]


def _flat(path: Path, name: str, array: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    if array.ndim not in (1, 2):
        raise UserError(f"{path}: array {name!r} has shape {array.shape}; expected one or two dimensions.")
    if array.ndim == 1:
        return [(name.strip() or "0", array)]
    return [(f"{name.strip()}.{k}".removeprefix("."), array[:, k]) for k in range(array.shape[1])]


def _from_array(path: Path, name: str, array: NDArray[Any]) -> Cells:
    if array.dtype.kind == "S":
        return _decoded(path, name, array.tolist())
    if array.dtype.kind == "U":
        return list(map(str.strip, array.tolist()))
    if array.dtype.kind not in "biufM" or array.dtype == np.longdouble:
        raise UserError(f"{path}, column {name!r}: cells of type {array.dtype} are not read; {EXPECTED}.")
    return array


def from_parquet(path: Path) -> Loaders:
    """Return names and columns of a Parquet file.

    Raises:
        UserError: pyarrow is not installed, or the file cannot be read, is damaged or empty.
    """
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(f"{path}: reading Parquet needs pyarrow; get it with pip install pyarrow.") from error
    content = read_bytes(path)
    with damaged(path):
        table = parquet.ParquetFile(arrow.BufferReader(content)).read()
    if not table.num_rows:
        raise UserError(f"{path} holds no rows.")
    names = [name.strip() for name in table.column_names]
    return names, [partial(from_arrow, path, *named) for named in zip(names, table.columns, strict=True)]


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Context that reads Parquet; whatever fails in it is a ``UserError``."""
    try:
        yield
    except Exception as error:  # damaged bytes raise OSError, ValueError, NotImplementedError and others of pyarrow's
        raise UserError(f"cannot read {path}: {' '.join(str(error).split()).rstrip('.')}.") from error


def from_arrow(path: Path, name: str, column: Any) -> Cells:
    """Return a column of a Parquet file as text or as an array; nulls are "", NaN, NaT or None."""
    arrow = import_module("pyarrow")
    types, kind = arrow.types, column.type
    if isinstance(kind, arrow.BaseExtensionType):
        if kind.extension_name == "arrow.uuid":
            return ["" if cell is None else str(cell) for cell in column.to_pylist()]
        column = arrow.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        return from_arrow(path, name, column)
    if types.is_dictionary(kind):
        return from_arrow(path, name, column.cast(kind.value_type))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind):
        try:
            return ["" if cell is None else cell.strip() for cell in column.to_pylist()]
        except UnicodeDecodeError:
            return _decoded(path, name, column.cast(arrow.large_binary()).to_pylist())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return _decoded(path, name, column.to_pylist())
    if types.is_date(kind):
        return column.cast(arrow.date32()).to_numpy()
    if types.is_timestamp(kind):
        ticks = column.cast(arrow.int64()).fill_null(NOT_A_TIME).to_numpy()
        return ticks.astype(f"datetime64[{kind.unit}]")
    if types.is_decimal(kind) or (column.null_count and (types.is_boolean(kind) or types.is_integer(kind))):
        return np.array(column.to_pylist(), dtype=object)
    if types.is_floating(kind) or types.is_boolean(kind) or types.is_integer(kind):
        return column.to_numpy()
    raise UserError(f"{path}, column {name!r}: cells of type {kind} are not read; {EXPECTED}.")


def _decoded(path: Path, name: str, cells: list[bytes | None]) -> list[str]:
    """Return bytes as text; programs of some databases store text so."""
    texts = []
    for row, cell in enumerate(cells, 1):
        try:
            texts.append((cell or b"").decode().strip())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, row {row}, column {name!r}: expected text in UTF-8, got {cell!r}.") from error
    return texts
