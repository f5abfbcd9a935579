"""Two operators, a person in vCenter, crashes and bad clocks, in any order, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.chaos.house import SLOTS
from tests.chaos.town import MEDDLINGS, Meddling, Town

Verb = Callable[[Town, str], None]
PLACES = (
    "hypervisor.ensure_clone",
    "hypervisor.destroy_vm",
    "store.move_guest",
    "store.set_state",
    "store.set_work",
    "store.ask_for_work",
    "store.find_last_work",
    "credentials.",
    "shell.",
    "configurator.",
)
HIRES = st.sampled_from(["ana", "bo"])
VERBS = st.sampled_from([Town.provision, Town.tear_down, Town.converge, Town.retry, Town.extend])
MEDDLING = st.sampled_from(MEDDLINGS)
WHICH = st.integers(0, 20)
ANY_PLACE = st.tuples(st.just(""), st.integers(0, 400))
SOON = ANY_PLACE | st.tuples(st.sampled_from(PLACES), st.integers(0, 8))


class Chaos(RuleBasedStateMachine):
    """The rules are what people and machines do; `folder` is set by the test."""

    folder: ClassVar[Path]
    town: Town | None = None

    @initialize()
    def begin(self) -> None:
        self.town = Town(self.folder)

    @property
    def here(self) -> Town:
        assert self.town is not None
        return self.town

    @rule(verb=VERBS, hire=HIRES)
    def type_a_verb(self, verb: Verb, hire: str) -> None:
        verb(self.here, hire)

    @rule(hire=HIRES)
    def provision(self, hire: str) -> None:
        self.here.provision(hire)

    @rule()
    def work(self) -> None:
        self.here.work()

    @rule(when=SOON)
    def work_and_die(self, when: tuple[str, int]) -> None:
        self.here.world.trouble.arm_crash(*when)
        self.here.work()

    # -- trouble to come ----------------------------------------------------------------------

    @rule(when=SOON, kind=st.sampled_from(["silence", "refusal", "stop"]))
    def arm_trouble(self, when: tuple[str, int], kind: str) -> None:
        trouble = self.here.world.trouble
        arm: dict[str, Callable[[str, int], None]] = {
            "silence": trouble.arm_silence,
            "refusal": trouble.arm_refusal,
            "stop": lambda *when: trouble.arm(self.here.house.stopping.set, *when),
        }
        arm[kind](*when)

    @rule(when=SOON, verb=VERBS, hire=HIRES)
    def arm_verb(self, when: tuple[str, int], verb: Verb, hire: str) -> None:
        self.here.world.trouble.arm(lambda: verb(self.here, hire), *when)

    @rule(when=SOON, act=MEDDLING, which=WHICH)
    def arm_meddling(self, when: tuple[str, int], act: Meddling, which: int) -> None:
        self.here.world.trouble.arm(lambda: self.here.meddle(act, which), *when)

    # -- trouble now --------------------------------------------------------------------------

    @rule()
    def lose_engine(self) -> None:
        self.here.lose_engine()

    @rule(hours=st.sampled_from([1, 20, 24 * 3, 24 * 14]))
    def let_time_pass(self, hours: int) -> None:
        self.here.world.clock.advance(hours * 3600)

    @rule(hours=st.sampled_from([-400, -2, 0, 0, 2, 400]))
    def set_the_clock_wrong(self, hours: int) -> None:
        self.here.world.clock.off_by = timedelta(hours=hours)

    @rule(act=MEDDLING, which=WHICH)
    def meddle(self, act: Meddling, which: int) -> None:
        self.here.meddle(act, which)

    @rule(hire=HIRES, slot=st.sampled_from(SLOTS))
    def plant(self, hire: str, slot: str) -> None:
        self.here.people.plant(f"{hire}-mlops-{slot}")
        self.here.people.install_another(f"{hire}-mlops", slot)

    @rule()
    def make_good(self) -> None:
        self.here.people.make_good()

    # -- what must hold -----------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        if self.town:
            self.town.check()

    def teardown(self) -> None:
        if self.town:
            self.town.end()


def run(folder: Path, examples: int, steps: int, *, derandomize: bool) -> None:
    Chaos.folder = folder
    run_state_machine_as_test(
        Chaos,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=derandomize,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_nothing_is_lost_doubled_or_harmed(folder: Path) -> None:
    run(folder, 60, 25, derandomize=True)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_nothing_is_lost_doubled_or_harmed_for_long(folder: Path) -> None:
    run(folder, 1500, 50, derandomize=False)
