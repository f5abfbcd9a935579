"""Trying a step again when vCenter does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from time import monotonic
from typing import Any

from provisioner.errors import StoppedError, VsphereUnavailableError
from provisioner.ports import Step

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


def act_patiently(
    step: Step,
    closing: threading.Event,
    pauses_s: Sequence[float] = PAUSES_S,
    *,
    monotonic_s: Callable[[], float] = monotonic,
) -> Any:
    """Run a step's act until vCenter answers or its patience has run out.

    No answer means that the outcome is unknown, and a step looks at the world first: so it is
    tried again. The last of `pauses_s` is repeated.

    Raises:
        VsphereUnavailableError: no answer until `patience_s` after the first failure.
        StoppedError: `closing` was set before it began, or while it paused.
    """
    pauses, until_s = chain(pauses_s, repeat(pauses_s[-1])), None
    if closing.is_set():
        raise build_stopped(f"step {step.name} {step.slot}".strip())
    while True:
        try:
            return step.act()
        except VsphereUnavailableError as error:
            now_s = monotonic_s()
            until_s = now_s + step.patience_s if until_s is None else until_s
            if now_s >= until_s:
                raise
            if closing.wait(min(next(pauses), until_s - now_s)):
                raise build_stopped(f"step {step.name} {step.slot}".strip()) from error


def build_stopped(what: str) -> StoppedError:
    """Build the error of work that was stopped because the engine closes."""
    return StoppedError(
        f"{what} was stopped before it was done",
        hint="run the same command again to continue where it stopped",
    )
