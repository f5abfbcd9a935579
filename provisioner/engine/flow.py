"""The Flow port on threads, whatever remembers the outcomes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from provisioner.engine.outcome import Outcome, get_value
from provisioner.ports import Step

# Threads wait for vCenter, SSH and Ansible: they cost memory, not processors.
STEP_WIDTH = 8


class ThreadedFlow:
    """The Flow port for one pass through one workflow.

    Args:
        workflow: its name, for messages.
        width: how many steps run side by side at most.
        prepare: is given a step and its key, in the order of the workflow, on the workflow's own
            thread, and returns what brings the step to its outcome on another one.
    """

    def __init__(
        self, workflow: str, width: int, prepare: Callable[[str, Step], Callable[[], Outcome]]
    ) -> None:
        self._workflow = workflow
        self._width = width
        self._prepare = prepare
        self._keys: set[str] = set()

    def run(self, *steps: Step) -> tuple[Any, ...]:
        """Run steps side by side; returns their values in order.

        All are brought to an end before the first error (in the order given) is raised.
        Raises ValueError when a step's key was used before in this workflow: none has run then.
        """
        keys = [f"{step.name}:{step.slot}" for step in steps]
        for key in keys:
            if key in self._keys:
                raise ValueError(f"{self._workflow} has two steps {key!r}")
            self._keys.add(key)
        acts = [self._prepare(key, step) for key, step in zip(keys, steps, strict=True)]
        with ThreadPoolExecutor(self._width, thread_name_prefix="step") as threads:
            # Threads do not take over context variables by themselves.
            runs = [threads.submit(copy_context().run, act) for act in acts]
        outcomes = [run.result() for run in runs]
        return tuple(get_value(outcome) for outcome in outcomes)
