"""Variations of a comparison's rows from the command line: their start, and sweeps of one setting."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from msgm.config import BASE_ROW, FROM_BASE, Config, TrainingSettings
from msgm.diffusion import GUIDANCE
from msgm.errors import UserError, nearest
from msgm.fields import merged, structured
from msgm.objectives import OBJECTIVES
from msgm.objectives.edits import EDITS
from msgm.registry import Registry
from msgm.rows import Row

TRAINED = ("scratch", "finetune")
PARTS: dict[str, Registry[Any]] = {"objective": OBJECTIVES, "edit": EDITS, "guidance": GUIDANCE}
SECTIONS = [*PARTS, "training"]
FORM = "objective.SETTING=V1,V2, edit.SETTING=V1,V2, guidance.SETTING=V1,V2 or training.SETTING=V1,V2"


def with_start(config: Config, start: Literal["scratch", "finetune"]) -> Config:
    """Return the config with its trained rows started from random weights or from the base model.

    The retrained reference, ``unseen`` from random weights, stays what it is, and a row that becomes the same is left
    out. A row that is moved loses its own training settings, with a note: they were chosen for the other start.

    Args:
        config: the experiment.
        start: ``scratch`` or ``finetune``.
    """
    stay = {name: row for name, row in config.rows.items() if _stays(row, start)}
    rows = {}
    for name, row in config.rows.items():
        moved = row if name in stay else replace(row, start=start, training={})
        twin = next((other for other in stay if other != name and _same_run(config, stay[other], moved)), None)
        if name not in stay and twin:
            print(f"note: with --start {start} row {name} is {twin}, and runs once.")
            continue
        if row.training != moved.training:
            print(f"note: row {name} leaves out its settings for start {row.start}: training {row.training}.")
        rows[name] = moved
    return replace(config, rows=rows)


def _stays(row: Row, start: str) -> bool:
    reference = row.start == "scratch" and row.objective.get("name") == "unseen"
    return row.start not in TRAINED or row.start == start or reference


def _same_run(config: Config, one: Row, other: Row) -> bool:
    if any(getattr(one, key) != getattr(other, key) for key in ("start", *PARTS)):
        return False
    return config.row_training(one) == config.row_training(other)


@dataclass(frozen=True)
class Sweep:
    """One setting and its values, as ``--sweep`` gives them.

    Attributes:
        section: ``objective``, ``edit``, ``guidance`` or ``training``.
        key: the setting; one of a mask, say, is ``mask.keep``.
        values: its values, as they were written.
    """

    section: str
    key: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, config: Config) -> "Sweep":
        """Read ``SECTION.KEY=V1,V2``.

        Raises:
            UserError: another form, or a setting that no row of the config has.
        """
        name, equals, values = text.partition("=")
        section, dot, key = name.strip().partition(".")
        given = tuple(dict.fromkeys(value.strip() for value in values.split(",")))
        if section not in SECTIONS:
            raise UserError(f"--sweep {text}: expected {FORM}.{nearest(section, SECTIONS)}")
        if not (equals and dot and all(given)):
            raise UserError(f"--sweep {text}: expected {FORM}.")
        known = list(dict.fromkeys(key for row in config.rows.values() for key in _settings(row, section)))
        if key not in known:
            raise UserError(f"--sweep {name.strip()}: no row has it; known: {', '.join(known)}.{nearest(key, known)}")
        return cls(section, key, given)

    @property
    def name(self) -> str:
        """The setting's whole key."""
        return f"{self.section}.{self.key}"

    def concerns(self, row: Row) -> bool:
        """Return whether the setting has an effect on the row."""
        return self.key in _settings(row, self.section)

    def rows(self, config: Config, name: str) -> dict[str, Row]:
        """Return a row for every value, by name: row ``name`` with this one setting changed.

        Raises:
            UserError: a value that the part itself refuses, or that cannot stand in a folder's name.
        """
        found = {}
        for text in self.values:
            row, value = self._row(config, config.rows[name], None if text == "null" else text)
            if not re.fullmatch(r"[\w.+-]+", value):
                raise UserError(f"--sweep {self.name}: {value!r} cannot name a folder; sweep numbers or words.")
            same = _without_forget_term(config, row)
            found[same or f"{name}@{self.key}={value}"] = config.rows[same] if same else row
        return found

    def _row(self, config: Config, row: Row, value: str | None) -> tuple[Row, str]:
        """Return the row with the value in place, and how the value is spelt."""
        changed: Any
        try:
            if self.section in PARTS:
                settings = PARTS[self.section].resolve(merged(getattr(row, self.section), _tree(self.key, value)))
                changed, resolved = replace(row, optional=True), _leaves(settings)[self.key]
                setattr(changed, self.section, settings)
            else:
                changed = replace(row, training=row.training | {self.key: value}, optional=True)
                resolved = getattr(config.row_training(changed), self.key)
                changed.training[self.key] = resolved
        except UserError as error:
            raise UserError(f"--sweep: {error}") from error
        return changed, "null" if resolved is None else str(resolved)


