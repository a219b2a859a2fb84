"""The report of a comparison as a Python object: its folder, its rows, a table, and the row to take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgm.domains import of_report, read_report
from msgm.errors import UserError, known
from msgm.study.judging import CONTROLS
from msgm.study.typed import Row

if TYPE_CHECKING:
    import pandas

APART = ("card", "provenance", "measured", "retrain_band", "per_seed", "artefacts", "facts", "latencies", "history")
"""What a row holds beside its numbers and settings; ``to_json`` has it."""
SHARED = (
    *("name", "objective", "settings", "start", "steps", "lr", "weights"),
    *("seconds", "share_of_retraining", "metrics", "judged", "effect"),
)
"""What a generator's row of several seeds holds that is true of all of them."""


@dataclass(frozen=True)
class Report:
    """What ``compare`` and ``evaluate`` found.

    Example:
        >>> report = msgm.Report.read(compared)
        >>> [row.name for row in report.rows]
        ['do-nothing', 'unseen', 'obtuse']
        >>> best = report.best("suppression")
        >>> best is None or best.name in ("unseen", "obtuse")
        True

    Attributes:
        run: the folder, which holds report.html, report.md, report.json and the cards.
        tree: the content of report.json; that of an earlier version is judged as this version judges.
    """

    run: Path
    tree: dict[str, Any]

    @classmethod
    def read(cls, run: Path | str) -> "Report":
        """Read the report of a folder of ``compare`` or ``evaluate``.

        Raises:
            UserError: there is none, it is damaged, or it is no comparison's.
        """
        folder = Path(run)
        return cls(folder, read_report(folder / "report.json"))

    @property
    def domain(self) -> str:
        """What was compared: ``generator``, ``classifier``, ``recommender``, ``attributes`` or a plugin's domain."""
        return of_report(self.tree).name

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order of report.json."""
        return [Row.from_json(tree) for tree in self.tree["rows"]]

    def to_json(self) -> dict[str, Any]:
        """Return the content of report.json; that of an earlier version is judged as this version judges."""
        return self.tree

    def table(self) -> list[dict[str, Any]]:
        """Return one flat dictionary a row.

        A number with an interval gives three entries, ``name``, ``name.low`` and ``name.high``; what a row holds beside
        numbers and settings is left out. Numbers are means where a row has several seeds. ``level`` is the level that
        the row's card reaches on the ladder.
        """
        return [{**self._level(row), **dict(_flat(_of_all_seeds(row.tree), ""))} for row in self.rows]

    def to_pandas(self) -> "pandas.DataFrame":
        """Return ``table()`` as a data frame.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("to_pandas needs pandas, which is not installed; pip install 'msgm[pandas]'.") from None
        return pandas.DataFrame(self.table())

    def row(self, name: str) -> Row:
        """Return the row of a name, where one row has it: a generator's ``name``, or a ``method``.

        Raises:
            UserError: no row has this name, or several have.
        """
        rows = self.rows
        names = [row.name for row in rows]
        known(name, list(dict.fromkeys(names)), "row", "row")
        if names.count(name) > 1:
            raise UserError(f"row: {names.count(name)} rows are called {name!r}; take one of report.rows.")
        return rows[names.index(name)]

    def level(self, row: Row | str) -> str | None:
        """Return the level, C0 to C5, that a row's card reaches; None where rows have no cards (attributes).

        Args:
            row: one of ``rows``, or its name; errors as of ``row``.
        """
        card = self._card(row)
        return None if card is None else str(card["level"])

    def card(self, row: Row | str) -> dict[str, Any]:
        """Return a row's card, which says what was asked, what was shown and how far, and what cannot be said.

        Args:
            row: one of ``rows``, or its name; errors as of ``row``.

        Raises:
            UserError: a report of attributes, whose rows have no cards.
        """
        card = self._card(row)
        if card is None:
            raise UserError(f"card: the rows of an {self.domain} report have no cards; read their numbers.")
        return card

    def _card(self, row: Row | str) -> dict[str, Any] | None:
        found = self.row(row) if isinstance(row, str) else row
        return of_report(self.tree).card(self.tree, found.to_json())

    def best(
        self, goal: Literal["suppression", "removal"], request: str | None = None, model: str | None = None
    ) -> Row | None:
        """Return the row to take for a goal, or None where no row qualifies.

        The base model and the retrained models are references and are never returned.

        - ``suppression`` (generators): of the rows whose junk rate is not shown to exceed the base's by more than 5
          points, the one whose mean unlearning ratio over seeds is lowest; of equal ones the faster. None where a
          control of C1 failed: a judge that does not see the content, or a base model that does not show it.
        - ``removal``: the row whose card reaches the highest level on the ladder, C1 at least; of equal ones the
          faster. Rows with guidance, which leave the weights as they are, are left out.

        Args:
            goal: what is wanted.
            request: of classifiers and recommenders, for which request; needed where there are several.
            model: of recommenders, for which model; needed where there are several.

        Raises:
            UserError: another goal, one that this domain does not measure, or several requests or models.
        """
        apart = {"request": request, "model": model}
        if self.domain == "generator" and any(apart.values()):
            raise UserError("best: a generator report has one request and one base model; name neither.")
        rows = self._chosen({} if self.domain == "generator" else apart)
        if goal == "suppression":
            if self.domain != "generator":
                raise UserError(f"best: a {self.domain} report measures no suppression of outputs; ask for removal.")
            return self._best_suppression(rows)
        if goal != "removal":
            raise UserError(f"best: goal: expected 'suppression' or 'removal', got {goal!r}.")
        if self.domain == "attributes":
            raise UserError("best: an attributes report has no ladder; read its rows.")
        levels = [(self.level(row), row) for row in rows if row.tree.get("start") != "guide"]
        reached = max((str(level) for level, _ in levels), default="C0")
        equal = [row for level, row in levels if level == reached]
        return min(equal, key=_seconds) if reached != "C0" else None

    def _best_suppression(self, rows: list[Row]) -> Row | None:
        from msgm.cards.claims import FAIL
        from msgm.evaluation.ladder import LADDER, junk_check, measured_by, ratio_of

        # A generator's controls are the same for every row.
        controls = LADDER.controls(self.tree, rows[0].to_json()) if rows else []
        if any(control.verdict == FAIL and "C1" in control.needed_by for control in controls):
            return None
        rated = [row for row in rows if measured_by(row.to_json(), "ur")]
        usable = [row for row in rated if junk_check(self.tree, row.to_json()).holds is not False]
        return min(usable, key=lambda row: (ratio_of(row.to_json())["value"], _seconds(row)), default=None)

    def _chosen(self, wanted: Mapping[str, str | None]) -> list[Row]:
        """Return the rows of the request and the model that are wanted, without the references."""
        rows = [row for row in self.rows if not self._is_reference(row)]
        for key, value in wanted.items():
            there = list(dict.fromkeys(row[key] for row in self.rows if key in row.tree))
            if value is None and len(there) > 1:
                raise UserError(f"best: {key}: say which; the report has {', '.join(there)}.")
            if value is not None and value not in there:
                raise UserError(f"best: {key}: the report has no {value!r}; it has {', '.join(there) or 'none'}.")
            rows = [row for row in rows if value is None or row.tree.get(key) == value]
        return rows

    def _is_reference(self, row: Row) -> bool:
        if self.domain != "generator":
            return row.name in CONTROLS
        return row["start"] in ("none", "random") or (row["start"], row["objective"]) == ("scratch", "unseen")

    def _level(self, row: Row) -> dict[str, Any]:
        level = self.level(row)
        return {} if level is None else {"level": level}

    def __repr__(self) -> str:
        return f"Report({str(self.run)!r}, {self.domain}, {len(self.rows)} rows)"


def _seconds(row: Row) -> float:
    return row.cost.seconds


def _of_all_seeds(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is true of all seeds of a row; a generator's holds what was measured at the first one, too."""
    of_first = "measured" in row and len(row.get("per_seed", ())) > 1
    return {key: value for key, value in row.items() if key in SHARED} if of_first else row


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the numbers and texts of a row by dotted names; lists are left out."""
    for key, value in tree.items():
        if not prefix and key in APART:
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "value" in value:
            yield name, value["value"]
            yield from ((f"{name}.{end}", value[end]) for end in ("low", "high") if value.get(end) is not None)
        elif isinstance(value, Mapping):
            yield from _flat(value, "" if name == "metrics" else f"{name}.")
        elif not isinstance(value, list):
            yield name, value
