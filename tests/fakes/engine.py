"""An engine that runs a workflow to its end at once, on the caller's own thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from provisioner.errors import StoppedError, UnknownLabError
from provisioner.ports import Step, Workflow


class InlineFlow:
    """The Flow port: steps one after another; `values` keeps what each one recorded."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {}
        self._keys: set[tuple[str, str]] = set()

    def run(self, *steps: Step) -> tuple[Any, ...]:
        keys = [(step.name, step.slot) for step in steps]
        if len({*self._keys, *keys}) != len(self._keys) + len(keys):
            raise ValueError(f"two steps {keys}")
        self._keys.update(keys)
        errors = []
        for key, step in zip(keys, steps, strict=True):
            try:
                self.values[key] = _record(step.act())
            except Exception as error:  # noqa: BLE001 - the first one is raised below
                errors.append(error)
        if errors:
            raise errors[0]
        return tuple(self.values[key] for key in keys)


def _record(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except ValueError as error:
        raise TypeError(str(error)) from error


class InlineEngine:
    """The Engine port without a thread."""

    def __init__(self, workflows: Mapping[str, Workflow]) -> None:
        self._workflows = workflows
        self._ended: dict[tuple[str, str, int], Exception | None] = {}
        self._running: set[tuple[str, str, int]] = set()
        self._closed = False

    def submit(self, workflow: str, lab_id: str, generation: int) -> None:
        act, key = self._workflows[workflow], (workflow, lab_id, generation)
        if self._closed:
            raise StoppedError("closed")
        if key in self._running:
            return
        self._running.add(key)
        try:
            act(InlineFlow(), lab_id, generation)
            self._ended[key] = None
        except Exception as error:  # noqa: BLE001 - `wait` raises it, as the port says
            self._ended[key] = error
        finally:
            self._running.discard(key)

    def is_running(self, workflow: str, lab_id: str, generation: int) -> bool:
        return (workflow, lab_id, generation) in self._running

    def wait(self, workflow: str, lab_id: str, generation: int, timeout_s: float) -> bool:
        del timeout_s
        key = (workflow, lab_id, generation)
        if key in self._running:
            return False
        if key not in self._ended:
            raise UnknownLabError(f"{workflow} of {lab_id} was never started")
        if error := self._ended[key]:
            raise error
        return True

    def close(self) -> None:
        self._closed = True
