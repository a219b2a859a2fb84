"""Sharded generators on the digits: deletions one by one, one of them killed, against training without the items.

Items drawn uniformly from the training part are deleted one by one. The second deletion runs in a process that is
killed by SIGKILL while it trains, and is taken up by the next one. A second ensemble then deletes nothing: it is
trained with a request that names the items before anything is trained. Both must have the same bytes.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import msgm
from msgm.chain import Chain, Entry
from msgm.data.adapters import given
from msgm.digests import folder_key
from msgm.training.shards import FOLDER, expected_hit

NETWORK = {"name": "unet", "channels": [16, 32]}


def main() -> None:
    """Run the stream and print what each deletion took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250, help="of all shards together")
    parser.add_argument("--deletions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the items drawn and of the ensembles")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, equal = stream(Path(folder), options)
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    print(f"equal to the ensemble trained without the items, bit for bit: {equal}")
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        Path(options.json).write_text(json.dumps({"rows": rows, "equal": equal, "settings": settings}, indent=2) + "\n")


def stream(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], bool]:
    """Return what every deletion of a stream took, and whether the result is that of training without the items."""
    training = {"steps": options.steps, "batch_size": 64, "lr": 2e-3, "seed": options.seed, "device": "cpu"}
    training |= {"shards": {"count": options.shards}, "checkpoint_every": 5, "log_every": 5}
    data = given("digits", ())
    nothing = np.zeros(len(data.dataset), dtype=bool)
    positions = data.part(nothing, nothing).retain
    items = np.random.default_rng(options.seed).choice(positions, options.deletions, replace=False).tolist()
    made = msgm.ShardedModel.train(folder / "stream", "digits", NETWORK, **training)
    first, rows = made.work, []
    for number, item in enumerate(items):
        begun = time.perf_counter()
        if number == 1:
            kill_in_the_middle(made.folder, item)
            made = msgm.ShardedModel.load(made.folder, "digits", "cpu")
            rows.append({"item": item, "killed": True, "seconds": round(time.perf_counter() - begun, 1)})
            continue
        work = made.delete(msgm.ForgetRequest(indices=[item]))
        share = work.steps / first.steps
        spent = {"seconds": round(work.seconds, 1), "of_training": round(work.seconds / first.seconds, 3)}
        rows.append({"item": item, "hit": work.shards, "steps": work.steps, "share": share} | spent)
    never = without(folder / "never", items, training)
    expected = expected_hit(1, options.shards) / options.shards
    rows.append({"training": first.steps, "seconds": round(first.seconds, 1), "expected share of one item": expected})
    return rows, weights(made.folder) == weights(never.folder)


def kill_in_the_middle(folder: Path, item: int) -> None:
    """Kill a process that deletes an item once it has trained a few steps."""
    before = {*(folder / FOLDER).glob("shard-*")}
    process = multiprocessing.get_context("spawn").Process(target=delete, args=(folder, item))
    process.start()
    while not any((path / "metrics.jsonl").is_file() for path in {*(folder / FOLDER).glob("shard-*")} - before):
        if not process.is_alive():
            raise RuntimeError("the process ended before it trained")
        time.sleep(0.01)
    process.kill()
    process.join()


def delete(folder: Path, item: int) -> None:
    """Delete an item from the ensemble in a folder."""
    msgm.ShardedModel.load(folder, "digits", "cpu").delete(msgm.ForgetRequest(indices=[item]))


def without(folder: Path, items: list[int], training: dict[str, Any]) -> msgm.ShardedModel:
    """Return an ensemble that never had the items: they are named before anything is trained."""
    data, request = given("digits", ()), msgm.ForgetRequest(indices=sorted(items))
    entry = Entry.of(request, data.dataset.forget_mask(request), "sharded")
    (folder / FOLDER).mkdir(parents=True)
    chain = Chain().extended(entry, data.dataset, data.split_facts(), folder_key(folder))
    (folder / FOLDER / "chain.json").write_text(json.dumps(chain.to_json()))
    return msgm.ShardedModel.train(folder, "digits", NETWORK, **training)


def weights(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the weights of all models of the mixture."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "model").rglob("*.safetensors")}


if __name__ == "__main__":
    main()
