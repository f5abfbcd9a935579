"""Finding VMs of this installation that belong to no lab any more, and removing them."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from provisioner.app.wiring import House
from provisioner.errors import (
    ClockError,
    LabctlError,
    NotProvedError,
    RefusedError,
    StoreError,
)
from provisioner.model.lab import AuditEntry, GuestIdentity, GuestRecord, Lab
from provisioner.model.observed import DestroyResult, ObservedVm, Ownership
from provisioner.model.spec import Site
from provisioner.rules.clock import ClockReading, find_clock_doubt
from provisioner.rules.dossier import parse_dossier
from provisioner.rules.restored import find_restored_at, refuse_when_restored
from provisioner.rules.states import CLOSED_STATES
from provisioner.rules.sweep import Known, Verdict, judge_vm, list_doubts
from provisioner.store import SqlStore

ACTION = "sweep"


@dataclass(frozen=True)
class JudgedVm:
    """A VM with a mark, and what it is to this installation."""

    vm: ObservedVm
    verdict: Verdict


@dataclass(frozen=True)
class Survey:
    """Every VM with a mark in one vCenter. `vcenter_at` is its own time."""

    site: Site
    vcenter_at: datetime
    known: Known
    vms: tuple[JudgedVm, ...]

    @property
    def orphans(self) -> tuple[ObservedVm, ...]:
        """The VMs that belong to nobody."""
        return tuple(one.vm for one in self.vms if one.verdict is Verdict.ORPHAN)


@dataclass(frozen=True)
class Swept:
    """What became of an orphan."""

    vm: ObservedVm
    gone: bool
    detail: str


class Sweeping:
    """The orphans of one site's vCenter."""

    def __init__(self, house: House, site: Site) -> None:
        self._house = house
        self._site = site
        self._hypervisor = house.get_hypervisor(site)

    def survey(self, grace: timedelta) -> Survey:
        """Judge every VM of the vCenter that carries a mark, without a write."""
        vcenter_at = self._hypervisor.read_clock()
        vms = self._hypervisor.list_marked_vms()
        known = read_known(self._house.store, vms)
        judged = [JudgedVm(vm, judge_vm(vm, known, vcenter_at, grace)) for vm in vms]
        return Survey(self._site, vcenter_at, known, tuple(judged))

    def check(self, survey: Survey) -> None:
        """Check that orphans may be destroyed on what this store and this vCenter say.

        Raises:
            RestoredStoreError: the store was put back and not compared since.
            RefusedError: the store is new, and VMs of this installation are older.
            NotProvedError: vCenter is another one, was rolled back, or hides objects.
            ClockError: its clock and this machine's disagree.
        """
        refuse_when_restored(self._house.store)
        ours = sum(one.vm.ownership is Ownership.OURS for one in survey.vms)
        if survey.known.since is None and ours:
            raise RefusedError(
                f"the store is new, but {ours} VMs carry this installation's mark",
                hint="run labctl adopt first: it rebuilds the store from them",
            )
        if doubts := self._find_doubts(survey):
            raise NotProvedError(
                f"not proved, and nothing was touched: {'; '.join(doubts)}",
                hint="mend it and run it again; docs/runbook.md lists the vSphere role",
            )
        clock = self._house.clock
        now = ClockReading(clock.now(), clock.monotonic_s())
        if doubt := find_clock_doubt(now, None, self._hypervisor.read_clock()):
            raise ClockError(
                f"not proved, and nothing was touched: {doubt}", hint="set the clock that is wrong"
            )

    def _find_doubts(self, survey: Survey) -> tuple[str, ...]:
        labs = self._list_labs(survey)
        if survey.orphans and not labs:
            return ("no lab is known that says which vCenter this should be",)
        return list_doubts(labs, self._hypervisor.check_sight())

    def destroy(self, survey: Survey, on_end: Callable[[Swept], None]) -> tuple[Swept, ...]:
        """Destroy the orphans one by one; store, UUID and mark are read again right before each.

        Raises what `check` does, before anything is touched. An orphan that cannot be destroyed is
        left, with the reason.
        """
        self.check(survey)
        ended = []
        for vm in survey.orphans:
            swept = self._destroy(vm)
            ended.append(swept)
            on_end(swept)
        return tuple(ended)

    def _destroy(self, vm: ObservedVm) -> Swept:
        if vm.identity in read_known(self._house.store, (vm,)).living:
            return Swept(vm, gone=False, detail="it belongs to a lab again")
        guest = self._find_guest(vm)
        if guest is None:
            return Swept(vm, gone=False, detail="nothing says which disks it was born with")
        self._record(vm, "asked", "")
        try:
            outcome = self._hypervisor.destroy_vm(guest)
        except LabctlError as error:
            result, detail = "failed", error.what
        else:
            result, detail = outcome.result.value, outcome.detail
        self._record(vm, result, detail)
        gone = result in (DestroyResult.DESTROYED, DestroyResult.ALREADY_GONE)
        return Swept(vm, gone=gone, detail=detail or result)

    def _record(self, vm: ObservedVm, outcome: str, detail: str) -> None:
        lab_id = vm.identity.lab_id if vm.identity else ""
        what = f"{vm.name} ({vm.moref}, instance UUID {vm.instance_uuid}) {detail}".rstrip()
        at, actor = self._house.clock.now(), getpass.getuser()
        self._house.store.record(AuditEntry(at, actor, ACTION, lab_id, outcome, what))

    def _find_guest(self, vm: ObservedVm) -> GuestRecord | None:
        """Return what is known of an orphan's birth: its record, or what its dossier says."""
        if vm.identity is None:
            return None
        recorded = find_guest(self._house.store, vm.identity)
        if recorded is not None:
            return recorded
        parsed = _parse(vm)
        return replace(parsed[1], identity=vm.identity) if parsed else None

    def _list_labs(self, survey: Survey) -> tuple[Lab, ...]:
        """List the labs that say which vCenter this should be: the site's, and the orphans'."""
        store = self._house.store
        labs = [lab for lab in store.list_labs() if lab.site == self._site.site]
        for vm in survey.orphans:
            recorded = store.find_lab(vm.identity.lab_id) if vm.identity else None
            parsed = _parse(vm)
            labs += [lab for lab in (recorded, parsed[0] if parsed else None) if lab]
        return tuple(labs)


def _parse(vm: ObservedVm) -> tuple[Lab, GuestRecord] | None:
    try:
        return parse_dossier(vm.dossier)
    except StoreError:
        return None


def read_known(store: SqlStore, vms: Iterable[ObservedVm]) -> Known:
    """Read what the store knows of the guests that VMs say they are."""
    living, closed = set[GuestIdentity](), set[GuestIdentity]()
    for vm in vms:
        if vm.ownership is Ownership.OURS and vm.identity and find_guest(store, vm.identity):
            lab = store.get_lab(vm.identity.lab_id)
            is_newest = lab.generation == vm.identity.generation
            lives = is_newest and lab.state not in CLOSED_STATES
            (living if lives else closed).add(vm.identity)
    entries = store.list_entries()
    return Known(
        living=frozenset(living),
        closed=frozenset(closed),
        since=entries[0].at if entries else None,
        restored_at=find_restored_at(store),
    )


def find_guest(store: SqlStore, identity: GuestIdentity) -> GuestRecord | None:
    """Return the record of a guest of any generation, None when there is none."""
    guests = store.list_guests(identity.lab_id, identity.generation)
    return next((one for one in guests if one.identity == identity), None)
