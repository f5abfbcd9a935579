"""Many cases on a machine with several processors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

LANES = 4
"""How many cases run at once: they wait more than they work."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_side_by_side(act: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call `act` for each item, in fresh processes; returns the results in order."""
    with ProcessPoolExecutor(LANES, mp_context=get_context("spawn")) as pool:
        return list(pool.map(act, items))
