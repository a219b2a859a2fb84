"""Speed of the recommender module, as ratios of seconds taken in one run on one machine.

- ease_one_user: seconds of fitting EASE anew / seconds of forgetting one user, both on the whole matrix; median over
  users drawn at random. ease_one_user_ms and ease_refit_seconds are the medians of both.
- als_five_percent: the same ratio for 5% of the interactions and implicit ALS.
- als_trace: the AUC of telling these from as many held-out interactions by the scores, standardised by user, after ALS
  has forgotten them, less the AUC after a refit; als_trace_before is that of the model before. 0 is no trace.
- forget_stream_seconds, forget_stream_writes: of ``msgm recommender forget SHOP --users FILE`` with a thousand lines
  and EASE, from reading the folder to the search for leftovers; writes are those of the model file.
- serve_reads_per_second, serve_p99_ms: lists of ten that ``msgm recommender serve SHOP`` with EASE answers in a second
  to four callers, who ask without pause, and the 99th percentile of the milliseconds until an answer, while another
  has one user after the other forgotten. Callers and server share the machine.
- als_fit_vs_implicit, bpr_epoch_vs_implicit: our seconds / those of the package ``implicit``, on as many threads.
- partition_seconds: seconds to partition the users into 10 shards by optimal transport, learning the vectors included.
- whatif_MODEL_ms: milliseconds to tell what a user's list of ten would be without one of their items, and what it is;
  median over users and items drawn at random.
- sisa_fold_in_loss_BASE: 1 - NDCG@10 of a base model in 10 shards of users at random, with fold-in, over that of the
  full model; sisa_fold_in_loss is the largest of the bases measured. Means over seeds of fits and shards.
- rec_eraser_ratio: NDCG@10 of RecEraser, LightGCN in 10 shards of interactions, over that of the full model.
- threads, machine: what all of this ran on.

What is named from whatif_MODEL_ms on is measured on MovieLens 100K below the folder that MSGM_DATA names, or, without
it, on a synthetic matrix of its size (943 users, 1,682 items, 100,000 cells). For all others it is MovieLens 1M or a
synthetic one of that size (6,040 users, 3,706 items, a million cells). LightGCN has 32 factors and 40 epochs here, half
of its defaults, and one seed where other bases have three, so that everything takes a few minutes. Where other work
shares the machine, trust the ratios and not the seconds.
"""

import argparse
import copy
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from sklearn.metrics import roc_auc_score

from msgm import threads
from msgm.cli import main as msgm
from msgm.errors import RunError
from msgm.folders import write_json
from msgm.reading import read_json
from msgm.recommender.config import load_config
from msgm.recommender.data.base import Interactions, Split, load_interactions
from msgm.recommender.data.splits import load_split
from msgm.recommender.fitting import fit
from msgm.recommender.metrics.ranking import ranking
from msgm.recommender.models.als import ALS
from msgm.recommender.models.base import MODELS, Recommender
from msgm.recommender.models.bpr import BPR
from msgm.recommender.requests import Deletion
from msgm.recommender.sharding.partitions import make_partition
from msgm.recommender.whatif import what_if
from msgm.seeding import derive_seed
from msgm.study.band import t_interval

SEED = 0
REPEATS = 3
BASES: dict[str, dict[str, Any]] = {"ease": {}, "als": {}, "bpr": {}, "lightgcn": {"factors": 32, "epochs": 40}}
"""Bases of shards, and their settings."""
QUALITY_SEEDS = {"ease": 3, "als": 3, "bpr": 3, "lightgcn": 1}
EXACT = ("ease", "item-knn", "user-knn", "session-knn")
"""Models whose second lists are those of a refit."""
ASKED = 51
"""Users who are asked about."""
STREAM = 1000
SERVED = 20.0
"""Seconds for which lists are asked for."""
CALLERS = 4
"""Callers that ask for lists at the same time."""
ML_1M = {"users": 6040, "items": 3706, "interactions": 1_000_209}
ML_100K = {"users": 943, "items": 1682, "interactions": 100_000}


def main() -> None:
    """Measure the chosen parts and print, or also write, their numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there; unmeasured ones are null")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of BLAS, OpenMP and PyTorch; default 1")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        parser.error(f"--only: unknown part {unknown[0]!r}; known: {', '.join(PARTS)}.")
    threads.use(options.threads)
    print(f"{machine()}; threads: {options.threads}", flush=True)
    cells = cells_of_ml_1m()
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    for name in chosen:
        start = time.perf_counter()
        found = PARTS[name](cells)
        figures |= found
        print("\n".join(f"{key}: {value:.3g}" for key, value in found.items()), flush=True)
        print(f"part {name}: {time.perf_counter() - start:.0f} s", flush=True)
    losses = [figures[f"sisa_fold_in_loss_{base}"] for base in BASES]
    figures["sisa_fold_in_loss"] = max((loss for loss in losses if loss is not None), default=None)
    if options.json:
        write_json(options.json, figures | {"threads": options.threads, "machine": machine()})


def machine() -> str:
    """Return the processor's name, as far as the system tells it, and the number of logical cores."""
    told = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", told.read_text(), re.MULTILINE) if told.is_file() else []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} logical cores"


