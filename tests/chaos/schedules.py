"""Seeded schedules of faults: a lab is provisioned and torn down while vCenter fails by rules.

A site is a method that vCenter is sent during a piece of work. Each schedule has one fault that is
its own, by its seed, and a few more by chance; as many schedules in a row as there are pairs of a
site and a kind of fault meet every pair. One alone: `python -m tests.chaos.schedules SEED`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from provisioner.simulator.server import SoapHandler
from tests.chaos.ground import LAB, Ground, ground
from tests.chaos.hasty import LIMITS, StuckError, wait_for_end, working
from tests.fakes.samples import ignore

LATE_S = LIMITS.request_s + 0.5
SLOW_S = LIMITS.clone_s + 1.0
OUT_S = 0.6
SLOTS = (("workbench",), ("left", "right"))
MOST_EXTRAS = 2
WORKFLOWS = ("provision", "teardown")


@dataclass(frozen=True)
class Kind:
    """A kind of fault. What does not heal by itself may end the work, which is asked for again."""

    name: str
    rule: dict[str, Any]
    heals: bool = True
    of_tasks: bool = False
    slow_s: float = 0.0


def _both(name: str, heals: bool = True, **rule: Any) -> list[Kind]:  # noqa: FBT001, FBT002 - one use
    moments = ("before", "after")
    return [Kind(f"{name} {when}", {**rule, "when": when}, heals) for when in moments]


KINDS = (
    *_both("lost", what="lost"),
    *_both("reset", what="reset"),
    *_both("late", what="delay", seconds=LATE_S),
    *_both("outage", what="outage", seconds=OUT_S),
    *_both("restart", what="restart"),
    *_both("host away", what="vmodl.fault.HostCommunication"),
    *_both("system error", heals=False, what="vmodl.fault.SystemError"),
    Kind("delay", {"what": "delay", "seconds": 0.3}),
    Kind("expired", {"what": "expire"}),
    Kind("busy", {"what": "vim.fault.TaskInProgress"}, of_tasks=True),
    Kind("changed", {"what": "vim.fault.ConcurrentAccess"}, of_tasks=True),
    Kind("cancelled", {"what": "vmodl.fault.RequestCanceled"}, heals=False),
    *(
        Kind(
            f"task {name} {when}",
            {"what": "task-error", "when": when, "fault": fault},
            heals=name == "host away",
            of_tasks=True,
        )
        for name, fault in (
            ("host away", "vmodl.fault.HostCommunication"),
            ("error", "vmodl.fault.SystemError"),
        )
        for when in ("before", "after")
    ),
    Kind("slow", {}, of_tasks=True, slow_s=SLOW_S),
    Kind("slow, not cancelled", {"what": "cancel-ignored"}, of_tasks=True, slow_s=SLOW_S),
)


@dataclass(frozen=True, order=True)
class Site:
    """A method during a piece of work, and how often it is sent then."""

    workflow: str
    method: str
    count: int = field(compare=False)


@dataclass(frozen=True)
class Fault:
    """A kind of fault at one of a site's calls."""

    site: Site
    kind: Kind
    nth: int = 1

    @property
    def pair(self) -> tuple[str, str, str]:
        return self.site.workflow, self.site.method, self.kind.name

    def __str__(self) -> str:
        return f"{self.kind.name} {self.site.method}#{self.nth} of the {self.site.workflow}"


@dataclass
class Report:
    """What came of one schedule. `hit` are the faults that happened."""

    seed: int
    faults: list[Fault]
    hit: list[Fault] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0

    def __str__(self) -> str:
        planned = [f"  {'hit ' if one in self.hit else 'free'} {one}" for one in self.faults]
        failed = [f"  failed: {text}" for text in self.failures]
        wrong = [f"  WRONG: {text}" for text in self.wrong]
        head = f"seed {self.seed}, {self.elapsed_s:.1f} s"
        return "\n".join([head, *planned, *failed, *wrong])


def list_faults(sites: Iterable[Site]) -> list[Fault]:
    """List every pair of a site and a kind, in an order that mixes them and never changes."""
    faults = [
        Fault(site, kind)
        for site in sorted(sites)
        for kind in KINDS
        if site.method.endswith("_Task") or not kind.of_tasks
    ]
    random.Random(0).shuffle(faults)  # noqa: S311 - to be repeated
    return faults


