"""Workers that are killed at chosen points, the ones that follow them, and what came of it.

One case alone: `python -m tests.chaos.killing WORKFLOW "MOMENT POINT" ...`, as a failure names it.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Self

from provisioner.app.worker_process import find_worker
from provisioner.simulator.server import SoapHandler
from tests.chaos.doom import LEASES, MOMENTS
from tests.chaos.ground import MUTATIONS, Ground, ground
from tests.chaos.lanes import LANES
from tests.chaos.nursery import Nursery, nursery

WORKFLOWS = ("provision", "teardown")
GIVEN_UP = "provision, given up"
"""A provision whose first worker is killed, and whose lab is torn down then."""
JOURNAL = frozenset(
    f"store.{method}"
    for method in (
        *("set_work", "raise_event_key", "set_state", "save_receipt"),
        *("move_guest", "update_guest"),
    )
)
"""The store's calls that change what is recorded of a lab, its guests or its work."""


WORKS_S = {"as vCenter takes": 0.0, "while vCenter works on": 1.5}
"""Two more moments, of a call that changes vCenter itself, and how long vCenter works on it."""


@dataclass(frozen=True)
class Kill:
    """Where and when one worker is killed."""

    point: str
    moment: str

    def __str__(self) -> str:
        return f"{self.moment} {self.point}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `str` writes."""
        (moment,) = [one for one in (*MOMENTS, *WORKS_S) if text.startswith(f"{one} ")]
        return cls(text.removeprefix(f"{moment} "), moment)


@dataclass(frozen=True)
class Case:
    """A workflow, and the kills of its first workers."""

    workflow: str
    kills: tuple[Kill, ...]

    def __str__(self) -> str:
        return f"{self.workflow}, killed {' and then '.join(map(str, self.kills)) or 'never'}"


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    `reached` tells for each kill whether the worker came to it, `wrong` what is not as it should
    be at the end. `calls` are those of the last worker, `mutations` the ones among them by which
    vCenter was changed.
    """

    case: Case
    reached: tuple[bool, ...]
    wrong: tuple[str, ...]
    calls: tuple[str, ...]
    mutations: frozenset[str]

    @property
    def word(self) -> str:
        """Say it in a word or two."""
        return "; ".join(self.wrong) or ("ok" if all(self.reached) else "not reached")


def try_case(nursery: Nursery, folder: Path, case: Case) -> Outcome:
    """Bring a case to its end, on a simulator of its own."""
    with ground(folder) as place:
        place.ask_provision()
        if case.workflow == "teardown":
            whole = nursery.live(place)
            wrong = place.find_wrong_provision()
            assert not wrong, f"{wrong}\n{whole.log}"
            place.ask_teardown()
        reached = []
        for kill in case.kills:
            reached.append(_live(nursery, place, kill))
            if case.workflow == GIVEN_UP and len(reached) == 1:
                place.ask_teardown()
        mutations = _note_mutations(place)
        last = nursery.live(place)
        wrong = [] if last.status == 0 else [f"stuck: {last.status}\n{last.log}"]
        wrong += find_wrong(place, case.workflow)
        if (clones := place.count("CloneVM_Task")) != 1 and not (
            clones == 0 and case.workflow == GIVEN_UP
        ):
            wrong.append(f"doubled: {clones} clone calls were sent")
    return Outcome(case, tuple(reached), tuple(wrong), last.calls, frozenset(mutations))


def find_wrong(place: Ground, workflow: str) -> list[str]:
    if workflow == "provision":
        return place.find_wrong_provision()
    return place.find_wrong_teardown()


def _live(nursery: Nursery, place: Ground, kill: Kill) -> bool:
    """Let a worker live until it is killed; tell whether it was."""
    if kill.moment not in WORKS_S:
        return nursery.live(place, kill.point, kill.moment).status == -signal.SIGKILL

    def strike(method: str) -> None:
        if method == kill.point and (worker := find_worker(place.state)):
            os.kill(worker, signal.SIGKILL)

    delays_s = place.simulator.world.settings.method_delays_s
    delays_s[kill.point] = WORKS_S[kill.moment]
    _hear_mutations(place, strike)
    try:
        return nursery.live(place).status == -signal.SIGKILL
    finally:
        del delays_s[kill.point]


def _note_mutations(place: Ground) -> set[str]:
    """Note during which of the next worker's calls vCenter is asked to change something."""
    noted: set[str] = set()
    number = len(list(place.state.parent.glob("calls.*")))
    calls = place.state.parent / f"calls.{number}"

    def note(_method: str) -> None:
        noted.add([one for one in calls.read_text().splitlines() if LEASES not in one][-1])

    _hear_mutations(place, note)
    return noted


def _hear_mutations(place: Ground, hear: Callable[[str], None]) -> None:
    """Be told, from now on, of each call that changes vCenter, right before it is worked on."""

    class Handler(SoapHandler):
        def _soap(self, body: bytes) -> None:
            found = re.search(rb"<soapenv:Body>\s*<(\w+)", body)
            if found and found[1].decode() in MUTATIONS:
                hear(found[1].decode())
            super()._soap(body)

    place.simulator.server.RequestHandlerClass = Handler


def list_mutating(outcome: Outcome) -> list[str]:
    """List the calls of an undisturbed run that change vCenter or the journal, in their order."""
    return [
        call
        for call in outcome.calls
        if call in outcome.mutations or call.partition("#")[0] in JOURNAL
    ]


def list_kills(calls: Iterable[str]) -> list[tuple[Kill, ...]]:
    """List every moment of some calls, each as the only kill of a case."""
    return [(Kill(call, moment),) for call in calls for moment in MOMENTS]


@contextmanager
def trying() -> Iterator[Callable[[Iterable[Case]], list[Outcome]]]:
    """Bring cases to their ends, some side by side: they wait more than they work."""
    with ExitStack() as stack, ThreadPoolExecutor(LANES) as threads:
        free: SimpleQueue[Nursery] = SimpleQueue()
        for _ in range(LANES):
            free.put(stack.enter_context(nursery()))

        def try_one(case: Case) -> Outcome:
            one = free.get()
            try:
                with TemporaryDirectory(prefix="labctl-chaos-") as folder:
                    return try_case(one, Path(folder) / "case", case)
            finally:
                free.put(one)

        yield lambda cases: list(threads.map(try_one, cases))


def main() -> None:
    """Try one case, and tell all about it."""
    workflow, *kills = sys.argv[1:]
    case = Case(workflow, tuple(Kill.from_text(text) for text in kills))
    with trying() as try_all:
        (outcome,) = try_all([case])
    print(f"{case}: {outcome.word}")
    for kill, is_reached in zip(case.kills, outcome.reached, strict=True):
        print(f"  {'reached' if is_reached else 'not reached'}: {kill}")
    print("the last worker called", *outcome.calls, sep="\n  ")


if __name__ == "__main__":
    main()
