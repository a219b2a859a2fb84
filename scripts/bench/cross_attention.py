"""Closed forms of cross-attention on the shapes of Stable Diffusion 1.5: seconds, and memory by the number of concepts.

The keys and values of its 16 cross-attentions, 32 layers of 320, 640 or 1280 outputs of embeddings of 768 numbers, have
random weights, and prompts random embeddings of 77 places, so that nothing is downloaded: what the text encoder takes
comes on top. Every concept is led to the empty prompt, and as many others are kept. Each edit runs in a process of its
own, whose peak of memory is set beside that before the edit; where other work shares the machine, believe the CPU
seconds.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msgm.diffusion import Condition
from msgm.objectives.edits import EDITS
from msgm.objectives.edits.concepts import Texts
from msgm.objectives.edits.cross_attention import write
from msgm.objectives.edits.prompted import PromptEdit
from msgm.seeding import generator

PLACES, WIDTH = 77, 768
OUTPUTS = {"down": [320, 320, 640, 640, 1280, 1280], "mid": [1280], "up": [1280] * 3 + [640] * 3 + [320] * 3}
"""Outputs of the keys, and of the values, of each cross-attention."""
METHODS = ("uce", "rece", "mace")


def main() -> None:
    """Run every method with every number of concepts, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--concepts", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--only", nargs=2, metavar=("METHOD", "CONCEPTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only[0], int(options.only[1]))))
        return
    print(f"{'method':8}{'concepts':>10}{'seconds':>10}{'CPU s':>10}{'MiB before':>12}{'MiB at most':>13}")
    found = []
    for method in options.methods:
        for count in options.concepts:
            found.append(line := in_process(method, count))
            taken = f"{line['seconds']:>10.1f}{line['cpu_seconds']:>10.1f}"
            held = f"{line['before_mib']:>12.0f}{line['peak_mib']:>13.0f}"
            print(f"{method:8}{count:>10}{taken}{held}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def in_process(method: str, count: int) -> dict[str, Any]:
    """Return what ``measured`` finds in a process of its own."""
    command = [sys.executable, __file__, "--only", method, str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(method: str, count: int) -> dict[str, Any]:
    """Edit once, and return seconds and memory."""
    layers, texts = cross_attention(), concepts(count)
    edit = EDITS.build({"name": method})
    assert isinstance(edit, PromptEdit)
    edit.facts = {}
    held, began, worked = peak(), time.perf_counter(), time.process_time()
    write(layers, edit.solution(layers, texts))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
    return {
        "method": method,
        "concepts": count,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "before_mib": held,
        "peak_mib": peak(),
        "threads": torch.get_num_threads(),
    }


def cross_attention() -> Mapping[str, nn.Linear]:
    """Return layers with the shapes of those that read the text, by name."""
    torch.manual_seed(0)
    blocks = [(f"{part}.{number}", width) for part, widths in OUTPUTS.items() for number, width in enumerate(widths)]
    return {
        f"{block}.attn2.to_{kind}": nn.Linear(WIDTH, width, bias=False)
        for block, width in blocks
        for kind in ("k", "v")
    }


def concepts(count: int) -> Texts:
    """Return prompts of two words to forget, each led to the empty one, and as many to keep."""
    forget, keep = ([f"{part} {number}" for number in range(count)] for part in ("forgotten", "kept"))
    return Texts(encode, forget, [""] * count, keep)


def encode(prompts: Sequence[str]) -> Condition:
    """Return random embeddings, the same for the same prompt, with a place for each word behind the begin."""
    embedding = torch.stack(
        [torch.randn(PLACES, WIDTH, generator=generator(0, "prompt", prompt)) for prompt in prompts]
    )
    words = torch.tensor([len(prompt.split()) for prompt in prompts])[:, None]
    places = torch.arange(PLACES)
    return Condition(None, embedding, (places >= 1) & (places <= words))


def peak() -> float:
    """Return the most memory that the process has held so far, in MiB."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
