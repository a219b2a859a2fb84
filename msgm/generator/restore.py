"""``msgm inpaint`` and ``msgm reconstruct``: real test items restored by a trained model, as pictures and numbers."""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msgm import traces
from msgm.config import Config
from msgm.data import Dataset, load_dataset, quantise
from msgm.devices import chosen_device
from msgm.diffusion import ScoreModel
from msgm.diffusion.guidance import load_guided
from msgm.errors import UserError
from msgm.evaluation import Bench
from msgm.evaluation.judge import check_judge
from msgm.evaluation.metrics.unlearning_ratio import percent, percent_interval
from msgm.evaluation.restored import PROTOCOL, RestorationTask, Restored, items_to_restore
from msgm.folders import locked, whole_folder, write_bytes, write_json
from msgm.pictures import figure_png
from msgm.runs import Run, environment, find_model
from msgm.splits import Split
from msgm.tables import aligned
from msgm.training.earlier import earlier_chain
from msgm.training.run import split_data

SHOWN = 10
"""Items of each kind in the picture."""
HOLE = (0.85, 0.45, 0.25)
"""Colour of removed pixels, which no grey image has."""


def restore_run(
    source: Path | str,
    config: Config,
    task: RestorationTask,
    count: int = 100,
    seed: int = 0,
    out: Path | str | None = None,
    device: str = "auto",
    ask: Sequence[int] = (),
) -> list[Path]:
    """Have a model restore the first ``count`` test items of each kind, and write pictures, arrays and numbers.

    Args:
        source: a run or diffusers folder.
        config: the experiment: data, request and judge.
        task: how items are restored.
        count: items of each of retain and forget; where fewer are to be forgotten, all of those.
        seed: of the noise.
        out: by default ``inpaint`` or ``reconstruct`` in a run of ours, else ``runs/NAME-inpaint`` and so on.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        ask: numbers of the classes that a class-conditional model is asked for, in turn; by default each item's own.

    Returns:
        The files: ``triptychs.png``, ``restored.npz``, ``numbers.json``.

    Raises:
        UserError: no model there, one or a task that does not fit the data, more items than there are, or classes that
            the model does not know; nothing is written then.
    """
    work = Work.prepare(source, config, count, device)
    work.model.asked(list(ask) or None, len(ask))  # refuses classes that the model does not know
    how = task.describe(work.model.shape, work.model.process)
    folder = Path(out) if out else _default_folder(Path(source), task.command)
    with locked(folder):
        bench = work.bench(folder, source)
        done = task.measured(work.model, bench, count, seed, ask)
        facts = {"source": str(source), "seed": seed, **task.options, "protocol": {task.name: how} | PROTOCOL}
        facts |= {"asked": list(ask)} if ask else {}
        return _write(folder, done, bench, facts, task.given, task.hole(work.model.shape))


@dataclass(frozen=True)
class Work:
    """A model with the data that it is to restore, all checked."""

    config: Config
    model: ScoreModel
    dataset: Dataset
    split: Split
    device: torch.device

    @classmethod
    def prepare(cls, source: Path | str, config: Config, count: int, device: str) -> "Work":
        """Load model and data.

        Raises:
            UserError: no model, one of another shape than the data, a judge that cannot be had, or fewer items than
                ``count``.
        """
        where = chosen_device(device)
        found = find_model(source)
        model = load_guided(found).to(where)
        dataset = load_dataset(config.data)
        split = split_data(config, dataset, earlier_chain(found, config, dataset).requests)
        if model.shape != dataset.shape:
            raise UserError(f"{found} makes items of shape {model.shape}, but the data has {dataset.shape}.")
        items_to_restore(dataset, split, count)
        check_judge(dataset, split, config.request, config.evaluation.judge)
        return cls(config, model, dataset, split, where)

    def bench(self, folder: Path, source: Path | str) -> Bench:
        """Return the bench; reuses the judge of the source, or of the comparison that the source is a row of.

        A row's model at a later seed lies three folders below its comparison.
        """
        run, whole = Run(folder), Path(source).resolve()
        run.create()
        for owner in (whole, *whole.parents[:3]):
            if (owner / "judge" / "judge.json").is_file() and not (folder / "judge").exists():
                with whole_folder(folder / "judge") as new:
                    shutil.copytree(owner / "judge", new, dirs_exist_ok=True)
        return Bench.make(self.config, run, self.dataset, self.split, self.device)


def _default_folder(source: Path, command: str) -> Path:
    """Return a folder in a run of ours; nothing is written into a folder that was made elsewhere."""
    if Run(source).manifest.is_file():
        return source / command
    return Path("runs") / f"{source.resolve().name}-{command}"


