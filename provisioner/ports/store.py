"""What labctl records."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from provisioner.model.lab import (
    AuditEntry,
    Desired,
    GuestIdentity,
    GuestRecord,
    GuestState,
    Lab,
    LabState,
    Lease,
    Progress,
    TemplatePin,
    WorkItem,
    WorkStatus,
)


class LabStore(Protocol):
    """labctl's record of labs. Every call is one durable transaction."""

    def add_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> WorkItem:
        """Record the intent: lab, guests, an audit row and, as work, its provision, all at once.

        Raises BusyError when another generation of this lab is not closed.
        """
        ...

    def adopt_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> None:
        """Record a lab that was found in vCenter, in the state that it says, with no work.

        Raises BusyError when this generation or a later one is recorded already, or an earlier
        one is not closed.
        """
        ...

    def find_note(self, name: str) -> str | None:
        """Return what was noted under a name for the whole installation."""
        ...

    def set_note(self, name: str, text: str) -> None:
        """Note something under a name, in place of what was there; an empty text removes it."""
        ...

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
        """Record what IT wants, the lab's new state if it has one, and the work, all at once.

        `lease` is the one on which the work was decided: another one by now refuses it. Work that
        is under way already keeps the state that it brought about.

        The same work that is open already is returned as it is. A provision that failed continues:
        it keeps its run's number. Raises BusyError when other work on the lab is open (a teardown
        never waits for leave), RefusedError for an illegal state, a lease that was changed, or when
        a lab that leaves is wanted present.
        """
        ...

    def list_open_work(self) -> tuple[WorkItem, ...]:
        """List the work that has not ended, oldest first."""
        ...

    def get_work(self, serial: int) -> WorkItem:
        """Return a piece of work. Raises StoreError when there is none of that serial."""
        ...

    def find_last_work(self, lab_id: str) -> WorkItem | None:
        """Return the newest piece of work on a lab."""
        ...

    def set_work(
        self, serial: int, status: WorkStatus, at: datetime, error: dict[str, str] | None = None
    ) -> None:
        """Record how a piece of work stands; an end carries its time, and a failure its error."""
        ...

    def set_lease(self, lab_id: str, generation: int, lease: Lease, audit: AuditEntry) -> None:
        """Record a lab's new lease, with its audit row."""
        ...

    def raise_event_key(self, lab_id: str, generation: int, event_key: int) -> None:
        """Record the newest event key that vCenter showed; it never goes down."""
        ...

    def find_lab(self, lab_id: str) -> Lab | None:
        """Return the newest generation of a lab."""
        ...

    def list_labs(self, *, closed: bool = False) -> tuple[Lab, ...]:
        """List living labs, or all with `closed`, newest generation of each, by lab id."""
        ...

    def set_state(
        self,
        lab_id: str,
        generation: int,
        state: LabState,
        at: datetime,
        *,
        note: str = "",
    ) -> None:
        """Move a lab to `state`; sets ready_at or closed_at where the state says so."""
        ...

    def set_desired(
        self, lab_id: str, generation: int, desired: Desired, audit: AuditEntry
    ) -> None:
        """Record what IT wants, with its audit row."""
        ...

    def list_guests(self, lab_id: str, generation: int) -> tuple[GuestRecord, ...]:
        """List a lab's guests in the blueprint's order."""
        ...

    def update_guest(self, identity: GuestIdentity, **hints: str | tuple[str, ...]) -> None:
        """Record hints of a guest: any of the fields of GuestRecord after `pin`."""
        ...

    def move_guest(
        self,
        identity: GuestIdentity,
        state: GuestState,
        *,
        pin: TemplatePin | None = None,
        **hints: str | tuple[str, ...],
    ) -> None:
        """Move a guest to `state` with what is known of it then.

        `pin` None leaves the pin as it is; going back to `planned` removes it. Raises RefusedError
        for an illegal move.
        """
        ...

    def add_progress(self, row: Progress) -> None:
        """Append to the lab's log."""
        ...

    def list_progress(
        self, lab_id: str, *, after: int = 0, slot: str = "", step: str = ""
    ) -> tuple[Progress, ...]:
        """List a lab's log after serial `after`, oldest first; empty filters let all through."""
        ...

    def usual_s(self, workflow: str, step: str) -> float | None:
        """Return the median time of past successful runs of a step, or None."""
        ...

    def save_receipt(self, lab_id: str, generation: int, receipt: str) -> None:
        """Keep a teardown's receipt (JSON text)."""
        ...

    def find_receipt(self, lab_id: str) -> str | None:
        """Return the newest receipt of a lab."""
        ...

    def close(self) -> None:
        """Release the database."""
        ...


class Audit(Protocol):
    """Who asked for what. Append only."""

    def record(self, entry: AuditEntry) -> None:
        """Append an entry."""
        ...

    def list_entries(self, lab_id: str = "") -> tuple[AuditEntry, ...]:
        """List entries, oldest first."""
        ...
