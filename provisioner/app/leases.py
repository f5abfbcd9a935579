"""What leases ask for by the hour, while clocks agree, and how IT extends them."""

from __future__ import annotations

import getpass
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

from provisioner.errors import BusyError, LabctlError, RefusedError
from provisioner.files.site import load_site
from provisioner.model.lab import (
    AuditEntry,
    Desired,
    GuestState,
    Lab,
    LabState,
    Progress,
    StepStatus,
    WorkItem,
)
from provisioner.model.spec import Site
from provisioner.ports import Audit, Clock, Hypervisor, LabStore
from provisioner.rules.clock import ClockReading, find_clock_doubt, from_note, to_note
from provisioner.rules.dossier import build_dossier
from provisioner.rules.lease import (
    LeaseAct,
    decide_lease,
    extend_lease,
    find_warning,
    must_wait,
    refuse_ending,
)
from provisioner.rules.restored import find_restored_at

LOG = logging.getLogger("labctl.leases")
ACTOR = "lease"
WARNED = "warn-lease"
CLOCK_NOTE = "clock"
ASK_AGAIN_S = 60.0
"""How long a vCenter that did not tell its time is not asked again."""


class Records(LabStore, Audit, Protocol):
    """A store with its audit."""


class Wired(Protocol):
    """What leases need of a wired house."""

    @property
    def store(self) -> Records:
        """The store of this installation."""
        ...

    @property
    def clock(self) -> Clock:
        """This machine's clock."""
        ...

    @property
    def site_dirs(self) -> tuple[Path, ...]:
        """Where site files are looked for."""
        ...

    def get_hypervisor(self, site: Site) -> Hypervisor:
        """Return the one session with a site's vCenter."""
        ...


@dataclass(frozen=True)
class Extension:
    """A lease that was extended. `revival` is the work that brings an expired lab back."""

    lab_id: str
    old_end: datetime
    new_end: datetime
    revival: WorkItem | None


