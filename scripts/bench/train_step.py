"""What the trainer adds to a training step.

Two comparisons, on the CPU by default, each as the median over rounds in which both sides take turns:

- ``overhead_vs_bare``: a step of ``Trainer`` against a bare loop of the same forward pass, backward pass and Adam step
  on ready-made batches, retain-only and retain+forget.
- ``one_pass_vs_two``: retain and forget items through the network in two passes, as the released MSGM code does,
  against one.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from msgm.config import TrainingSettings, load_config
from msgm.objectives import OBJECTIVES, Mixed, Noised, Objective, Term, mean_square
from msgm.runs import Run
from msgm.training import Trainer
from msgm.training.run import load_data, new_model

Step = Callable[[], None]


def main() -> None:
    """Time both comparisons and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="configs/digits/vp.yaml")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="steps a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in ("unseen", "obtuse"):
            objective = OBJECTIVES.build({"name": name} | ({"every": 1} if name == "obtuse" else {}))
            trainer, ours = our_step(options.config, objective, Path(folder) / name, options.device)
            bare = bare_step(trainer, objective, objective.terms)
            label = "retain only" if name == "unseen" else "retain+forget"
            found[label] = compare(ours, bare, options.rounds, options.steps)
        two = bare_step(trainer, objective, two_passes)
        passes = compare(two, bare, options.rounds, options.steps)
    report(found, passes, options)


def our_step(config_path: str, objective: Objective, folder: Path, device: str) -> tuple[Trainer, Step]:
    """Return a trainer and a function that makes its next step."""
    config = load_config(config_path)
    dataset, split = load_data(config)
    settings = TrainingSettings(batch_size=config.training.batch_size, trackers=[])
    trainer = Trainer(new_model(config, dataset), objective, dataset, split.train, settings, 0, Run(folder), device)
    retain, forget = trainer.feeds.batches(0, 0)
    counter = iter(range(10**9))

    def step() -> None:
        number = next(counter)
        trainer._step(number, next(retain), next(forget) if objective.uses_forget(number) else None)
        if (number + 1) % settings.log_every == 0:
            trainer._read_terms()

    return trainer, step


def bare_step(trainer: Trainer, objective: Objective, terms: Callable[..., dict[str, Term]]) -> Step:
    """Return a loop body of forward, backward, clipping and Adam on one ready-made batch."""
    retain, forget = map(next, trainer.feeds.batches(0, 0))
    batches = next(iter(trainer._parts(0, retain, forget if objective.uses_forget(0) else None)))
    model = trainer.model
    optimiser = torch.optim.Adam(model.network.parameters(), lr=2e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = sum(term.weight * term.values.mean() for term in terms(model.eps, *batches).values())
        assert isinstance(loss, Tensor)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimiser.step()

    return step


def two_passes(predict: Callable[[Tensor, Tensor], Tensor], retain: Noised, forget: Noised) -> dict[str, Term]:
    """Return Obtuse's terms from one pass a batch."""
    objective = OBJECTIVES.build({"name": "obtuse", "every": 1})
    assert isinstance(objective, Mixed)
    return {
        "retain": Term(0.99, mean_square(predict(retain.x, retain.t) - retain.eps)),
        "forget": Term(0.01, objective.forget_loss(predict(forget.x, forget.t), forget)),
    }


def compare(a: Step, b: Step, rounds: int, steps: int) -> dict[str, float]:
    """Return the median seconds a step of both, and the median of the rounds' ratios a / b."""
    timed(a, steps), timed(b, steps)
    pairs = [(timed(a, steps), timed(b, steps)) for _ in range(rounds)]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"first": first, "second": second, "ratio": statistics.median(x / y for x, y in pairs)}


def timed(step: Step, steps: int) -> float:
    """Return the seconds a step takes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps


def report(found: dict[str, dict[str, float]], passes: dict[str, float], options: argparse.Namespace) -> None:
    """Print the table, and write the figures when asked."""
    print(f"{options.config}, {options.rounds} rounds of {options.steps} steps, {torch.get_num_threads()} threads")
    print(f"{'':16s}{'trainer ms':>12s}{'bare ms':>12s}{'ratio':>8s}")
    for name, row in found.items():
        print(f"{name:16s}{1e3 * row['first']:12.2f}{1e3 * row['second']:12.2f}{row['ratio']:8.3f}")
    print(f"\n{'':16s}{'two passes':>12s}{'one pass':>12s}{'ratio':>8s}")
    print(f"{'retain+forget':16s}{1e3 * passes['first']:12.2f}{1e3 * passes['second']:12.2f}{passes['ratio']:8.3f}")
    if options.json:
        figures = {
            "overhead_vs_bare": max(row["ratio"] for row in found.values()),
            "overhead_retain_only": found["retain only"]["ratio"],
            "overhead_retain_forget": found["retain+forget"]["ratio"],
            "one_pass_vs_two": passes["ratio"],
        }
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
