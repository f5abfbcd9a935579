"""The table of methods: which function answers which WSDL method of which managed object type."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from provisioner.simulator.world import Session, World

SESSION: ContextVar[Session | None] = ContextVar("SESSION", default=None)
"""Whose call is being answered; sessionManager.currentSession is read through it."""


@dataclass
class Call:
    """One call on its way: the object it is for, its arguments, and whose it is.

    A method that logs in or out replaces ``session``; the server turns that into a cookie.
    """

    world: World
    record: Any
    method: Any
    args: Any
    session: Session | None


Handler = "Callable[[Call], Any]"
METHODS: dict[tuple[type, str], Callable[[Call], Any]] = {}


def answers(kind: Any, name: str) -> Callable[[Callable[[Call], Any]], Callable[[Call], Any]]:
    """Register the function that answers a WSDL method for a managed object type."""

    def register(function: Callable[[Call], Any]) -> Callable[[Call], Any]:
        METHODS[kind, name] = function
        return function

    return register