def _write(
    folder: Path, done: dict[str, Restored], bench: Bench, facts: dict[str, Any], given: str, removed: Tensor | None
) -> list[Path]:
    """Write picture, arrays and numbers, print the table and return the files; ``given`` describes the inputs."""
    paths = [folder / name for name in ("triptychs.png", "restored.npz", "numbers.json")]
    for path in paths[:2]:
        traces.register(folder, path, "test items, those to forget too, and what a model made of them")
    write_bytes(paths[0], _picture(done, given, removed) if bench.dataset.is_image else _scatter(done))
    write_bytes(paths[1], _arrays(done, bench.dataset.is_image, removed))
    numbers = {kind: restored.numbers for kind, restored in done.items()}
    write_json(paths[2], facts | numbers | {"judge": bench.judge.summary(), "environment": environment()})
    _print_table(numbers, facts["protocol"], removed is not None)
    return paths


def _arrays(done: dict[str, Restored], images: bool, removed: Tensor | None) -> bytes:
    """Return an npz of ``retain_`` and ``forget_`` ``indices``, ``originals`` and ``restored``, and ``removed``.

    Images are (N, H, W, C) uint8 of 256 levels as ``msgm sample`` writes them, vectors (N, D) float32.
    """
    arrays = {} if removed is None else {"removed": removed.numpy()}
    for kind, part in done.items():
        arrays[f"{kind}_indices"] = part.indices
        for name, items in (("originals", part.originals), ("restored", part.restored)):
            arrays[f"{kind}_{name}"] = (
                quantise(items, 256).permute(0, 2, 3, 1).numpy() if images else items.float().numpy()
            )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _picture(done: dict[str, Restored], given: str, removed: Tensor | None) -> bytes:
    """Return a PNG with three lines for each kind: originals, inputs of the model, restorations."""
    from matplotlib.figure import Figure

    shown = max(min(SHOWN, len(part.indices)) for part in done.values())
    figure = Figure(figsize=(1.1 + 0.75 * shown, 0.4 + 0.8 * 3 * len(done)), layout="constrained")
    panels = figure.subfigures(len(done), 1, squeeze=False)[:, 0]
    for panel, (kind, part) in zip(panels, done.items(), strict=True):
        panel.suptitle(f"{kind}: the first {min(SHOWN, len(part.indices))} of {len(part.indices)}", fontsize=10)
        axes = panel.subplots(3, shown, squeeze=False)
        lines = {"original": part.originals, given: part.given, "restored": part.restored}
        for line, (name, items) in zip(axes, lines.items(), strict=True):
            line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
            for cell in line:
                cell.axis("off")
            for cell, item in zip(line, items, strict=False):
                cell.imshow(_pixels(item, removed if name == given else None), interpolation="nearest")
    return figure_png(figure)


def _pixels(item: Tensor, removed: Tensor | None) -> np.ndarray[Any, Any]:
    """Return an image (C, H, W) in [-1, 1] as (H, W, 3) in [0, 1], with removed pixels in a colour of their own."""
    picture = ((item.nan_to_num(-1.0).clamp(-1, 1) + 1) / 2).expand(3, *item.shape[1:]).permute(1, 2, 0).numpy().copy()
    if removed is not None:
        picture[removed.numpy()] = HOLE
    return picture


def _scatter(done: dict[str, Restored]) -> bytes:
    """Return a PNG of vectors before and after, by their first two coordinates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for cell, name in zip(axes, ("originals", "restored"), strict=True):
        cell.set_title(name, fontsize=10)
        for kind, part in done.items():
            points = getattr(part, name)
            cell.scatter(points[:, 0], points[:, 1], s=6, linewidths=0, label=kind)
    axes[0].legend(fontsize=8)
    return figure_png(figure)


def _print_table(numbers: dict[str, dict[str, Any]], protocol: dict[str, str], hole: bool) -> None:
    """Print a line a kind, and how it was made."""
    names = {"PSNR": "psnr", "SSIM": "ssim"} | (
        {"PSNR hole": "psnr_removed", "SSIM hole": "ssim_removed"} if hole else {}
    )
    head = ["", "items", "accuracy % [95% CI]", "label %", "UR % [95% CI]", "junk %", *names]
    rows = []
    for kind, row in numbers.items():
        label = row["label_accuracy"]
        cells = [kind, f"{row['n']} {row['part']}", percent_interval(row["accuracy"])]
        cells += ["-" if label is None else percent(label["value"]), percent_interval(row["unlearning_ratio"])]
        rows.append([*cells, percent(row["junk_rate"]), *(_number(row[key]) for key in names.values())])
    print("\n".join([*aligned(head, rows), "", next(iter(protocol.values())), ""]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
