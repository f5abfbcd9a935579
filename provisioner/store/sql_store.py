"""LabStore and Audit on SQLAlchemy Core."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, func, insert, select, update

from provisioner.errors import UnknownLabError
from provisioner.model.lab import (
    AuditEntry,
    Desired,
    GuestIdentity,
    GuestRecord,
    Lab,
    LabState,
    Progress,
    StepStatus,
)
from provisioner.rules.states import CLOSED_STATES, check_move, check_next_generation
from provisioner.store import schema
from provisioner.store.database import open_database, read_only
from provisioner.store.faults import translated_faults
from provisioner.store.rows import (
    audit_to_row,
    guest_to_row,
    lab_to_row,
    progress_to_row,
    row_to_audit,
    row_to_guest,
    row_to_lab,
    row_to_progress,
)
from provisioner.store.schema import audit_entries, guests, labs, progress, receipts

GUEST_HINTS = {field.name for field in fields(GuestRecord)} - {"identity", "vm_name", "nonce"}
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

    def add_lab(self, lab: Lab, guests: tuple[GuestRecord, ...], audit: AuditEntry) -> None:
        """Record the intent. Raises BusyError when an earlier generation is not closed."""
        with self._write() as connection:
            check_next_generation(lab, _find_newest(connection, lab.lab_id))
            connection.execute(insert(schema.labs).values(lab_to_row(lab)))
            for place, guest in enumerate(guests):
                connection.execute(insert(schema.guests).values(guest_to_row(place, guest)))
            _add_audit(connection, audit)

    def find_lab(self, lab_id: str) -> Lab | None:
        """Return the newest generation of a lab."""
        with self._read() as connection:
            return _find_newest(connection, lab_id)

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
            before = _get_state(connection, lab_id, generation)
            check_move(lab_id, before, state)
            values: dict[str, Any] = {"state": state, "note": note}
            if state is not before and state is LabState.READY:
                values["ready_at"] = at
            if state is not before and state in CLOSED_STATES:
                values["closed_at"] = at
            connection.execute(update(labs).where(_is(labs, lab_id, generation)).values(values))

    def set_desired(
        self, lab_id: str, generation: int, desired: Desired, audit: AuditEntry
    ) -> None:
        """Record what IT wants, with its audit row. Raises UnknownLabError."""
        with self._write() as connection:
            _get_state(connection, lab_id, generation)
            here = _is(labs, lab_id, generation)
            connection.execute(update(labs).where(here).values(desired=desired))
            _add_audit(connection, audit)

    # -- guests -------------------------------------------------------------------------------

    def list_guests(self, lab_id: str, generation: int) -> tuple[GuestRecord, ...]:
        """List a lab's guests in the blueprint's order."""
        query = select(guests).where(_is(guests, lab_id, generation)).order_by(guests.c.place)
        with self._read() as connection:
            return tuple(row_to_guest(row) for row in connection.execute(query).mappings())

    def update_guest(self, identity: GuestIdentity, **hints: str | tuple[str, ...]) -> None:
        """Record hints of a guest. Raises UnknownLabError when no guest has that identity."""
        if unknown := hints.keys() - GUEST_HINTS:
            raise TypeError(f"not a hint of a guest: {', '.join(sorted(unknown))}")
        here = and_(
            _is(guests, identity.lab_id, identity.generation),
            guests.c.slot == identity.slot,
            guests.c.instance_uuid == identity.instance_uuid,
        )
        values = {
            key: list(hint) if isinstance(hint, tuple) else hint for key, hint in hints.items()
        }
        with self._write() as connection:
            if not connection.execute(update(guests).where(here).values(values)).rowcount:
                raise UnknownLabError(f"the store knows no guest {identity}")

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
        here = _is(receipts, lab_id, generation)
        with self._write() as connection:
            _get_state(connection, lab_id, generation)
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
            _add_audit(connection, entry)

    def list_entries(self, lab_id: str = "") -> tuple[AuditEntry, ...]:
        """List entries, oldest first."""
        query = select(audit_entries).order_by(audit_entries.c.serial)
        if lab_id:
            query = query.where(audit_entries.c.lab_id == lab_id)
        with self._read() as connection:
            return tuple(row_to_audit(row) for row in connection.execute(query).mappings())

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


def _is(table: Table, lab_id: str, generation: int) -> ColumnElement[bool]:
    return and_(table.c.lab_id == lab_id, table.c.generation == generation)


def _find_newest(connection: Connection, lab_id: str) -> Lab | None:
    query = select(labs).where(labs.c.lab_id == lab_id).order_by(labs.c.generation.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else row_to_lab(row)


def _get_state(connection: Connection, lab_id: str, generation: int) -> LabState:
    state: LabState | None = connection.scalar(
        select(labs.c.state).where(_is(labs, lab_id, generation))
    )
    if state is None:
        raise UnknownLabError(f"there is no lab {lab_id[:80]!r} of generation {generation}")
    return state


def _add_audit(connection: Connection, entry: AuditEntry) -> None:
    connection.execute(insert(audit_entries).values(audit_to_row(entry)))