def _settings(row: Row, section: str) -> list[str]:
    """Return the settings of a section that have an effect on the row."""
    if row.start not in ("scratch", *FROM_BASE):
        return []
    if section == "training":
        return _training_keys() if row.objective or _tunes(row) else []
    settings = getattr(row, section)
    return list(_leaves(PARTS[section].build(settings).effective())) if settings else []


def _leaves(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by name; those of a part that is set, such as a mask, by the part's name and theirs."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inner = value if isinstance(value, Mapping) else None
        found |= {name: value} if inner is None else {f"{name}.{key}": each for key, each in inner.items()}
    return found


def _tree(key: str, value: Any) -> dict[str, Any]:
    part, dot, name = key.partition(".")
    return {part: {name: value}} if dot else {key: value}


def _tunes(row: Row) -> bool:
    """Return whether a row without steps tunes a copy of the model."""
    return EDITS.build(row.edit).tunes if row.start == "edit" else GUIDANCE.build(row.guidance).tunes


def _training_keys() -> list[str]:
    return [field.name for field in fields(TrainingSettings)]


def _without_forget_term(config: Config, row: Row) -> str | None:
    """Return the row of ``unseen`` that equals ``row`` at alpha 1, without a forget term; None if there is none."""
    if not row.objective or OBJECTIVES.build(row.objective).effective().get("alpha") != 1:
        return None
    unseen = replace(row, objective=OBJECTIVES.resolve({"name": "unseen"}))
    return next((name for name, other in config.rows.items() if _same_run(config, other, unseen)), None)


def with_sweeps(config: Config, sweeps: list[str], only: list[str] | None) -> tuple[Config, list[str]]:
    """Return the config with the swept rows, and the names of the rows to run.

    A row is swept when the setting has an effect on it: those of ``only``, or all that are neither optional nor a
    reference. ``do-nothing`` and the rows of ``unseen``, from random weights and from the base model, stand beside.

    Args:
        config: the experiment.
        sweeps: texts such as ``objective.alpha=0.7,0.9``; each varies one setting of the rows as the config has them.
        only: names of rows to sweep.

    Raises:
        UserError: what ``Sweep`` raises, an unknown row, or one that the setting has no effect on.
    """
    found: dict[str, Row] = {}
    for text in sweeps:
        sweep = Sweep.parse(text, config)
        for name in _to_sweep(config, sweep, only):
            found |= sweep.rows(config, name)
    references = [name for name, row in config.rows.items() if name == BASE_ROW or _is_reference(row)]
    return replace(config, rows=config.rows | found), list(dict.fromkeys([*references, *found]))


def _is_reference(row: Row) -> bool:
    return row.objective.get("name") == "unseen" and not row.optional


def _to_sweep(config: Config, sweep: Sweep, only: list[str] | None) -> list[str]:
    fitting = [name for name, row in config.rows.items() if sweep.concerns(row)]
    if not only:
        usual = [name for name in fitting if not config.rows[name].optional and not _is_reference(config.rows[name])]
        if not usual:
            raise UserError(f"--sweep {sweep.name}: name its rows with --only; possible: {', '.join(fitting)}.")
        return usual
    for name in only:
        if name not in fitting:
            what = "has no effect on row" if name in config.rows else "unknown row"
            raise UserError(
                f"--sweep {sweep.name}: {what} {name!r}; rows to sweep: {', '.join(fitting)}.{nearest(name, fitting)}"
            )
    return only


def swept(name: str) -> tuple[str, str, str] | None:
    """Return row, setting and value of a swept row's name, such as ``orthogonal@alpha=0.7``; None for any other row."""
    row, at, point = name.rpartition("@")
    key, equals, value = point.partition("=")
    return (row, key, value) if at and equals else None


def with_stored_sweeps(config: Config, stored: dict[str, Any] | None) -> Config:
    """Return the config with the swept rows of a compare folder's stored settings, which need not be named again."""
    rows = (stored or {}).get("rows", {})
    missing = [name for name in rows if swept(name) and name not in config.rows]
    earlier = {name: structured(Row, rows[name], f"rows.{name}") for name in missing}
    return replace(config, rows=config.rows | earlier) if earlier else config
