"""Rules by which the simulated vCenter fails: which call, when, and how.

A rule is plain data, the same in ``--faults FILE``, ``POST /labctl/faults`` and
``world.faults.add``:

- ``method``: a WSDL name such as ``CloneVM_Task``, or ``*`` for every method.
- ``what``: a fault by name (``vim.fault.TaskInProgress``), which answers the call; or
  ``lost`` (the connection ends without an answer), ``reset`` (by TCP RST),
  ``delay`` (``seconds`` longer), ``outage`` (for ``seconds`` every connection is cut; work that has
  begun goes on), ``expire`` (the session dies, the answer is NotAuthenticated),
  ``restart`` (sessions, views, filters and tasks are forgotten, every VM gets a new moId, and
  ``seconds`` of outage), ``rollback`` (the inventory goes back ``to`` a remembered state, by
  default ``start``, after ``seconds`` of outage),
  ``task-error`` (the task that the method starts ends in ``fault``),
  ``cancel-ignored`` (for CancelTask, or the method whose task it is: cancelling is answered well,
  and the work goes on).
- ``when``: ``before`` the call has its effect (default) or ``after``; a task error comes after the
  effect by default.
- ``nth``: from which matching call on (default 1), or ``every``: each k-th one.
- ``times``: how often the rule fires (default 1).
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyVmomi import vmodl
from pyVmomi.VmomiSupport import GetVmodlType

from provisioner.simulator.codec import complete, method_named

if TYPE_CHECKING:
    from collections.abc import Mapping

OF_TASKS = frozenset({"task-error", "cancel-ignored"})
NEED_SECONDS = frozenset({"delay", "outage"})
TIMED = NEED_SECONDS | {"restart", "rollback"}
SPECIAL = OF_TASKS | TIMED | {"lost", "reset", "expire"}
TYPES: dict[str, Any] = {
    **dict.fromkeys(("method", "what", "when", "fault", "to"), str),
    **dict.fromkeys(("nth", "every", "times"), int),
    "seconds": (int, float),
}


class RuleError(ValueError):
    """A rule makes no sense; the text says which and why."""


def build_fault(name: str) -> Any:
    """Build a vim fault by its pyVmomi name, its required properties filled in.

    Raises:
        RuleError: there is no such fault.
    """
    try:
        kind = GetVmodlType(name)
    except (KeyError, AttributeError):
        kind = object
    if not issubclass(kind, vmodl.MethodFault):
        raise RuleError(f"{name!r} is neither a fault nor one of {', '.join(sorted(SPECIAL))}")
    return complete(kind(msg=f"{name}, by a rule"))


@dataclass
class Rule:
    """One rule, how many matching calls it saw, and how often it fired."""

    method: str
    what: str
    when: str = "before"
    nth: int = 1
    every: int = 0
    times: int = 1
    seconds: float = 0.0
    fault: str = "vmodl.fault.SystemError"
    to: str = "start"
    seen: int = 0
    fired: int = 0

    def check(self) -> None:
        """Raise RuleError when the rule can never do what it says."""
        if self.method != "*":
            try:
                method_named(self.method)
            except vmodl.fault.InvalidRequest as error:
                raise RuleError(f"there is no method {self.method!r}") from error
        build_fault(self.fault if self.what in SPECIAL else self.what)
        refusals = {
            f"{self.what} needs a method that starts a task": not self._can_befall(self.method),
            f"when is before or after, not {self.when!r}": self.when not in ("before", "after"),
            "nth, every and times count from 1": min(self.nth, self.times) < 1 or self.every < 0,
            "give nth or every, not both": self.every and self.nth > 1,
            f"{self.what} needs seconds": self.what in NEED_SECONDS and self.seconds <= 0,
            f"{self.what} takes no seconds": self.what not in TIMED and self.seconds,
            "seconds are not negative": self.seconds < 0,
        }
        for text in (text for text, applies in refusals.items() if applies):
            raise RuleError(text)

    def _can_befall(self, method: str) -> bool:
        is_cancel = (self.what, method) == ("cancel-ignored", "CancelTask")
        return self.what not in OF_TASKS or is_cancel or method == "*" or method.endswith("_Task")

    def is_due(self, method: str) -> bool:
        """Count a call; tell whether the rule fires at it."""
        if self.method not in ("*", method) or not self._can_befall(method):
            return False
        self.seen += 1
        is_turn = self.seen % self.every == 0 if self.every else self.seen >= self.nth
        return is_turn and self.fired < self.times


def build_rule(plain: Mapping[str, Any]) -> Rule:
    """Build a rule from plain data.

    Raises:
        RuleError: a key or value that no rule has, or one that makes no sense.
    """
    if not isinstance(plain, dict) or not {"method", "what"} <= set(plain):
        raise RuleError("a rule is an object with at least method and what")
    for name, value in plain.items():
        if name not in TYPES:
            raise RuleError(f"no rule has {name!r}: use {', '.join(TYPES)}")
        if not isinstance(value, TYPES[name]) or isinstance(value, bool):
            raise RuleError(f"{name} cannot be {value!r}")
    rule = Rule(**{"when": "after" if plain["what"] == "task-error" else "before", **plain})
    rule.check()
    return rule


class Faults:
    """The rules of one simulator, and until when it is out of reach."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._out_until = 0.0

    def add(self, *plain: Mapping[str, Any]) -> None:
        """Add rules, all or none of them.

        Raises:
            RuleError: one makes no sense; the text names it by its number, from 0.
        """
        rules = []
        for number, one in enumerate(plain):
            try:
                rules.append(build_rule(one))
            except RuleError as error:
                raise RuleError(f"rule {number}: {error}") from error
        with self._lock:
            self._rules += rules

    def clear(self) -> None:
        """Forget every rule and end an outage."""
        with self._lock:
            self._rules.clear()
            self._out_until = 0.0

    def list_rules(self) -> list[dict[str, Any]]:
        """Return the rules as plain data, with ``seen`` and ``fired``."""
        with self._lock:
            return [asdict(rule) for rule in self._rules]

    def take(self, method: str) -> Rule | None:
        """Count a call in every rule it matches; return the first one that fires."""
        with self._lock:
            due = [rule for rule in self._rules if rule.is_due(method)]
            for rule in due[:1]:
                rule.fired += 1
            return due[0] if due else None

    def begin_outage(self, seconds: float) -> None:
        """Be out of reach for a while."""
        with self._lock:
            self._out_until = time.monotonic() + seconds

    @property
    def is_out(self) -> bool:
        """Whether no connection is answered now."""
        return time.monotonic() < self._out_until
