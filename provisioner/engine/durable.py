"""The Engine port on DBOS: a run outlives its process.

Each step's outcome is written down when it is there. A process that died, at whatever moment, is
continued by the next one: what was written down is not done again, what was under way is.

DBOS sees one workflow, whose body hands on to ours, so that a new or renamed one of ours needs
nothing of it. Its control flow passes through user code as BaseException and then records
nothing; `_Parked` does the same.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, cast

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID, WorkflowStatus
from dbos import error as dbos_error

from provisioner.engine.database import build_unusable, prepare_database, take_lock
from provisioner.engine.flow import STEP_WIDTH, ThreadedFlow
from provisioner.engine.outcome import Outcome, get_value, to_outcome
from provisioner.engine.patience import PAUSES_S, act_patiently, build_stopped
from provisioner.errors import StoppedError, UnknownLabError, to_data
from provisioner.ports import Step, Workflow

# Constants, so that a run begun by one process and one version of labctl is taken up by the next.
EXECUTOR = "runner"
VERSION = "1"

POLL_S = 0.05
_UNDER_WAY = ("PENDING", "ENQUEUED", "DELAYED")
_ENDED = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_FOREVER_S = 10**9

# DBOS is one thing per process.
_ONE = threading.Lock()


class _Parked(BaseException):
    """Unwinds a run that continues later: DBOS records neither its end nor that of the step.

    Its text says why an outcome could not be written down; it is empty when the engine closes.
    """


class DurableEngine:
    """The Engine port. What is under way when it starts continues by itself.

    One at a time in a process, one process at a time for a database. The process must call
    `close`, or leave by `os._exit`: its threads would keep it alive.

    Args:
        workflows: the workflows by name.
        database: the engine's file; it is made when there is none, and may be deleted while no
            engine uses it: then every run starts anew.
        width: how many steps of one workflow run side by side at most.
        pauses_s: between the tries of a step that has patience; the last one is repeated.

    Raises:
        BusyError: another process uses the database.
        StoreError: the database cannot be used; it may be deleted.
    """

    def __init__(
        self,
        workflows: Mapping[str, Workflow],
        database: Path,
        *,
        width: int = STEP_WIDTH,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._workflows = dict(workflows)
        self._database = database
        self._width = width
        self._pauses_s = pauses_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._lost: dict[str, str] = {}  # runs whose outcomes could not be written down, and why
        with ExitStack() as held:
            held.callback(os.close, take_lock(database))
            if not _ONE.acquire(blocking=False):
                raise RuntimeError("this process has a durable engine already")
            held.callback(_ONE.release)
            prepare_database(database)
            held.callback(
                DBOS.destroy, destroy_registry=True, workflow_completion_timeout_sec=_FOREVER_S
            )
            with self._translated_faults():
                self._launch()
            self._held = held.pop_all()

    def _launch(self) -> None:
        log = logging.getLogger("dbos")  # it prints a banner, and tracebacks with their texts
        log.handlers[:] = [logging.NullHandler()]
        log.propagate = False
        DBOS(
            config=DBOSConfig(
                name="labctl",
                system_database_url=f"sqlite:///{self._database}",
                executor_id=EXECUTOR,
                application_version=VERSION,
                serializer=DBOSPortableJSONSerializer(),  # pickle would run what it reads
                log_level="CRITICAL",
                notification_listener_polling_interval_sec=0.1,  # it sleeps so long when closing
            )
        )
        # No limit: a machine that dies a hundred times must still not lose a lab.
        register = DBOS.workflow(name="run", max_recovery_attempts=None)
        # DBOS puts marks on the function, and a method takes none.
        self._start = register(lambda *run: self._run(*run))  # noqa: PLW0108
        DBOS.launch()

    # -- the port -----------------------------------------------------------------------------

    def submit(self, workflow: str, lab_id: str, generation: int, run: int) -> None:
        """Start a run, or do nothing when that one is under way or ended well.

        One that ended with a step's error continues at that step: what was recorded before it is
        not done again.

        Raises:
            KeyError: there is no such workflow.
            StoppedError: the engine is closed.
            StoreError: the database cannot be used.
        """
        self._workflows[workflow]
        run_id = _name_run(workflow, lab_id, generation, run)
        self._refuse_when_closed()  # before the lock, which `close` holds until nothing runs
        with self._lock, self._translated_faults():
            last = self._find_last(run_id)
            if last is None:
                self._begin(run_id, workflow, lab_id, generation, {})
            elif last.workflow_id in self._lost:
                del self._lost[last.workflow_id]
                DBOS.resume_workflow(last.workflow_id)
            elif last.status not in _UNDER_WAY and "value" not in _get_outcome(last):
                values = _list_values(last)
                self._begin(_name_next(run_id, last), workflow, lab_id, generation, values)

    def is_running(self, workflow: str, lab_id: str, generation: int, run: int) -> bool:
        """Tell whether that run is under way. Raises StoreError when the database cannot tell."""
        if self._closing.is_set():
            return False
        with self._translated_faults():
            last = self._find_last(_name_run(workflow, lab_id, generation, run))
        return last is not None and last.status in _UNDER_WAY and last.workflow_id not in self._lost

    def wait(self, workflow: str, lab_id: str, generation: int, run: int, timeout_s: float) -> bool:
        """Wait for its end; False when `timeout_s` ran out. Raises the error it ended with.

        Raises:
            UnknownLabError: it was never submitted, or is forgotten.
            StoppedError: the engine is closed: a run that was under way continues when the next
                one starts.
            StoreError: an outcome could not be written down; submitting the run again continues it.
        """
        run_id, until_s = _name_run(workflow, lab_id, generation, run), monotonic() + timeout_s
        while True:
            with self._translated_faults():
                last = self._find_last(run_id)
            if last is None:
                raise UnknownLabError(
                    f"no {workflow} of lab {lab_id} generation {generation} was started here"
                )
            if last.status not in _UNDER_WAY:
                get_value(_get_outcome(last))
                return True
            if why := self._lost.get(last.workflow_id):
                raise build_unusable(self._database, why)
            if (left_s := until_s - monotonic()) <= 0:
                return False
            self._closing.wait(min(POLL_S, left_s))

    def forget_finished(self, before: datetime) -> None:
        """Delete what is recorded of runs that ended before that time, well or not."""
        with self._translated_faults():
            ended = DBOS.list_workflows(
                status=list(_ENDED),
                completed_before=before.isoformat(),
                load_input=False,
                load_output=False,
            )
            DBOS.delete_workflows([run.workflow_id for run in ended])

    def close(self) -> None:
        """Take no more work, let each step under way end, and return when nothing runs.

        What was not done continues when the next engine starts. A caller that cannot wait for
        the steps leaves by `os._exit`: they run again then.
        """
        self._closing.set()
        with self._lock:
            self._held.close()

    # -- how ----------------------------------------------------------------------------------

    def _run(self, workflow: str, lab_id: str, generation: int, values: dict[str, Any]) -> Outcome:
        """Run one of our workflows on a thread of DBOS; `values` are those of an earlier try."""
        flow = ThreadedFlow(workflow, self._width, partial(self._prepare, values))
        try:
            return to_outcome(
                lambda: self._workflows[workflow](flow, lab_id, generation), f"workflow {workflow}"
            )
        except _Parked as parked:
            if why := str(parked):
                self._lost[cast("str", DBOS.workflow_id)] = why
            raise

    def _prepare(self, values: dict[str, Any], key: str, step: Step) -> Callable[[], Outcome]:
        if key in values:
            return lambda: {"value": values[key]}
        reserved = DBOS.reserve_step()  # DBOS knows a step by its number: drawn here, in order

        def act() -> Outcome:
            try:
                return reserved.run({"name": key}, self._act, key, step)
            except dbos_error.DBOSUnexpectedStepError as error:
                raise StoppedError(
                    f"the steps of this work were changed since it began: step {key} is new here",
                    hint="run the same command again: it continues after the steps that are done",
                ) from error
            except Exception as error:
                raise _Parked(type(error).__name__) from error

        return act

    def _act(self, key: str, step: Step) -> Outcome:
        outcome = to_outcome(
            partial(act_patiently, step, self._closing, self._pauses_s), f"step {key}"
        )
        stopped = outcome.get("error", {}).get("kind") == StoppedError.__name__
        if stopped and self._closing.is_set():
            raise _Parked
        return outcome

    def _begin(
        self, run_id: str, workflow: str, lab_id: str, generation: int, values: dict[str, Any]
    ) -> None:
        with SetWorkflowID(run_id):
            DBOS.start_workflow(self._start, workflow, lab_id, generation, values)

    def _refuse_when_closed(self) -> None:
        if self._closing.is_set():
            raise build_stopped("the work")

    def _find_last(self, run_id: str) -> WorkflowStatus | None:
        """Find the newest try of a run. Raises StoppedError once closed."""
        self._refuse_when_closed()
        tries = DBOS.list_workflows(workflow_id_prefix=run_id)
        ours = [found for found in tries if f"{found.workflow_id}:".startswith(f"{run_id}:")]
        return max(ours, key=lambda found: _number_of(run_id, found), default=None)

    @contextmanager
    def _translated_faults(self) -> Iterator[None]:
        try:
            yield
        except (StoppedError, KeyError):
            raise
        except Exception as error:
            self._refuse_when_closed()
            raise build_unusable(self._database, type(error).__name__) from error


def _name_run(workflow: str, lab_id: str, generation: int, run: int) -> str:
    return f"{workflow}:{lab_id}:{generation}:{run}"


def _number_of(run_id: str, found: WorkflowStatus) -> int:
    """Return which try of its run this is: the first has the run's own name."""
    return int(found.workflow_id.removeprefix(run_id).removeprefix(":") or 1)


def _name_next(run_id: str, last: WorkflowStatus) -> str:
    return f"{run_id}:{_number_of(run_id, last) + 1}"


def _get_outcome(ended: WorkflowStatus) -> Outcome:
    if ended.status == "SUCCESS":
        return cast("Outcome", ended.output)
    error = StoppedError(f"the engine gave up {ended.workflow_id}: {ended.status}")
    return {"error": to_data(error)}


def _list_values(ended: WorkflowStatus) -> dict[str, Any]:
    """Collect the values of the steps that are done, in this try or before it."""
    values: dict[str, Any] = dict(ended.input["args"][-1]) if ended.input else {}
    for step in DBOS.list_workflow_steps(ended.workflow_id):
        outcome: Outcome = step["output"] or {}
        if "value" in outcome:
            values[step["function_name"]] = outcome["value"]
    return values
