"""What runs workflows, and what it hands to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Step:
    """One durable step of a workflow.

    `name` plus `slot` is its own key within the workflow. `act` is idempotent: it reads the world
    first. It returns plain JSON-able data, without a secret. When vCenter does not answer, the
    step is tried again until `patience_s` after its first failure.
    """

    name: str
    act: Callable[[], Any]
    slot: str = ""
    patience_s: float = 0.0


class Flow(Protocol):
    """What the engine hands to a workflow: it records each step's outcome."""

    def run(self, *steps: Step) -> tuple[Any, ...]:
        """Run steps side by side; returns their values in order.

        All are brought to an end before the first error (in the order given) is raised.
        """
        ...


Workflow = Callable[[Flow, str, int], None]


class Engine(Protocol):
    """Runs workflows; one run of a workflow of one lab and generation is under way at most once.

    `run` counts the runs that were asked for, from 1.
    """

    def submit(self, workflow: str, lab_id: str, generation: int, run: int) -> None:
        """Start a run, or do nothing when that one is under way or ended well.

        One that ended with a step's error continues at that step: what was recorded before it is
        not done again.
        """
        ...

    def is_running(self, workflow: str, lab_id: str, generation: int, run: int) -> bool:
        """Tell whether that run is under way."""
        ...

    def wait(self, workflow: str, lab_id: str, generation: int, run: int, timeout_s: float) -> bool:
        """Wait for its end; False when `timeout_s` ran out. Raises the error it ended with."""
        ...

    def close(self) -> None:
        """Stop taking work, and return when nothing runs any more."""
        ...
