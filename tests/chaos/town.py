"""Two operators, a worker and people in one vCenter, and what must hold whatever they do.

What must hold is looked up in vCenter itself and in the bare records, never through labctl.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from provisioner.app.labs import Labs, Request
from provisioner.app.leases import ACTOR, Leases
from provisioner.app.worker import Worker
from provisioner.errors import LabctlError
from provisioner.model.lab import Desired, Lab, LabState
from provisioner.rules.clock import TOLERANCE
from tests.chaos.house import BLUEPRINT, FakeHouse, World
from tests.chaos.people import People, name_guest
from tests.chaos.trouble import Crash
from tests.fakes.samples import KEY, ignore
from tests.fakes.vcenter import FakeVm

IDLE_S = 1.0
UNDER_WAY = (LabState.PROVISIONING, LabState.TEARING_DOWN)
LEAVING = (LabState.TEARING_DOWN, LabState.RESIDUE, LabState.GONE)
Meddling = Callable[[People, FakeVm], None]
MEDDLINGS: tuple[Meddling, ...] = (
    *(People.copy, People.rename, People.move, People.power_off, People.snapshot),
    *(People.attach_disk, People.detach_disks),
    *(People.delete, People.unregister, People.deface, People.restore_vcenter),
)


def leave(_seconds: float) -> None:
    """Operators do not follow their work: Ctrl-C."""
    raise KeyboardInterrupt


class Town:
    """Everybody, around one vCenter. A worker's lock is held in `folder` by somebody else."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.world.trouble.watch = self.look
        self.people = People(self.world.vcenter)
        self.operator = Labs(FakeHouse(self.world, leave))
        self.audited = 0
        self.hire_worker()

    def hire_worker(self) -> None:
        """The worker died or was stopped: here is the next one."""
        self.house = FakeHouse(self.world, self.world.clock.advance)
        self.worker = Worker(self.house, self.house.open_engine(), IDLE_S)

    def lose_engine(self) -> None:
        """The engine's database is gone; it may be."""
        self.world.journal.outcomes, self.world.journal.values = {}, {}
        self.hire_worker()

    def work(self) -> None:
        """Let a worker run until it is idle, dies or is stopped: then the next one takes over."""
        try:
            self.look_at_leases()
            self.worker._work()
            if self.world.store.list_open_work():  # asked for when it was about to be idle
                self.worker._work()
        except Crash:
            self.hire_worker()
            return
        if self.house.stopping.is_set():
            self.hire_worker()
        elif self.world.trouble.is_quiet:
            self.check_settled()

    def look_at_leases(self) -> None:
        """What the worker's other thread does; here it comes when the test says so."""
        with suppress(LabctlError):
            self.worker._leases.tick()

    def meddle(self, act: Meddling, which: int) -> None:
        """Let somebody do something to one of the labs' VMs, if there is one."""
        hidden = self.people.hidden
        found = [vm for vm in self.people.list_genuine() if vm not in hidden]
        if found:
            act(self.people, found[which % len(found)])

    # -- operators ----------------------------------------------------------------------------

    def _type(self, act: Callable[[], object]) -> None:
        """Type a verb; it may be refused, and its process may die."""
        try:
            act()
        except (KeyboardInterrupt, LabctlError, Crash):
            return

    def provision(self, hire: str) -> None:
        request = Request(BLUEPRINT, f"{hire}@example.com", KEY)
        self._type(lambda: self.operator.provision(request, ignore))

    def tear_down(self, hire: str) -> None:
        self._type(lambda: self.operator.teardown(f"{hire}-mlops", ignore))

    def converge(self, hire: str) -> None:
        self._type(lambda: self.operator.converge(f"{hire}-mlops", ignore))

    def retry(self, hire: str) -> None:
        self._type(lambda: self.operator.retry(f"{hire}-mlops", ignore))

    def extend(self, hire: str) -> None:
        leases, labs = Leases(self.operator.house), self.operator
        self._type(lambda: leases.extend(labs.get_lab(f"{hire}-mlops"), days=7, until=None))

    # -- what must hold -----------------------------------------------------------------------

    def look(self) -> None:
        """At every moment: no guest has two VMs, and no lease ends a lab too early."""
        assert self.people.find_doubles() == []
        entries = self.world.store.list_entries()
        for entry in entries[self.audited :]:
            lab = self.world.store.get_lab(entry.lab_id)
            if (entry.actor, entry.action) == (ACTOR, "teardown"):
                due_at = lab.lease.ends_at + lab.lease.grace_for
                assert self.world.clock.true_at >= due_at - TOLERANCE, entry
        self.audited = len(entries)

    def check(self) -> None:
        """What is not labctl's is untouched, and what is recorded is true."""
        self.look()
        assert self.people.find_harm() == []
        standing = {name_guest(vm) for vm in self.people.list_genuine()}
        for lab in self.world.store._labs.values():
            guests = {
                (lab.lab_id, lab.generation, one.identity.slot)
                for one in self.world.store.list_guests(lab.lab_id, lab.generation)
            }
            if lab.state is LabState.GONE:
                assert not standing & guests, "gone, and it stands"
                self._check_receipt(lab)
            if lab.state is LabState.READY:
                assert guests - standing <= self.people.taken, "ready, and lacks a VM"
                assert (lab.lab_id, str(lab.generation)) in self.world.credentials.keys
            assert (lab.desired is Desired.ABSENT) == (lab.state in LEAVING), lab

    def _check_receipt(self, lab: Lab) -> None:
        receipt: Any = json.loads(self.world.store._receipts[lab.lab_id, lab.generation])
        assert receipt["complete"] is True
        asked = {row["uuid"] for row in receipt["evidence"] if row["kind"] == "uuid"}
        guests = self.world.store.list_guests(lab.lab_id, lab.generation)
        assert asked == {one.identity.instance_uuid for one in guests}

    def check_settled(self) -> None:
        """When nothing is under way and no trouble is to come, nothing waits for anything."""
        assert self.world.store.list_open_work() == ()
        for lab in self.world.store.list_labs():
            assert lab.state not in UNDER_WAY, lab

    def end(self) -> None:
        """In the end everything can be torn down, with proof, once people have made good."""
        self.world.trouble.end()
        self.world.clock.off_by = timedelta()
        self.end_labs()
        self.people.make_good()
        self.end_labs()
        defaced = {(lab_id, generation) for lab_id, generation, _ in self.people.defaced}
        for lab in self.world.store.list_labs():
            assert (lab.lab_id, lab.generation) in defaced, lab
        left = {name_guest(vm) for vm in self.people.list_genuine()}
        assert {guest[:2] for guest in left if guest} <= defaced
        living = {lab.lab_id for lab in self.world.store.list_labs()}
        assert {lab_id for lab_id, _ in self.world.credentials.keys} <= living

    def end_labs(self) -> None:
        """Tear every lab down, and see what that did."""
        self.work()
        for lab in self.world.store.list_labs():
            self.tear_down(lab.hire.login)
        self.work()
        self.check()
