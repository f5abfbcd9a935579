"""One thing goes wrong at one moment of a lab's life: at every moment, one after another."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.town import MEDDLINGS, Meddling, Town
from tests.chaos.trouble import AFTER

DAY_S = 24 * 3600
LEASE_DAYS, GRACE_DAYS = 14, 3
Act = Callable[[Town, int], None]


def provision(town: Town) -> None:
    town.provision("ana")


def make_ready(town: Town) -> None:
    provision(town)
    town.work()


def tear_down(town: Town) -> None:
    make_ready(town)
    town.tear_down("ana")


def converge(town: Town) -> None:
    make_ready(town)
    town.converge("ana")


def expire(town: Town) -> None:
    make_ready(town)
    town.world.clock.advance(LEASE_DAYS * DAY_S + 1)


def revive(town: Town) -> None:
    expire(town)
    town.work()
    town.extend("ana")


def outlive(town: Town) -> None:
    expire(town)
    town.work()
    town.world.clock.advance(GRACE_DAYS * DAY_S)


LIVES = (provision, tear_down, converge, expire, revive, outlive)
"""What was done before the worker goes on, and the trouble begins."""


def count_moments(folder: Path, live: Callable[[Town], None]) -> int:
    """Count the moments of a worker's run that meets no trouble."""
    town = Town(folder)
    live(town)
    before = town.world.trouble.passed
    town.work()
    return (town.world.trouble.passed - before) // 2


def crash(town: Town, left: int) -> None:
    town.world.trouble.arm_crash(AFTER, left)


def fall_silent(town: Town, left: int) -> None:
    town.world.trouble.arm_silence(AFTER, left)


def refuse(town: Town, left: int) -> None:
    town.world.trouble.arm_refusal("", left)


def stop(town: Town, left: int) -> None:
    town.world.trouble.arm(town.house.stopping.set, AFTER, left)


def typing(verb: Callable[[Town, str], None]) -> Act:
    return lambda town, left: town.world.trouble.arm(lambda: verb(town, "ana"), AFTER, left)


def meddling(act: Meddling) -> Act:
    return lambda town, left: town.world.trouble.arm(lambda: town.meddle(act, left), AFTER, left)


def losing_the_engine(town: Town, left: int) -> None:
    crash(town, left)
    town.work()
    town.lose_engine()


def crash_and(act: Meddling) -> Act:
    """Die, and let somebody do something before the next worker comes."""

    def both(town: Town, left: int) -> None:
        crash(town, left)
        town.work()
        for which in range(2):
            town.meddle(act, which)

    return both


def look_at_leases(town: Town, left: int) -> None:
    town.world.trouble.arm(town.look_at_leases, AFTER, left)


VERBS = (Town.provision, Town.tear_down, Town.converge, Town.retry, Town.extend)
ACTS: dict[str, Act] = {
    "crash": crash,
    "silence": fall_silent,
    "refusal": refuse,
    "stop": stop,
    "the leases are looked at": look_at_leases,
    "a crash, and the engine's database is lost": losing_the_engine,
    **{f"somebody types {verb.__name__}": typing(verb) for verb in VERBS},
    **{f"somebody does {act.__name__}": meddling(act) for act in MEDDLINGS},
    **{f"a crash, then somebody does {act.__name__}": crash_and(act) for act in MEDDLINGS},
}


OFTEN = {"crash", "silence", "a crash, then somebody does attach_disk"} | {
    f"somebody types {verb.__name__}" for verb in VERBS
}


def go_wrong(folder: Path, live: Callable[[Town], None], act: Act, moments: range) -> None:
    for left in moments:
        town = Town(folder)
        live(town)
        act(town, left)
        town.work()
        town.check()
        town.end()


@pytest.mark.parametrize("live", LIVES)
def test_at_one_moment(folder: Path, live: Callable[[Town], None]) -> None:
    chance = random.Random(live.__name__)  # noqa: S311 - the same moments each time
    moments = count_moments(folder, live)
    for act in ACTS.values():
        left = chance.randrange(moments)
        go_wrong(folder, live, act, range(left, left + 1))


@pytest.mark.chaos
@pytest.mark.parametrize("live", LIVES)
@pytest.mark.parametrize("act", ACTS)
def test_at_every_moment(folder: Path, live: Callable[[Town], None], act: str) -> None:
    stride = 1 if act in OFTEN else 5
    go_wrong(folder, live, ACTS[act], range(0, count_moments(folder, live), stride))
