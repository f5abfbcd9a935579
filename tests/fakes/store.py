"""LabStore and Audit in memory."""

from __future__ import annotations

import statistics
import threading
from dataclasses import replace
from datetime import datetime
from typing import Any

from provisioner.errors import RefusedError, StoreError, UnknownLabError
from provisioner.model.lab import (
    OPEN_WORK,
    AuditEntry,
    Desired,
    GuestIdentity,
    GuestRecord,
    GuestState,
    Lab,
    LabState,
    Lease,
    Progress,
    StepStatus,
    TemplatePin,
    WorkItem,
    WorkStatus,
)
from provisioner.rules.states import (
    CLOSED_STATES,
    check_guest_move,
    check_lease,
    check_move,
    check_next_generation,
    check_wanted,
)
from provisioner.rules.work import check_free, choose_run, find_same

HINTS = {"vim_task", "moref", "mac", "address", "host_key", "birth_disks"}


class MemoryStore:
    """The LabStore and Audit ports, kept as long as the object lives."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._labs: dict[tuple[str, int], Lab] = {}
        self._guests: dict[tuple[str, int], list[GuestRecord]] = {}
        self._progress: list[Progress] = []
        self._receipts: dict[tuple[str, int], str] = {}
        self._audit: list[AuditEntry] = []
        self._work: list[WorkItem] = []
        self._notes: dict[str, str] = {}

    def add_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> WorkItem:
        with self._lock:
            self.adopt_lab(lab, guests, audit)
            return self._ask("provision", lab.lab_id, lab.generation, audit.at)

    def adopt_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> None:
        with self._lock:
            check_next_generation(lab, self.find_lab(lab.lab_id))
            self._labs[lab.lab_id, lab.generation] = lab
            self._guests[lab.lab_id, lab.generation] = list(guests)
            self._audit.append(audit)

    def find_lab(self, lab_id: str) -> Lab | None:
        with self._lock:
            generations = [key for key in self._labs if key[0] == lab_id]
            return self._labs[max(generations)] if generations else None

    def get_lab(self, lab_id: str) -> Lab:
        lab = self.find_lab(lab_id)
        if lab is None:
            raise UnknownLabError(f"there is no lab {lab_id!r}")
        return lab

    def list_labs(self, *, closed: bool = False) -> tuple[Lab, ...]:
        with self._lock:
            newest = [self.get_lab(lab_id) for lab_id in sorted({key[0] for key in self._labs})]
        return tuple(lab for lab in newest if closed or lab.state not in CLOSED_STATES)

    def set_state(
        self, lab_id: str, generation: int, state: LabState, at: datetime, *, note: str = ""
    ) -> None:
        with self._lock:
            lab = self._get(lab_id, generation)
            check_move(lab_id, lab.state, state)
            times: dict[str, Any] = {}
            if state is not lab.state and state is LabState.READY:
                times["ready_at"] = at
            if state is not lab.state and state in CLOSED_STATES:
                times["closed_at"] = at
            self._labs[lab_id, generation] = replace(lab, state=state, note=note, **times)

    def set_desired(
        self, lab_id: str, generation: int, desired: Desired, audit: AuditEntry
    ) -> None:
        with self._lock:
            lab = self._get(lab_id, generation)
            self._labs[lab_id, generation] = replace(lab, desired=desired)
            self._audit.append(audit)

    def set_lease(self, lab_id: str, generation: int, lease: Lease, audit: AuditEntry) -> None:
        with self._lock:
            lab = self._get(lab_id, generation)
            self._labs[lab_id, generation] = replace(lab, lease=lease)
            self._audit.append(audit)

    def raise_event_key(self, lab_id: str, generation: int, event_key: int) -> None:
        with self._lock:
            lab = self._labs.get((lab_id, generation))
            if lab is not None and lab.event_key < event_key:
                self._labs[lab_id, generation] = replace(lab, event_key=event_key)

    def ask_for_work(
        self,
        workflow: str,
        lab_id: str,
        generation: int,
        audit: AuditEntry,
        *,
        desired: Desired,
        state: LabState | None = None,
        lease: Lease | None = None,
    ) -> WorkItem:
        with self._lock:
            lab = self._get(lab_id, generation)
            check_wanted(lab_id, lab.state, desired)
            check_lease(lab_id, lab.lease, lease)
            mine = [one.serial for one in self._work]
            item = self._ask(workflow, lab_id, generation, audit.at)
            if state is not None and item.status is WorkStatus.WAITING:
                try:
                    self.set_state(lab_id, generation, state, audit.at)
                except RefusedError:
                    self._work = [one for one in self._work if one.serial in mine]
                    raise
            self.set_desired(lab_id, generation, desired, audit)
            return item

    def _ask(self, workflow: str, lab_id: str, generation: int, at: datetime) -> WorkItem:
        mine = [one for one in self._work if (one.lab_id, one.generation) == (lab_id, generation)]
        check_free(workflow, lab_id, mine)
        if same := find_same(workflow, mine):
            return same
        newest = next((one for one in reversed(mine) if one.workflow == workflow), None)
        serial, run = len(self._work) + 1, choose_run(workflow, newest)
        item = WorkItem(serial, workflow, lab_id, generation, run, WorkStatus.WAITING, at)
        self._work.append(item)
        return item

    def list_open_work(self) -> tuple[WorkItem, ...]:
        with self._lock:
            return tuple(one for one in self._work if one.status in OPEN_WORK)

    def get_work(self, serial: int) -> WorkItem:
        with self._lock:
            if not 0 < serial <= len(self._work):
                raise StoreError(f"no work of number {serial}")
            return self._work[serial - 1]

    def find_last_work(self, lab_id: str) -> WorkItem | None:
        with self._lock:
            return next((one for one in reversed(self._work) if one.lab_id == lab_id), None)

    def set_work(
        self, serial: int, status: WorkStatus, at: datetime, error: dict[str, str] | None = None
    ) -> None:
        with self._lock:
            item = self.get_work(serial)
            ended_at = item.ended_at if status in OPEN_WORK else at
            self._work[serial - 1] = replace(item, status=status, ended_at=ended_at, error=error)

    def find_note(self, name: str) -> str | None:
        return self._notes.get(name)

    def set_note(self, name: str, text: str) -> None:
        self._notes[name] = text
        if not text:
            del self._notes[name]

    def list_guests(self, lab_id: str, generation: int) -> tuple[GuestRecord, ...]:
        with self._lock:
            return tuple(self._guests.get((lab_id, generation), ()))

    def update_guest(self, identity: GuestIdentity, **hints: str | tuple[str, ...]) -> None:
        if unknown := hints.keys() - HINTS:
            raise TypeError(f"not a hint of a guest: {', '.join(sorted(unknown))}")
        self._change_guest(identity, dict(hints))

    def move_guest(
        self,
        identity: GuestIdentity,
        state: GuestState,
        *,
        pin: TemplatePin | None = None,
        **hints: str | tuple[str, ...],
    ) -> None:
        pinned = {"pin": pin} if pin is not None or state is GuestState.PLANNED else {}
        with self._lock:
            for guest in self.list_guests(identity.lab_id, identity.generation):
                if guest.identity == identity:
                    check_guest_move(guest.vm_name, guest.state, state)
            self._change_guest(identity, {**hints, **pinned, "state": state})

    def _change_guest(self, identity: GuestIdentity, changed: dict[str, Any]) -> None:
        with self._lock:
            guests = self._guests.get((identity.lab_id, identity.generation), [])
            for place, guest in enumerate(guests):
                if guest.identity == identity:
                    guests[place] = replace(guest, **changed)
                    return
        raise UnknownLabError(f"the store knows no guest {identity}")

    def add_progress(self, row: Progress) -> None:
        with self._lock:
            self._progress.append(replace(row, serial=len(self._progress) + 1))

    def list_progress(
        self, lab_id: str, *, after: int = 0, slot: str = "", step: str = ""
    ) -> tuple[Progress, ...]:
        with self._lock:
            return tuple(
                row
                for row in self._progress
                if row.lab_id == lab_id
                and row.serial > after
                and slot in ("", row.slot)
                and step in ("", row.step)
            )

    def usual_s(self, workflow: str, step: str) -> float | None:
        with self._lock:
            times = [
                row.elapsed_s
                for row in self._progress
                if (row.workflow, row.step, row.status) == (workflow, step, StepStatus.OK)
                and row.elapsed_s is not None
            ]
        return statistics.median(times[-25:]) if times else None

    def save_receipt(self, lab_id: str, generation: int, receipt: str) -> None:
        with self._lock:
            self._get(lab_id, generation)
            self._receipts[lab_id, generation] = receipt

    def find_receipt(self, lab_id: str) -> str | None:
        with self._lock:
            generations = [key for key in self._receipts if key[0] == lab_id]
            return self._receipts[max(generations)] if generations else None

    def record(self, entry: AuditEntry) -> None:
        with self._lock:
            self._audit.append(entry)

    def list_entries(self, lab_id: str = "") -> tuple[AuditEntry, ...]:
        with self._lock:
            return tuple(entry for entry in self._audit if lab_id in ("", entry.lab_id))

    def close(self) -> None:
        pass

    def _get(self, lab_id: str, generation: int) -> Lab:
        lab = self._labs.get((lab_id, generation))
        if lab is None:
            raise UnknownLabError(f"there is no lab {lab_id!r} of generation {generation}")
        return lab