def cells_of_ml_1m() -> csr_array:
    """Return the (U, I) cells of MovieLens 1M, or of synthetic interactions of its size, each 1."""
    matrix = load_interactions(data()).matrix
    return csr_array((np.ones_like(matrix.data), matrix.indices, matrix.indptr), matrix.shape)


def data(name: str = "ml-1m") -> dict[str, Any]:
    """Return the ``data`` section of MovieLens 1M or 100K, or of synthetic interactions of its size."""
    root = os.environ.get("MSGM_DATA")
    if root and (Path(root) / name).is_dir():
        return {"name": name}
    return {"name": "synthetic", "seed": SEED} | (ML_1M if name == "ml-1m" else ML_100K)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def against_refit(fitted: Recommender, deletions: list[Deletion]) -> tuple[float, float, float]:
    """Return the medians over ``deletions`` of refit / forget seconds, and of both; ``fitted`` is left as it is."""
    found = []
    for deletion in deletions:
        forgetting, refitting = copy.deepcopy(fitted), copy.deepcopy(fitted)
        forget, refit = seconds(lambda: forgetting.forget(deletion)), seconds(lambda: refitting.refit(deletion))  # noqa: B023
        print(f"{fitted.name}: refit {refit:.3f} s, forget {forget:.4f} s, ratio {refit / forget:.1f}", flush=True)
        found.append((refit / forget, forget, refit))
    ratios, forgets, refits = zip(*found, strict=True)
    return statistics.median(ratios), statistics.median(forgets), statistics.median(refits)


def ease_one_user(cells: csr_array) -> dict[str, float]:
    """Return refit seconds / forget seconds of one user, and both."""
    model = MODELS.build({"name": "ease"}).fit(cells, SEED)
    rng = np.random.default_rng(derive_seed(SEED, "bench", "users"))
    drawn = rng.choice(cells.shape[0], 5, replace=False)
    times, forget, refit = against_refit(model, [Deletion(users=np.array([user])) for user in drawn])
    return {"ease_one_user": times, "ease_one_user_ms": 1000 * forget, "ease_refit_seconds": refit}


def forget_stream(cells: csr_array) -> dict[str, float]:
    """Return the seconds of a command that forgets many users, one request each, and how often it writes the model."""
    drawn = np.random.default_rng(derive_seed(SEED, "bench", "stream")).choice(cells.shape[0], STREAM, replace=False)
    with tempfile.TemporaryDirectory() as name:
        shop, users = Path(name) / "shop", Path(name) / "users.txt"
        fit(load_config(None, [f"data={data()}", "models={ease: {}}"]), "ease", shop)
        ids = read_json(shop / "ids.json")["users"]
        users.write_text("".join(f"{ids[user]}\n" for user in drawn))
        with patch.object(Recommender, "save", autospec=True, side_effect=Recommender.save) as save:
            taken = seconds(lambda: msgm(["recommender", "forget", str(shop), "--users", str(users)]))
    return {"forget_stream_seconds": taken, "forget_stream_writes": save.call_count}


