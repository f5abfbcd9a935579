"""LabStore and Audit on SQLAlchemy Core."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    delete,
    func,
    insert,
    null,
    select,
    update,
)

from provisioner.errors import UnknownLabError
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
    StepStatus,
    TemplatePin,
    WorkItem,
    WorkStatus,
)
from provisioner.rules.states import CLOSED_STATES, check_guest_move, check_lease, check_wanted
from provisioner.store import statements, work
from provisioner.store.database import open_database, read_only
from provisioner.store.faults import translated_faults
from provisioner.store.rows import (
    hint_to_column,
    progress_to_row,
    row_to_audit,
    row_to_guest,
    row_to_lab,
    row_to_progress,
)
from provisioner.store.schema import audit_entries, guests, labs, notes, progress, receipts

# How many past runs of a step say how long it usually takes.
USUAL_RUNS = 25


def open_store(path: Path) -> SqlStore:
    """Open the store at `path`, and make it when there is none. Raises StoreError."""
    return SqlStore(open_database(path))


class SqlStore:
    """The LabStore and Audit ports. Threads and processes may share one database."""

    def __init__(self, engine: Engine) -> None:
        self._writing = engine
        self._reading = read_only(engine)

    # -- labs ---------------------------------------------------------------------------------

    def add_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> WorkItem:
        """Record the intent. Raises BusyError when an earlier generation is not closed."""
        with self._write() as connection:
            statements.insert_lab(connection, lab, guests, audit)
            return work.ask(connection, "provision", lab.lab_id, lab.generation, audit.at)

    def adopt_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> None:
        """Record a lab that was found in vCenter. Raises BusyError as `add_lab` does."""
        with self._write() as connection:
            statements.insert_lab(connection, lab, guests, audit)

    def find_lab(self, lab_id: str) -> Lab | None:
        """Return the newest generation of a lab."""
        with self._read() as connection:
            return statements.find_newest(connection, lab_id)

    def get_lab(self, lab_id: str) -> Lab:
        """Return the newest generation of a lab. Raises UnknownLabError when there is none."""
        lab = self.find_lab(lab_id)
        if lab is None:
            raise UnknownLabError(
                f"there is no lab {lab_id[:80]!r}", hint="labctl list --all shows every lab"
            )
        return lab

    def list_labs(self, *, closed: bool = False) -> tuple[Lab, ...]:
        """List living labs, or all with `closed`, newest generation of each, by lab id."""
        other = labs.alias()
        newest = select(func.max(other.c.generation)).where(other.c.lab_id == labs.c.lab_id)
        query = select(labs).where(labs.c.generation == newest.scalar_subquery())
        if not closed:
            query = query.where(labs.c.state.not_in(CLOSED_STATES))
        with self._read() as connection:
            rows = connection.execute(query.order_by(labs.c.lab_id)).mappings().all()
        return tuple(row_to_lab(row) for row in rows)

    def set_state(
        self, lab_id: str, generation: int, state: LabState, at: datetime, *, note: str = ""
    ) -> None:
        """Move a lab to `state`. Raises UnknownLabError, or RefusedError for an illegal move."""
        with self._write() as connection:
            statements.move_lab(connection, lab_id, generation, state, at, note)

    def set_desired(
        self, lab_id: str, generation: int, desired: Desired, audit: AuditEntry
    ) -> None:
        """Record what IT wants, with its audit row. Raises UnknownLabError."""
        with self._write() as connection:
            statements.get_state(connection, lab_id, generation)
            here = statements.is_lab(labs, lab_id, generation)
            connection.execute(update(labs).where(here).values(desired=desired))
            statements.add_audit(connection, audit)

    def set_lease(self, lab_id: str, generation: int, lease: Lease, audit: AuditEntry) -> None:
        """Record a lab's new lease, with its audit row. Raises UnknownLabError."""
        values = {
            "lease_ends_at": lease.ends_at,
            "lease_grace_s": lease.grace_for.total_seconds(),
        }
        with self._write() as connection:
            statements.get_state(connection, lab_id, generation)
            connection.execute(
                update(labs).where(statements.is_lab(labs, lab_id, generation)).values(values)
            )
            statements.add_audit(connection, audit)

    def raise_event_key(self, lab_id: str, generation: int, event_key: int) -> None:
        """Record the newest event key that vCenter showed; it never goes down."""
        lower = and_(statements.is_lab(labs, lab_id, generation), labs.c.event_key < event_key)
        with self._write() as connection:
            connection.execute(update(labs).where(lower).values(event_key=event_key))

    # -- work ---------------------------------------------------------------------------------

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
        """Record what IT wants, the lab's new state and the work, all at once.

        Raises UnknownLabError, BusyError when other work is open, RefusedError as the port says.
        """
        here = statements.is_lab(labs, lab_id, generation)
        with self._write() as connection:
            lab = statements.get_lab(connection, lab_id, generation)
            check_wanted(lab_id, lab.state, desired)
            check_lease(lab_id, lab.lease, lease)
            item = work.ask(connection, workflow, lab_id, generation, audit.at)
            if state is not None and item.status is WorkStatus.WAITING:
                statements.move_lab(connection, lab_id, generation, state, audit.at, "")
            connection.execute(update(labs).where(here).values(desired=desired))
            statements.add_audit(connection, audit)
            return item

    def list_open_work(self) -> tuple[WorkItem, ...]:
        """List the work that has not ended, oldest first."""
        with self._read() as connection:
            return work.list_open(connection)

    def get_work(self, serial: int) -> WorkItem:
        """Return a piece of work. Raises StoreError when there is none of that serial."""
        with self._read() as connection:
            return work.get(connection, serial)

    def find_last_work(self, lab_id: str) -> WorkItem | None:
        """Return the newest piece of work on a lab."""
        with self._read() as connection:
            return work.find_last(connection, lab_id)

    def set_work(
        self, serial: int, status: WorkStatus, at: datetime, error: dict[str, str] | None = None
    ) -> None:
        """Record how a piece of work stands. Raises StoreError when there is none of it."""
        with self._write() as connection:
            work.set_status(connection, serial, status, at, error)

    # -- guests -------------------------------------------------------------------------------

    def list_guests(self, lab_id: str, generation: int) -> tuple[GuestRecord, ...]:
        """List a lab's guests in the blueprint's order."""
        query = (
            select(guests)
            .where(statements.is_lab(guests, lab_id, generation))
            .order_by(guests.c.place)
        )
        with self._read() as connection:
            return tuple(row_to_guest(row) for row in connection.execute(query).mappings())

    def update_guest(self, identity: GuestIdentity, **hints: str | tuple[str, ...]) -> None:
        """Record hints of a guest. Raises UnknownLabError when no guest has that identity."""
        with self._write() as connection:
            statements.update_guest(connection, identity, hints, {})

    def move_guest(
        self,
        identity: GuestIdentity,
        state: GuestState,
        *,
        pin: TemplatePin | None = None,
        **hints: str | tuple[str, ...],
    ) -> None:
        """Move a guest to `state`. Raises UnknownLabError, or RefusedError for an illegal move."""
        values: dict[str, Any] = {"state": state}
        if pin is not None or state is GuestState.PLANNED:
            values["pin"] = hint_to_column(pin) if pin else null()
        query = select(guests.c.vm_name, guests.c.state).where(statements.is_guest(identity))
        with self._write() as connection:
            found = connection.execute(query).first()
            if found is not None:
                check_guest_move(found.vm_name, found.state, state)
            statements.update_guest(connection, identity, hints, values)

    # -- progress -----------------------------------------------------------------------------

    def add_progress(self, row: Progress) -> None:
        """Append to the lab's log."""
        with self._write() as connection:
            connection.execute(insert(progress).values(progress_to_row(row)))

    def list_progress(
        self, lab_id: str, *, after: int = 0, slot: str = "", step: str = ""
    ) -> tuple[Progress, ...]:
        """List a lab's log after serial `after`, oldest first; empty filters let all through."""
        query = select(progress).where(progress.c.lab_id == lab_id, progress.c.serial > after)
        if slot:
            query = query.where(progress.c.slot == slot)
        if step:
            query = query.where(progress.c.step == step)
        with self._read() as connection:
            rows = connection.execute(query.order_by(progress.c.serial)).mappings().all()
        return tuple(row_to_progress(row) for row in rows)

    def usual_s(self, workflow: str, step: str) -> float | None:
        """Return the median time of the newest successful runs of a step, or None."""
        query = (
            select(progress.c.elapsed_s)
            .where(
                progress.c.workflow == workflow,
                progress.c.step == step,
                progress.c.status == StepStatus.OK,
                progress.c.elapsed_s.is_not(None),
            )
            .order_by(progress.c.serial.desc())
            .limit(USUAL_RUNS)
        )
        with self._read() as connection:
            times = [float(elapsed_s) for elapsed_s in connection.scalars(query)]
        return statistics.median(times) if times else None

    # -- receipts and audit -------------------------------------------------------------------

    def save_receipt(self, lab_id: str, generation: int, receipt: str) -> None:
        """Keep a receipt in place of the generation's last one. Raises UnknownLabError."""
        here = statements.is_lab(receipts, lab_id, generation)
        with self._write() as connection:
            statements.get_state(connection, lab_id, generation)
            if not connection.execute(
                update(receipts).where(here).values(receipt=receipt)
            ).rowcount:
                row = {"lab_id": lab_id, "generation": generation, "receipt": receipt}
                connection.execute(insert(receipts).values(row))

    def find_receipt(self, lab_id: str) -> str | None:
        """Return the newest receipt of a lab."""
        query = select(receipts.c.receipt).where(receipts.c.lab_id == lab_id)
        with self._read() as connection:
            return connection.scalar(query.order_by(receipts.c.generation.desc()).limit(1))

    def record(self, entry: AuditEntry) -> None:
        """Append an entry."""
        with self._write() as connection:
            statements.add_audit(connection, entry)

    def list_entries(self, lab_id: str = "") -> tuple[AuditEntry, ...]:
        """List entries, oldest first."""
        query = select(audit_entries).order_by(audit_entries.c.serial)
        if lab_id:
            query = query.where(audit_entries.c.lab_id == lab_id)
        with self._read() as connection:
            return tuple(row_to_audit(row) for row in connection.execute(query).mappings())

    def find_note(self, name: str) -> str | None:
        """Return what was noted under a name for the whole installation."""
        with self._read() as connection:
            return connection.scalar(select(notes.c.text).where(notes.c.name == name))

    def set_note(self, name: str, text: str) -> None:
        """Note something under a name; an empty text removes it."""
        with self._write() as connection:
            connection.execute(delete(notes).where(notes.c.name == name))
            if text:
                connection.execute(insert(notes).values(name=name, text=text))

    def copy_to(self, path: Path) -> None:
        """Write a whole, consistent copy of the database to a file that is not there yet."""
        with translated_faults(), self._writing.connect() as connection:
            raw = connection.connection.dbapi_connection
            raw.execute("VACUUM INTO ?", (str(path),))  # type: ignore[union-attr]

    def close(self) -> None:
        """Release the database."""
        self._writing.dispose()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with translated_faults(), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with translated_faults(), self._writing.begin() as connection:
            yield connection
