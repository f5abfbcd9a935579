"""The Engine port inside one process: threads, and the same rules as a durable engine.

What a durable engine would demand is demanded here too, so that workflows need no change for
one: each step has its own key, and its value is what JSON makes of it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from provisioner.errors import StoppedError, UnknownLabError
from provisioner.ports import Step, Workflow

# Threads wait for vCenter, SSH and Ansible: they cost memory, not processors.
WORKFLOW_WIDTH = 64
STEP_WIDTH = 8

_Key = tuple[str, str, int]


class InProcessEngine:
    """The Engine port. What runs ends with the process; running it again continues.

    Args:
        workflows: the workflows by name.
        width: how many steps of one workflow run side by side at most.
    """

    def __init__(self, workflows: Mapping[str, Workflow], *, width: int = STEP_WIDTH) -> None:
        self._workflows = dict(workflows)
        self._width = width
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._runs: dict[_Key, Future[None]] = {}
        self._threads = ThreadPoolExecutor(WORKFLOW_WIDTH, thread_name_prefix="workflow")

    def submit(self, workflow: str, lab_id: str, generation: int) -> None:
        """Start a workflow, or do nothing when that one is already under way.

        Raises KeyError for a workflow that does not exist, StoppedError once closed.
        """
        act, key = self._workflows[workflow], (workflow, lab_id, generation)
        with self._lock:
            if self._closing.is_set():
                raise _stopped(workflow)
            if key in self._runs and not self._runs[key].done():
                return
            flow = _Flow(workflow, self._width, self._closing)
            self._runs[key] = self._threads.submit(act, flow, lab_id, generation)

    def is_running(self, workflow: str, lab_id: str, generation: int) -> bool:
        """Tell whether that workflow is under way."""
        with self._lock:
            run = self._runs.get((workflow, lab_id, generation))
        return run is not None and not run.done()

    def wait(self, workflow: str, lab_id: str, generation: int, timeout_s: float) -> bool:
        """Wait for its end; False when `timeout_s` ran out. Raises the error it ended with.

        Raises UnknownLabError when it was never submitted.
        """
        with self._lock:
            run = self._runs.get((workflow, lab_id, generation))
        if run is None:
            raise UnknownLabError(
                f"no {workflow} of lab {lab_id} generation {generation} was started here"
            )
        if wait([run], timeout_s).not_done:
            return False
        run.result()
        return True

    def close(self) -> None:
        """Take no more work, let each step under way end, and return when nothing runs."""
        with self._lock:
            self._closing.set()
        self._threads.shutdown(wait=True)


class _Flow:
    """The Flow port for one run of one workflow."""

    def __init__(self, workflow: str, width: int, closing: threading.Event) -> None:
        self._workflow = workflow
        self._width = width
        self._closing = closing
        self._keys: set[tuple[str, str]] = set()

    def run(self, *steps: Step) -> tuple[Any, ...]:
        """Run steps side by side; returns their values in order.

        All are brought to an end before the first error (in the order given) is raised.
        Raises ValueError when a step's key was used before in this workflow: none has run then.
        """
        for step in steps:
            key = (step.name, step.slot)
            if key in self._keys:
                raise ValueError(f"{self._workflow} has two steps {step.name!r} of {step.slot!r}")
            self._keys.add(key)
        with ThreadPoolExecutor(self._width, thread_name_prefix="step") as threads:
            runs = [threads.submit(self._run_one, step) for step in steps]
        return tuple(run.result() for run in runs)

    def _run_one(self, step: Step) -> Any:
        if self._closing.is_set():
            raise _stopped(self._workflow)
        return _to_recorded(step, step.act())


def _to_recorded(step: Step, value: Any) -> Any:
    """Return what a recorded value comes back as. Raises TypeError when it cannot be recorded."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"step {step.name} {step.slot} did not return plain data: {error}"
        ) from error


def _stopped(workflow: str) -> StoppedError:
    return StoppedError(
        f"{workflow} was stopped before it was done",
        hint="run the same command again to continue where it stopped",
    )
