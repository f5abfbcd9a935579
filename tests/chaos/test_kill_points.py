"""A worker that is killed at any point loses nothing, leaves nothing behind and does nothing twice.

The points are the calls through ports of a recorded run, by name and number; `doom` says what the
three moments of each are. After each kill another worker starts and is left alone.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.chaos.doom import LEASES, MOMENTS
from tests.chaos.ground import LAB, SLOT, ground
from tests.chaos.killing import (
    GIVEN_UP,
    WORKFLOWS,
    WORKS_S,
    Case,
    Kill,
    Outcome,
    list_kills,
    list_mutating,
    try_case,
    trying,
)
from tests.chaos.nursery import nursery
from tests.simulator.conftest import Client

Try = Callable[[Iterable[Case]], list[Outcome]]
PAIRS = 200


@pytest.fixture(scope="module", name="try_all")
def _try_all() -> Iterator[Try]:
    with trying() as try_all:
        yield try_all


@pytest.fixture(scope="module")
def recorded(try_all: Try) -> dict[str, Outcome]:
    """An undisturbed run of each workflow, twice: the points are the same each time."""
    outcomes = try_all(Case(workflow, ()) for workflow in WORKFLOWS * 2)
    assert [outcome.wrong for outcome in outcomes] == [()] * len(outcomes)
    runs = dict(zip(WORKFLOWS, zip(outcomes[:2], outcomes[2:], strict=True), strict=True))
    for one, other in runs.values():
        assert list_work(one) == list_work(other)
        assert list_mutating(one) == list_mutating(other)
    # On a slow machine the leases may have been looked at twice.
    return {name: min(pair, key=lambda one: len(one.calls)) for name, pair in runs.items()}


def list_work(outcome: Outcome) -> list[str]:
    return [call for call in outcome.calls if not call.startswith(LEASES)]


def test_the_points_are_real(recorded: dict[str, Outcome]) -> None:
    for outcome in recorded.values():
        ports = {call.partition(".")[0] for call in outcome.calls}
        assert {"hypervisor", "store", "credentials", "shell"} <= ports
    assert "configurator.run_play#1" in recorded["provision"].calls
    mutating = {workflow: list_mutating(one) for workflow, one in recorded.items()}
    assert {"hypervisor.ensure_clone#1", "hypervisor.ensure_powered_on#1"} <= set(
        mutating["provision"]
    )
    assert "hypervisor.ensure_powered_on#2" not in mutating["provision"], "it was on already"
    assert "hypervisor.destroy_vm#1" in mutating["teardown"]


@pytest.mark.parametrize("workflow", [*WORKFLOWS, GIVEN_UP])
def test_a_kill_where_something_changes(
    try_all: Try, recorded: dict[str, Outcome], workflow: str
) -> None:
    kills = list_kills(list_mutating(recorded[workflow.partition(",")[0]]))
    outcomes = try_all(Case(workflow, kill) for kill in kills)
    assert {str(one.case): one.word for one in outcomes if one.word != "ok"} == {}


def test_a_kill_while_vcenter_works(try_all: Try) -> None:
    """Between the calls of one step, too: a VM is powered off before it is destroyed."""
    changes = {
        "provision": ("CloneVM_Task", "PowerOnVM_Task"),
        "teardown": ("PowerOffVM_Task", "Destroy_Task"),
    }
    changes[GIVEN_UP] = changes["provision"]
    outcomes = try_all(
        Case(workflow, (Kill(method, moment),))
        for workflow, methods in changes.items()
        for method in methods
        for moment in WORKS_S
    )
    assert {str(one.case): one.word for one in outcomes if one.word != "ok"} == {}


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_a_kill_at_every_point_and_a_second_one_in_the_recovery(
    try_all: Try, recorded: dict[str, Outcome]
) -> None:
    singles = []
    for workflow in (*WORKFLOWS, GIVEN_UP):
        calls = recorded[workflow.partition(",")[0]].calls
        outcomes = try_all(Case(workflow, kill) for kill in list_kills(calls))
        singles += outcomes
        show(workflow, calls, outcomes)
    seed = secrets.randbelow(10**6)
    pairs = try_all(choose_pairs(singles, seed))
    bad = [one for one in (*singles, *pairs) if one.word != "ok"]
    print(f"\n{len(pairs)} pairs, seed {seed}: {sum(one.word == 'ok' for one in pairs)} ok")
    assert {str(one.case): one.word for one in bad} == {}


def choose_pairs(singles: list[Outcome], seed: int) -> list[Case]:
    """Draw a kill, and a second one among the calls that its recovery made then."""
    chance = random.Random(seed)  # noqa: S311 - to be repeated
    cases = []
    for first in chance.choices(singles, k=PAIRS):
        second = Kill(chance.choice(first.calls), chance.choice(MOMENTS))
        cases.append(Case(first.case.workflow, (*first.case.kills, second)))
    return cases


def show(workflow: str, calls: Iterable[str], outcomes: list[Outcome]) -> None:
    """Print points by outcomes, and how many of the points were reached."""
    words = {outcome.case.kills[0]: outcome.word for outcome in outcomes}
    print(f"\n{workflow:44} {' '.join(f'{moment:12}' for moment in MOMENTS)}")
    for call in calls:
        row = [words[Kill(call, moment)] for moment in MOMENTS]
        print(f"{call:44} {' '.join(f'{word:12}' for word in row)}")
    reached = sum(all(outcome.reached) for outcome in outcomes)
    kinds = ("leaked", "doubled", "stuck")
    counts = [sum(kind in one.word for one in outcomes) for kind in kinds]
    said = ", ".join(f"{count} {kind}" for count, kind in zip(counts, kinds, strict=True))
    percent = 100 * reached / len(outcomes)
    print(f"{reached} of {len(outcomes)} moments reached: {percent:.0f} %; {said}")


# -- what would be seen ---------------------------------------------------------------------------


def test_what_is_left_doubled_or_stuck_would_be_seen(tmp_path: Path) -> None:
    with ground(tmp_path / "case") as place, nursery() as workers:
        place.ask_provision()
        assert place.find_wrong_provision()[0] == f"there is no VM {LAB}-{SLOT}"
        killed = workers.live(place, "hypervisor.ensure_clone#1", "after")
        assert killed.calls[-1] == "store.move_guest#3", "heard of the task, and of no more"
        wrong = " ".join(place.find_wrong_provision())
        assert "poweredOff" in wrong
        assert "stuck: the lab is [('provisioning', '')]" in wrong
        assert workers.live(place).status == 0
        assert place.find_wrong_provision() == []
        assert "leaked: VM" in " ".join(place.find_wrong_teardown())
        planted = Client(place.simulator).clone(f"{LAB}-{SLOT}-2")
        assert "doubled" in place.find_wrong_provision()[0]
        planted.UnregisterVM()
        assert "leaked: [datastore" in " ".join(place.find_wrong_provision())


def test_a_worker_that_does_not_end_would_be_seen(tmp_path: Path) -> None:
    with ground(tmp_path / "case") as place, nursery() as workers:
        place.ask_provision()
        place.simulator.world.settings.method_delays_s = {"CloneVM_Task": 60}
        assert workers.live(place, limit_s=2).status is None


def test_a_point_that_no_worker_comes_to_would_be_seen(tmp_path: Path) -> None:
    case = Case("provision", (Kill("hypervisor.ensure_clone#2", "before"),))
    with nursery() as workers:
        assert try_case(workers, tmp_path / "case", case).word == "not reached"
