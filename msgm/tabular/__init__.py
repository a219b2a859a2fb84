"""Tables, logs and lists of ids as people keep them in files: CSV, TSV, Parquet and NumPy arrays, read in one way.

- Spaces around a cell, a name in the header or an id are no part of it; in quotes or not.
- Quotes are as in CSV, whatever stands between the columns. A byte order mark and the kind of line ends do not matter;
  blank lines count for nothing but the numbers of lines.
- An id is text. Whole numbers of binary files are their decimal digits, so 1.0 is "1"; a missing id is refused. The
  texts ``nan``, ``None`` and ``NULL`` are ids as written, but no value of a class or of a group.
- A number is finite, and float32, in which models compute, holds it. A time lies between 1970 and 2200.

Nothing here needs torch: recommenders start without it.
"""

from msgm.tabular.columns import Column, moments, narrowed
from msgm.tabular.lists import read_ids, read_lines, read_pairs
from msgm.tabular.table import Table, read_delimited, read_table

__all__ = [
    "Column",
    "Table",
    "moments",
    "narrowed",
    "read_delimited",
    "read_ids",
    "read_lines",
    "read_pairs",
    "read_table",
]
