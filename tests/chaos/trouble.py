"""Trouble that comes between any two calls across a port: crashes, lost answers, other people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from provisioner.errors import TaskFailedError, VsphereUnavailableError

BEFORE, AFTER = "before ", "after "
VCENTER = "hypervisor."


class Crash(BaseException):
    """The process ends here; nothing in it gets to say anything more."""


@dataclass
class _Armed:
    """What happens at the moment after `left` more of those whose name has `words`."""

    act: Callable[[], object]
    words: tuple[str, ...]
    left: int


@dataclass
class Trouble:
    """What is to happen, once each, and when. `watch` looks at the world at each moment.

    A moment is just before or just after a call across a port, and is called so, as
    `before hypervisor.destroy_vm`. Where a place is named, only moments with that word count.
    """

    watch: Callable[[], None] = lambda: None
    passed: int = 0
    _armed: list[_Armed] = field(default_factory=list)

    def arm(self, act: Callable[[], object], place: str, left: int) -> None:
        """Let something else happen."""
        self._armed.append(_Armed(act, (place,), left))

    def arm_crash(self, place: str, left: int) -> None:
        """End the process whose call it is."""
        self.arm(_crash, place, left)

    def arm_silence(self, place: str, left: int) -> None:
        """Lose a call to vCenter, or its answer."""
        self._armed.append(_Armed(_fall_silent, (VCENTER, place), left))

    def arm_refusal(self, place: str, left: int) -> None:
        """Let vCenter refuse a call."""
        self._armed.append(_Armed(_refuse, (BEFORE, VCENTER, place), left))

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to come."""
        return not self._armed

    def end(self) -> None:
        """Let nothing more happen."""
        self._armed.clear()

    def wrap(self, port: Any, name: str) -> Any:
        """Return a port between whose calls there are moments."""
        return _Between(port, name, self)

    def pass_moment(self, name: str) -> None:
        """Let happen what is due. Raises whatever comes of it."""
        self.watch()
        self.passed += 1
        for one in tuple(self._armed):
            if all(word in name for word in one.words):
                one.left -= 1
        while due := next((one for one in self._armed if one.left < 0), None):
            self._armed.remove(due)
            due.act()


def _crash() -> None:
    raise Crash


def _fall_silent() -> None:
    raise VsphereUnavailableError("no answer")


def _refuse() -> None:
    raise TaskFailedError("vCenter refused")


class _Between:
    def __init__(self, port: Any, name: str, trouble: Trouble) -> None:
        self._port, self._name, self._trouble = port, name, trouble

    def __getattr__(self, verb: str) -> Any:
        act, name = getattr(self._port, verb), f"{self._name}.{verb}"

        def between(*args: Any, **kwargs: Any) -> Any:
            self._trouble.pass_moment(BEFORE + name)
            try:
                return act(*args, **kwargs)
            finally:
                self._trouble.pass_moment(AFTER + name)

        return between