def serve(cells: csr_array) -> dict[str, float]:
    """Return how many lists a server answers in a second beside a stream of deletions, and its slow answers."""
    drawn = np.random.default_rng(derive_seed(SEED, "bench", "serve")).permutation(cells.shape[0])
    with tempfile.TemporaryDirectory() as name:
        shop = fit(load_config(None, [f"data={data()}", "models={ease: {}}"]), "ease", Path(name) / "shop")
        ids = read_json(shop / "ids.json")["users"]
        command = [sys.executable, "-m", "msgm", "recommender", "serve", str(shop), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                address = server.stdout.readline().split("//")[1].split(";")[0]  # type: ignore[union-attr]
                gone, *kept = np.array_split(drawn, CALLERS + 1)
                reading = [cycle({"user": ids[user]} for user in part) for part in kept]
                answers(address, "/recommend", [next(reading[0])], time.perf_counter() + SERVED)  # reads the model
                end = time.perf_counter() + SERVED
                with ThreadPoolExecutor(CALLERS + 1) as pool:
                    forgetting = pool.submit(answers, address, "/forget", ({"users": [ids[u]]} for u in gone), end)
                    lists = [pool.submit(answers, address, "/recommend", bodies, end) for bodies in reading]
                taken = [each for one in lists for each in one.result()]
                print(f"{len(forgetting.result())} users forgotten in {SERVED:g} s", flush=True)
            finally:
                server.terminate()
    return {"serve_reads_per_second": len(taken) / SERVED, "serve_p99_ms": 1000 * float(np.quantile(taken, 0.99))}


def answers(address: str, path: str, bodies: Iterable[Any], end: float) -> list[float]:
    """Return the seconds of each answer to bodies that are sent one after the other until ``end``."""
    connection, taken = HTTPConnection(address), []
    for body in bodies:
        start = time.perf_counter()
        if start > end:
            break
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RunError(f"{path}: the server answered {answer.status}: {said.decode()}")
        taken.append(time.perf_counter() - start)
    connection.close()
    return taken


def als_five_percent(cells: csr_array) -> dict[str, float]:
    """Return refit seconds / forget seconds of a twentieth of the interactions."""
    model = MODELS.build({"name": "als"}).fit(cells, SEED)
    rng = np.random.default_rng(derive_seed(SEED, "bench", "interactions"))
    pairs = np.column_stack(cells.nonzero()).astype(np.int64)
    drawn = [rng.choice(len(pairs), len(pairs) // 20, replace=False) for _ in range(REPEATS)]
    return {"als_five_percent": against_refit(model, [Deletion(cells=pairs[places]) for places in drawn])[0]}


def als_trace(cells: csr_array) -> dict[str, float]:
    """Return how much better ALS's scores tell a forgotten twentieth from a held-out one than a refit's do."""
    pairs = np.column_stack(cells.nonzero()).astype(np.int64)
    drawn = np.random.default_rng(derive_seed(SEED, "bench", "trace")).permutation(len(pairs))[: len(pairs) // 10]
    held_out, asked = (Deletion(cells=pairs[places]) for places in np.array_split(drawn, 2))
    fitted = MODELS.build({"name": "als"}).fit(held_out.without(cells), SEED)
    forgetting, refitting = copy.deepcopy(fitted), copy.deepcopy(fitted)
    print(f"als: residual {forgetting.forget(asked).facts['solve']['residual']:.2g}", flush=True)
    refitting.refit(asked)
    places = np.concatenate([asked.cells, held_out.cells]), np.arange(len(drawn)) < len(asked.cells)
    before, after, refit = (told_apart(model, *places) for model in (fitted, forgetting, refitting))
    return {"als_trace": after - refit, "als_trace_before": before - refit}


def told_apart(model: Recommender, cells: NDArray[np.int64], first: NDArray[np.bool_]) -> float:
    """Return the AUC by which a model's scores, standardised by user, tell the ``first`` of the (n, 2) cells."""
    scores = model.score(np.arange(model.seen.shape[0]))
    scores = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    return float(roc_auc_score(first, scores[tuple(cells.T)]))


def against(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = REPEATS) -> float:
    """Return the ratio of the median seconds of both, timed in turn."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        times.append((seconds(ours), seconds(theirs)))
        print(f"ours {times[-1][0]:.2f} s, implicit {times[-1][1]:.2f} s", flush=True)
    mine, others = (statistics.median(column) for column in zip(*times, strict=True))
    return mine / others


def used() -> int:
    """Return the number of threads that everything here runs on."""
    return int(os.environ["OMP_NUM_THREADS"])


def als_fit_vs_implicit(cells: csr_array) -> dict[str, float]:
    """Return our seconds / implicit's for a fit of equal factors, sweeps, weights and steps of conjugate gradients."""
    from implicit.als import AlternatingLeastSquares  # type: ignore[import-untyped]

    matrix, model = csr_matrix(cells), ALS()
    # Its alpha is the whole weight of a seen cell, ours what it has beyond the others.
    weights = {"regularization": model.regularisation, "alpha": 1 + model.alpha}
    sizes = {"factors": model.factors, "iterations": model.sweeps, "num_threads": used(), "use_gpu": False}
    theirs = AlternatingLeastSquares(**sizes, **weights, random_state=SEED)
    found = against(lambda: model.fit(cells, SEED), lambda: theirs.fit(matrix, show_progress=False))
    return {"als_fit_vs_implicit": found}


def bpr_epoch_vs_implicit(cells: csr_array) -> dict[str, float]:
    """Return our seconds / implicit's for a fit of two epochs with equal factors."""
    from implicit.bpr import BayesianPersonalizedRanking  # type: ignore[import-untyped]

    matrix, model = csr_matrix(cells), BPR(epochs=2)
    sizes = {"factors": model.factors, "iterations": model.epochs, "num_threads": used(), "use_gpu": False}
    theirs = BayesianPersonalizedRanking(**sizes, random_state=SEED)
    model.fit(cells, SEED)  # the first fit of a process imports torch
    found = against(lambda: model.fit(cells, SEED), lambda: theirs.fit(matrix, show_progress=False), 9)
    return {"bpr_epoch_vs_implicit": found}


def partition_seconds(cells: csr_array) -> dict[str, float]:
    """Return the median seconds of a partition of the users into 10 shards, from the cells to the labels."""
    taken = [seconds(lambda: make_partition("ot", cells, 10, "users", SEED)) for _ in range(REPEATS)]
    return {"partition_seconds": statistics.median(taken)}


def whatif(cells: csr_array) -> dict[str, float]:
    """Return the median milliseconds in which exact models tell a user's list with and without one of their items."""
    interactions = load_interactions(data("ml-100k"))
    return {f"whatif_{name.replace('-', '_')}_ms": asked_of(name, interactions) for name in EXACT}


def asked_of(name: str, interactions: Interactions) -> float:
    """Return the median milliseconds in which a model tells of a user without an item, both drawn at random."""
    model = MODELS.build({"name": name}).fit(interactions.matrix, SEED, interactions.times)
    rng, taken = np.random.default_rng(derive_seed(SEED, "bench", "whatif")), []
    for user in rng.choice(model.seen.shape[0], ASKED, replace=False):
        item = rng.choice(model.seen[[user]].indices, 1)
        taken.append(seconds(lambda: what_if(model, int(user), item)))  # noqa: B023
    return 1000 * statistics.median(taken)


def quality_data() -> Split:
    """Return MovieLens 100K, or synthetic interactions of its size, with a tenth and a fifth of each user apart."""
    return load_split("per-user", load_interactions(data("ml-100k")))


def against_full(base: str, **settings: Any) -> float:
    """Return the mean over seeds of NDCG@10 of a base model in 10 shards of these settings, over the full model's."""
    split, found, full = quality_data(), [], {"name": base} | BASES[base]
    models = {"full": full, "shards": {"name": "sharded", "base": full, "shards": 10} | settings}
    for seed in range(QUALITY_SEEDS[base]):
        ndcg = {
            name: ranking(MODELS.build(model).fit(split.train, seed), split.train, split.test, k=10).ndcg.mean()
            for name, model in models.items()
        }
        found.append(float(ndcg["shards"] / ndcg["full"]))
        print(f"{base}, seed {seed}: full {ndcg['full']:.4f}, 10 shards {ndcg['shards']:.4f}", flush=True)
    if len(found) > 1:
        low, high = t_interval(found)
        print(f"{base}: {statistics.mean(found):.4f}, 95% interval {low:.4f} to {high:.4f}", flush=True)
    return statistics.mean(found)


def sisa_fold_in(base: str, cells: csr_array) -> dict[str, float]:
    """Return the share of the full model's NDCG@10 that shards by fold-in lose."""
    return {f"sisa_fold_in_loss_{base}": 1 - against_full(base)}


def rec_eraser(cells: csr_array) -> dict[str, float]:
    """Return NDCG@10 of RecEraser over the full model's."""
    return {"rec_eraser_ratio": against_full("lightgcn", partition="inbp", combiner="attention")}


FIGURES = (
    "ease_one_user",
    "ease_one_user_ms",
    "ease_refit_seconds",
    "forget_stream_seconds",
    "forget_stream_writes",
    "serve_reads_per_second",
    "serve_p99_ms",
    "als_five_percent",
    "als_trace",
    "als_trace_before",
    "als_fit_vs_implicit",
    "bpr_epoch_vs_implicit",
    "partition_seconds",
    *(f"whatif_{name.replace('-', '_')}_ms" for name in EXACT),
    "sisa_fold_in_loss",
    *(f"sisa_fold_in_loss_{base}" for base in BASES),
    "rec_eraser_ratio",
)
PARTS: dict[str, Callable[[csr_array], dict[str, float]]] = {
    "ease_one_user": ease_one_user,
    "forget_stream": forget_stream,
    "serve": serve,
    "als_five_percent": als_five_percent,
    "als_trace": als_trace,
    "als_fit_vs_implicit": als_fit_vs_implicit,
    "bpr_epoch_vs_implicit": bpr_epoch_vs_implicit,
    "partition_seconds": partition_seconds,
    "whatif": whatif,
    **{f"sisa_fold_in_{base}": partial(sisa_fold_in, base) for base in BASES},
    "rec_eraser": rec_eraser,
}

if __name__ == "__main__":
    main()
