"""Runs that make no steps: their model is made at once, timed, and kept as a trainer keeps one that it trained."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from msgm.reading import read_json
from msgm.runs import Run
from msgm.training.checkpoints import State, checkpoints
from msgm.training.trainer import Trainer


class Stepless(Trainer):
    """A trainer whose ``make`` takes the place of steps; a subclass may say that it ``makes_steps`` after all.

    Its gradients are not checkpointed, but those of a copy of the model that it fine-tunes are.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.settings.gradient_checkpointing and not self.makes_steps:
            self._checkpoint_gradients(False)

    @property
    def makes_steps(self) -> bool:
        return False

    def make(self) -> None:
        """Make what the run is for, its model and what stands beside it."""
        raise NotImplementedError

    def train(self) -> None:
        """Make the model; what a stopped call tuned a copy for counts too."""
        if self.makes_steps:
            super().train()
            return
        began, spent = time.perf_counter(), _spent_on(Run(self.run.path / "teacher"))
        self.run.create()
        self.make()
        self.state.seconds = time.perf_counter() - began + spent

    def _chosen_weights(self) -> AbstractContextManager[None]:
        return super()._chosen_weights() if self.makes_steps else nullcontext()


def _spent_on(teacher: Run) -> float:
    """Return the seconds that an earlier call, which was stopped, tuned the teacher for."""
    found = checkpoints(teacher.checkpoints)
    state: State | None = read_json(found[-1] / "state.json", State) if found else None
    return state["seconds"] if state else 0.0
