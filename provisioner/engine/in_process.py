"""The Engine port inside one process: threads, and the same rules as the durable engine.

What the durable engine demands is demanded here too: each step has its own key, and its value is
what JSON makes of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from provisioner.engine.flow import STEP_WIDTH, ThreadedFlow
from provisioner.engine.outcome import Outcome, get_value, to_outcome
from provisioner.engine.patience import PAUSES_S, act_patiently, build_stopped
from provisioner.errors import UnknownLabError
from provisioner.ports import Step, Workflow

WORKFLOW_WIDTH = 64

_Key = tuple[str, str, int, int]


class InProcessEngine:
    """The Engine port. What runs ends with the process; running it again continues.

    Args:
        workflows: the workflows by name.
        width: how many steps of one workflow run side by side at most.
        pauses_s: between the tries of a step that has patience; the last one is repeated.
    """

    def __init__(
        self,
        workflows: Mapping[str, Workflow],
        *,
        width: int = STEP_WIDTH,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._workflows = dict(workflows)
        self._width = width
        self._pauses_s = pauses_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._runs: dict[_Key, Future[Outcome]] = {}
        self._values: dict[_Key, dict[str, Any]] = {}  # of the steps that are done
        self._threads = ThreadPoolExecutor(WORKFLOW_WIDTH, thread_name_prefix="workflow")

    def submit(self, workflow: str, lab_id: str, generation: int, run: int) -> None:
        """Start a run, or do nothing when that one is under way or ended well.

        One that ended with a step's error continues at that step: what was done before it is not
        done again. Raises KeyError for a workflow that does not exist, StoppedError once closed.
        """
        act, key = self._workflows[workflow], (workflow, lab_id, generation, run)
        with self._lock:
            if self._closing.is_set():
                raise build_stopped(workflow)
            if key in self._runs and not _has_failed(self._runs[key]):
                return
            values = self._values.setdefault(key, {})
            flow = ThreadedFlow(workflow, self._width, partial(self._prepare, values))
            self._runs[key] = self._threads.submit(
                to_outcome, partial(act, flow, lab_id, generation), workflow
            )

    def is_running(self, workflow: str, lab_id: str, generation: int, run: int) -> bool:
        """Tell whether that run is under way."""
        with self._lock:
            future = self._runs.get((workflow, lab_id, generation, run))
        return future is not None and not future.done()

    def wait(self, workflow: str, lab_id: str, generation: int, run: int, timeout_s: float) -> bool:
        """Wait for its end; False when `timeout_s` ran out. Raises the error it ended with.

        Raises UnknownLabError when it was never submitted.
        """
        with self._lock:
            future = self._runs.get((workflow, lab_id, generation, run))
        if future is None:
            raise UnknownLabError(
                f"no {workflow} of lab {lab_id} generation {generation} was started here"
            )
        if wait([future], timeout_s).not_done:
            return False
        get_value(future.result())
        return True

    def close(self) -> None:
        """Take no more work, let each step under way end, and return when nothing runs."""
        with self._lock:
            self._closing.set()
        self._threads.shutdown(wait=True)

    def _prepare(self, values: dict[str, Any], key: str, step: Step) -> Callable[[], Outcome]:
        def act() -> Outcome:
            if key in values:
                return {"value": values[key]}
            outcome = to_outcome(
                partial(act_patiently, step, self._closing, self._pauses_s), f"step {key}"
            )
            if "value" in outcome:
                values[key] = outcome["value"]
            return outcome

        return act


def _has_failed(run: Future[Outcome]) -> bool:
    return run.done() and "value" not in run.result()
