"""An engine that runs a workflow to its end at once, on the caller's own thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from provisioner.engine.outcome import Outcome, get_value, to_outcome
from provisioner.engine.patience import PAUSES_S, act_patiently
from provisioner.errors import StoppedError, UnknownLabError
from provisioner.ports import Step, Workflow

Run = tuple[str, str, int, int]


class InlineFlow:
    """The Flow port: steps one after another; `values` keeps what each one recorded."""

    def __init__(
        self,
        values: dict[tuple[str, str], Any] | None = None,
        *,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self.values = {} if values is None else values
        self._pauses_s = pauses_s
        self._keys: set[tuple[str, str]] = set()

    def run(self, *steps: Step) -> tuple[Any, ...]:
        keys = [(step.name, step.slot) for step in steps]
        if len({*self._keys, *keys}) != len(self._keys) + len(keys):
            raise ValueError(f"two steps {keys}")
        self._keys.update(keys)
        outcomes = [self._act(key, step) for key, step in zip(keys, steps, strict=True)]
        return tuple(get_value(outcome) for outcome in outcomes)

    def _act(self, key: tuple[str, str], step: Step) -> Outcome:
        if key in self.values:
            return {"value": self.values[key]}
        never = threading.Event()
        outcome = to_outcome(partial(act_patiently, step, never, self._pauses_s), f"step {key}")
        if "value" in outcome:
            self.values[key] = outcome["value"]
        return outcome


class InlineEngine:
    """The Engine port without a thread."""

    def __init__(
        self, workflows: Mapping[str, Workflow], *, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        self._workflows = workflows
        self._pauses_s = pauses_s
        self._outcomes: dict[Run, Outcome] = {}
        self._values: dict[Run, dict[tuple[str, str], Any]] = {}
        self._running: set[Run] = set()
        self._closed = False

    def submit(self, workflow: str, lab_id: str, generation: int, run: int) -> None:
        act, key = self._workflows[workflow], (workflow, lab_id, generation, run)
        if self._closed:
            raise StoppedError("closed")
        if key in self._running or "value" in self._outcomes.get(key, {}):
            return
        self._running.add(key)
        flow = InlineFlow(self._values.setdefault(key, {}), pauses_s=self._pauses_s)
        self._outcomes[key] = to_outcome(partial(act, flow, lab_id, generation), workflow)
        self._running.discard(key)

    def is_running(self, workflow: str, lab_id: str, generation: int, run: int) -> bool:
        return (workflow, lab_id, generation, run) in self._running

    def wait(self, workflow: str, lab_id: str, generation: int, run: int, timeout_s: float) -> bool:
        del timeout_s
        key = (workflow, lab_id, generation, run)
        if key in self._running:
            return False
        if key not in self._outcomes:
            raise UnknownLabError(f"{workflow} of {lab_id} was never started")
        get_value(self._outcomes[key])
        return True

    def close(self) -> None:
        self._closed = True