def build_schedule(sites: Iterable[Site], seed: int) -> list[Fault]:
    """Build the faults of a seed."""
    chance, faults = random.Random(seed), []  # noqa: S311 - to be repeated
    for workflow in WORKFLOWS:
        possible = list_faults(site for site in sites if site.workflow == workflow)
        own = possible[seed % len(possible)]
        others = [one for one in possible if one.site.method != own.site.method]
        faults.append(own)
        faults += [
            Fault(one.site, one.kind, chance.randint(1, one.site.count))
            for one in chance.sample(others, chance.randint(0, MOST_EXTRAS))
        ]
    return faults


@contextmanager
def _place(*slots: str) -> Iterator[Ground]:
    """Make a lab's place with a worker on it, for a while."""
    with (
        TemporaryDirectory(prefix="labctl-chaos-") as folder,
        ground(Path(folder) / "case", *slots) as place,
    ):
        _be_slow_once(place)
        with working(place):
            yield place


def record_sites() -> list[Site]:
    """Record an undisturbed provision and teardown."""
    sites = []
    with _place() as place:
        for workflow in WORKFLOWS:
            ask(place, workflow)
            before = dict(place.simulator.world.requests)
            assert wait_for_end(place) is None
            after = dict(place.simulator.world.requests)
            fresh = {name: count - before.get(name, 0) for name, count in after.items()}
            sites += [Site(workflow, name, count) for name, count in fresh.items() if count]
    return sites


def ask(place: Ground, workflow: str) -> None:
    (place.ask_provision if workflow == "provision" else place.ask_teardown)()


def run_schedule(sites: Iterable[Site], seed: int) -> Report:
    """Provision a lab and tear it down while the faults of a seed happen."""
    report = Report(seed, build_schedule(tuple(sites), seed))
    began_s = time.monotonic()
    with _place(*SLOTS[seed % 2]) as place:
        for workflow in WORKFLOWS:
            ask(place, workflow)
            faults = [one for one in report.faults if one.site.workflow == workflow]
            try:
                _work(place, faults, report)
            except StuckError as stuck:
                report.wrong.append(str(stuck))
                break
            find = {"provision": place.find_wrong_provision}
            report.wrong += find.get(workflow, place.find_wrong_teardown)()
    report.elapsed_s = time.monotonic() - began_s
    return report


def _work(place: Ground, faults: list[Fault], report: Report) -> None:
    """See a piece of work to its end, and ask again for it where a fault may have ended it."""
    world = place.simulator.world
    rules = [one for one in faults if one.kind.rule]
    world.settings.method_delays_s |= {
        one.site.method: one.kind.slow_s for one in faults if one.kind.slow_s
    }
    world.faults.add(*({"method": f.site.method, "nth": f.nth, **f.kind.rule} for f in rules))
    errors: list[str] = []
    while (error := wait_for_end(place)) is not None and len(errors) <= len(faults):
        errors.append(error)
        place.ask(lambda labs: labs.retry(LAB, ignore))
    fired = [rule["fired"] for rule in world.faults.list_rules()]
    world.faults.clear()
    hit = [one for one, count in zip(rules, fired, strict=True) if count]
    hit += [
        one
        for one in faults
        if not one.kind.rule and one.site.method not in world.settings.method_delays_s
    ]
    report.hit += hit
    report.failures += errors
    if len(errors) > sum(not one.kind.heals for one in hit):
        report.wrong.append(f"did not heal by itself: {errors}")


def _be_slow_once(place: Ground) -> None:
    """Let a method that starts slow tasks start one of them only."""
    settings = place.simulator.world.settings

    class Handler(SoapHandler):
        def _soap(self, body: bytes) -> None:
            super()._soap(body)
            for method in [one for one in settings.method_delays_s if f"<{one} ".encode() in body]:
                settings.method_delays_s.pop(method, None)

    place.simulator.server.RequestHandlerClass = Handler


def main() -> None:
    """Run the schedules of some seeds, and tell all about each."""
    sites = record_sites()
    for seed in sys.argv[1:]:
        print(run_schedule(sites, int(seed)))


if __name__ == "__main__":
    main()
