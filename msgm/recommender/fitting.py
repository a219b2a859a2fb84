"""Fits a recommender into a folder to serve from, without what the folder's journal says is forgotten."""

from pathlib import Path
from time import perf_counter

from msgm import traces
from msgm.digests import KEY, folder_key
from msgm.errors import UserError, known
from msgm.folders import locked, write_bytes, write_json
from msgm.recommender.answering import seal, write_ids
from msgm.recommender.config import RecommenderConfig
from msgm.recommender.data.base import Interactions, load_interactions
from msgm.recommender.journal import DONE, PLANNED, REFUSED, Journal
from msgm.recommender.journal import NAME as JOURNAL
from msgm.recommender.leftovers import IDS
from msgm.recommender.models import MODELS
from msgm.recommender.models.base import FILE
from msgm.recommender.pending import PENDING, read_pending
from msgm.recommender.requests import Deletion
from msgm.recommender.sparse import kept
from msgm.runs import environment, refuse_served, within
from msgm.seeding import derive_seed


def fit(config: RecommenderConfig, model: str | None, out: Path) -> Path:
    """Fit a model of ``config`` to all interactions of its data, held-out ones included, into a folder to serve from.

    Where the folder has the journal of an earlier model, everything it was asked to forget is left out of the fit.

    Args:
        config: the experiment.
        model: name of the row; may be None where the config has one model.
        out: the folder; the model file is written last.

    Raises:
        UserError: an unknown model, none named among several, the folder holds a model already, a run of another kind
            or a journal without its key, it lies in another run, or nothing is left to fit to.
    """
    rows = [name for name, settings in config.models.items() if settings is not None]
    if model is None and len(rows) != 1:
        raise UserError(f"--model: say which; the config has {', '.join(rows) or 'none'}.")
    row = rows[0] if model is None else known(model, rows, "--model", "model")
    with locked(out):
        _fit(config, row, out)
    return out


def _fit(config: RecommenderConfig, row: str, out: Path) -> None:
    if (out / FILE).exists():
        raise UserError(
            f"{out} holds a recommender already; delete {out / FILE} to fit it anew, without what its journal says is "
            "forgotten. Another --out knows nothing of the journal."
        )
    _refuse_other_runs(out)
    data, made = load_interactions(config.data), MODELS.build(config.models[row])
    journal, gone = _earlier_requests(out, data)
    mask = gone.mask(data.matrix)
    if mask.all():
        raise UserError(
            f"{out}: its journal says that all interactions of the data are forgotten; none is left to fit."
        )
    times = None if data.times is None else data.times[~mask]
    start = perf_counter()
    made.fit(kept(data.matrix, ~mask), derive_seed(config.seed, "fit"), times)
    seconds = perf_counter() - start
    made.gone_users[gone.users], made.gone_items[gone.items] = True, True
    made.applied, made.seal = max(journal.numbers(PLANNED), default=0), journal.seal()
    facts = {"kind": "recommender", "model": row, "settings": made.settings(), "data": config.data["name"]}
    write_json(out / "manifest.json", environment() | facts | {"digest": data.digest(), "fit_seconds": seconds})
    write_ids(out, {"users": [*data.users.ids], "items": [*data.items.ids]}, made)
    traces.register(out, out / FILE, *traces.KNOWN[FILE])
    traces.register(out, out / IDS, *traces.KNOWN[IDS])
    made.save(out)
    seal(out)


def _refuse_other_runs(out: Path) -> None:
    """Refuse a folder that holds a run of another kind, or that lies in any run."""
    refuse_served(out.resolve().parent)
    for around in (out, *out.resolve().parents):
        if all((around / name).is_file() for name in ("manifest.json", "config.yaml")):
            raise UserError(f"{within(out, around)} holds a run of another kind; give another --out.")


def _earlier_requests(out: Path, data: Interactions) -> tuple[Journal, Deletion]:
    """Return the folder's journal, a new one if there is none, and the parts of ``data`` that it lists as forgotten.

    A request that was pending when the earlier model was lost is answered by leaving its cells out of the fit.

    Raises:
        UserError: the journal is there without its key.
    """
    if not (out / JOURNAL).is_file():
        folder_key(out)
        write_bytes(out / JOURNAL, b"")
        return Journal(out), Deletion()
    if not (out / KEY).is_file():
        raise UserError(
            f"{out} holds the journal of an earlier model without its key, so nobody can tell whom that has forgotten; "
            "give another --out."
        )
    journal = Journal(out)
    for request in read_pending(out):
        if request["request"] not in journal.numbers(DONE, REFUSED):
            journal.add(request, PLANNED)
            journal.add(request, DONE, exactness="bit-exact", seconds=0.0, touched=0, by="left out of the next fit")
    (out / PENDING).unlink(missing_ok=True)
    gone = journal.forgotten(data)
    if journal.lines:
        print(
            f"left out, since the journal in {out} says that they are forgotten: {len(gone.users)} users, "
            f"{len(gone.items)} items and {len(gone.cells)} single interactions of the data"
        )
    return journal, gone