class Leases:
    """The leases of all labs, over one wired house."""

    def __init__(self, house: Wired) -> None:
        self._house = house
        self._silent: dict[str, tuple[float, str]] = {}

    # -- by the hour --------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at every living lab once: warn, and ask for the work that its lease is due for.

        A lab with open work is left alone. What ends a lab, or brings it back, waits while this
        machine's clock is in doubt. Trouble with one site or lab stops no other.
        """
        store = self._house.store
        doubts = self._judge_clocks({lab.site for lab in store.list_labs()})
        busy = {item.lab_id for item in store.list_open_work()}
        labs = [lab for lab in store.list_labs() if lab.site in doubts and lab.lab_id not in busy]
        for lab in labs:
            self._tend(lab, trusted=doubts[lab.site] is None)
        for lab in labs:
            if doubts[lab.site] is None:
                self._bring_dossiers_up_to_date(lab)

    def _judge_clocks(self, sites: set[str]) -> dict[str, str | None]:
        """Say for each site why its timers are stopped, and keep that where verbs read it."""
        store = self._house.store
        last = from_note(store.find_note(CLOCK_NOTE))
        doubts = {site: self._find_doubt(site, last) for site in sorted(sites)}
        store.set_note(CLOCK_NOTE, to_note(self._read_clocks()))
        for site, doubt in doubts.items():
            text = f"timers stopped: {doubt}" if doubt else ""
            if text != (store.find_note(_name_timers(site)) or ""):
                store.set_note(_name_timers(site), text)
                LOG.info("site %s: %s", site, text or "timers run")
        return doubts

    def _find_doubt(self, site: str, last: ClockReading | None) -> str | None:
        if find_restored_at(self._house.store) is not None:
            return "the store was put back from a backup; run labctl adopt"
        now_s = self._house.clock.monotonic_s()
        until_s, doubt = self._silent.get(site, (now_s, ""))
        if now_s < until_s:
            return doubt
        try:
            vcenter_at = self._get_hypervisor(site).read_clock()
        except LabctlError as error:
            doubt = f"vCenter's clock cannot be read: {error.what}"
            self._silent[site] = (self._house.clock.monotonic_s() + ASK_AGAIN_S, doubt)
            return doubt
        return find_clock_doubt(self._read_clocks(), last, vcenter_at)

    def _read_clocks(self) -> ClockReading:
        return ClockReading(self._house.clock.now(), self._house.clock.monotonic_s())

    def _get_hypervisor(self, site: str) -> Hypervisor:
        return self._house.get_hypervisor(load_site(self._house.site_dirs, site))

    def _tend(self, lab: Lab, *, trusted: bool) -> None:
        store, now = self._house.store, self._house.clock.now()
        warning = find_warning(lab, now)
        act = decide_lease(lab, now, self._list_warnings(lab) if warning else ())
        if act is LeaseAct.WARN and warning:
            self._warn(lab, warning)
        elif act is LeaseAct.NOTHING or not trusted:
            return
        elif not must_wait(store.find_last_work(lab.lab_id), now):
            self._ask(lab, act)

    def _list_warnings(self, lab: Lab) -> set[str]:
        entries = self._house.store.list_entries(lab.lab_id)
        return {entry.detail for entry in entries if entry.action == WARNED}

    def _warn(self, lab: Lab, warning: str) -> None:
        store, now = self._house.store, self._house.clock.now()
        row = Progress(lab.lab_id, lab.generation, now, ACTOR, "warn", "", StepStatus.NOTE, warning)
        store.add_progress(row)
        store.record(AuditEntry(now, ACTOR, WARNED, lab.lab_id, "warned", warning))

    def _ask(self, lab: Lab, act: LeaseAct) -> None:
        ends = act is LeaseAct.DESTROY
        try:
            self._house.store.ask_for_work(
                act.value,
                lab.lab_id,
                lab.generation,
                self._audit(ACTOR, act.value, lab),
                desired=Desired.ABSENT if ends else Desired.PRESENT,
                state=LabState.TEARING_DOWN if ends else None,
                lease=lab.lease,
            )
        except RefusedError as error:
            LOG.info("%s of lab %s: %s", act.value, lab.lab_id, error.what)

    def _bring_dossiers_up_to_date(self, lab: Lab) -> None:
        store, end = self._house.store, lab.lease.ends_at.isoformat()
        if store.find_note(_name_dossier(lab)) != end:
            return
        try:
            hypervisor = self._get_hypervisor(lab.site)
            for guest in store.list_guests(lab.lab_id, lab.generation):
                if guest.state is GuestState.STANDING and hypervisor.find_vm(guest.identity):
                    hypervisor.write_dossier(guest.identity, build_dossier(lab, guest))
        except LabctlError as error:
            LOG.info("the VMs of lab %s do not show its new lease yet: %s", lab.lab_id, error.what)
            return
        if store.find_note(_name_dossier(lab)) == end:
            store.set_note(_name_dossier(lab), "")

    # -- on request ---------------------------------------------------------------------------

    def extend(self, lab: Lab, *, days: int | None, until: date | None) -> Extension:
        """Extend a lab's lease, and ask for its revival when it has expired.

        The store is the truth: VMs that cannot be reached show the new lease later. Raises as
        `rules.lease.extend_lease`.
        """
        store, lab_id = self._house.store, lab.lab_id
        lease = extend_lease(lab, self._house.clock.now(), days=days, until=until)
        actor = getpass.getuser()
        revival: WorkItem | None = None
        if lease != lab.lease:
            store.set_note(_name_dossier(lab), lease.ends_at.isoformat())
            detail = f"from {lab.lease.ends_at.isoformat()} to {lease.ends_at.isoformat()}"
            audit = self._audit(actor, "extend", lab, "done", detail)
            store.set_lease(lab_id, lab.generation, lease, audit)
            refuse_ending(store.find_lab(lab_id) or lab)  # a teardown may have begun meanwhile
        if lab.state is LabState.EXPIRED:
            with suppress(BusyError):  # the worker asks for it once the other work is done
                audit = self._audit(actor, LeaseAct.REVIVE.value, lab)
                revival = store.ask_for_work(
                    LeaseAct.REVIVE.value, lab_id, lab.generation, audit, desired=Desired.PRESENT
                )
        return Extension(lab_id, lab.lease.ends_at, lease.ends_at, revival)

    def _audit(
        self, actor: str, action: str, lab: Lab, outcome: str = "asked", detail: str = ""
    ) -> AuditEntry:
        at = self._house.clock.now()
        detail = detail or f"the lease ended on {lab.lease.ends_at.isoformat()}"
        return AuditEntry(at, actor, action, lab.lab_id, outcome, detail)


def find_stopped_timers(house: Wired, site: str) -> str | None:
    """Say why no lab of a site is ended by the hour, as the worker saw it last."""
    return house.store.find_note(_name_timers(site))


def _name_timers(site: str) -> str:
    return f"timers:{site}"


def _name_dossier(lab: Lab) -> str:
    return f"dossier:{lab.lab_id}"
