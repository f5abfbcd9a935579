"""LabStore and Audit on SQLAlchemy Core."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Engine, Table, and_, func, insert, select, update

from provisioner.errors import BusyError, StoreError, UnknownLabError
from provisioner.model.lab import (
    AuditEntry,
    Desired,
    GuestIdentity,
    GuestRecord,
    Hire,
    Lab,
    LabState,
    Lease,
    Progress,
    StepStatus,
)
from provisioner.model.spec import Blueprint
from provisioner.rules.states import CLOSED_STATES, check_move
from provisioner.store.database import open_database, read_only
from provisioner.store.faults import translated_faults
from provisioner.store.schema import audit_entries, guests, labs, progress, receipts

GUEST_HINTS = frozenset({"vim_task", "moref", "mac", "address", "host_key", "birth_disks"})
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
        """Record the intent. Raises BusyError when it is not the next generation of a closed one."""
        with self._write() as connection:
            newest = _find_newest(connection, lab.lab_id)
            _check_next(lab, newest)
            connection.execute(insert(labs).values(_lab_row(lab)))
            rows = [_guest_row(place, guest) for place, guest in enumerate(guests)]
            if rows:
                connection.execute(insert(_GUESTS), rows)
            _add_audit(connection, audit)

    def find_lab(self, lab_id: str) -> Lab | None:
        """Return the newest generation of a lab."""
        with self._read() as connection:
            return _find_newest(connection, lab_id)

    def get_lab(self, lab_id: str) -> Lab:
        """Return the newest generation of a lab. Raises UnknownLabError when there is none."""
        lab = self.find_lab(lab_id)
        if lab is None:
            raise UnknownLabError(f"there is no lab {lab_id[:80]!r}")
        return lab

    def list_labs(self, *, closed: bool = False) -> tuple[Lab, ...]:
        """List living labs, or all with `closed`, newest generation of each, by lab id."""
        other = labs.alias()
        newest = select(func.max(other.c.generation)).where(other.c.lab_id == labs.c.lab_id)
        query = select(labs).where(labs.c.generation == newest.scalar_subquery())
        if not closed:
            query = query.where(labs.c.state.not_in([state.value for state in CLOSED_STATES]))
        with self._read() as connection:
            rows = connection.execute(query.order_by(labs.c.lab_id)).mappings().all()
        return tuple(_to_lab(row) for row in rows)

    def set_state(
        self, lab_id: str, generation: int, state: LabState, at: datetime, *, note: str = ""
    ) -> None:
        """Move a lab to `state`. Raises UnknownLabError, or RefusedError for an illegal move."""
        with self._write() as connection:
            before = _get_state(connection, lab_id, generation)
            check_move(lab_id, before, state)
            values: dict[str, Any] = {"state": state.value, "note": note}
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
            connection.execute(update(labs).where(here).values(desired=desired.value))
            _add_audit(connection, audit)

    # -- guests -------------------------------------------------------------------------------

    def list_guests(self, lab_id: str, generation: int) -> tuple[GuestRecord, ...]:
        """List a lab's guests in the blueprint's order."""
        query = select(guests).where(_is(guests, lab_id, generation)).order_by(guests.c.place)
        with self._read() as connection:
            return tuple(_to_guest(row) for row in connection.execute(query).mappings())

    def update_guest(self, identity: GuestIdentity, **hints: str | tuple[str, ...]) -> None:
        """Record hints of a guest. Raises UnknownLabError when no guest has that identity."""
        if unknown := hints.keys() - GUEST_HINTS:
            raise TypeError(f"not a hint of a guest: {', '.join(sorted(unknown))}")
        here = and_(
            _is(guests, identity.lab_id, identity.generation),
            guests.c.slot == identity.slot,
            guests.c.instance_uuid == identity.instance_uuid,
        )
        values = {key: list(hint) if isinstance(hint, tuple) else hint for key, hint in hints.items()}
        with self._write() as connection:
            if not connection.execute(update(guests).where(here).values(values)).rowcount:
                raise UnknownLabError(f"the store knows no guest {identity}")

    # -- progress -----------------------------------------------------------------------------

    def add_progress(self, row: Progress) -> None:
        """Append to the lab's log."""
        values = {
            "lab_id": row.lab_id,
            "generation": row.generation,
            "at": row.at,
            "workflow": row.workflow,
            "step": row.step,
            "slot": row.slot,
            "status": row.status.value,
            "text": row.text,
            "elapsed_s": row.elapsed_s,
        }
        with self._write() as connection:
            connection.execute(insert(progress).values(values))

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
        return tuple(Progress(**{**row, "status": StepStatus(row["status"])}) for row in rows)

    def usual_s(self, workflow: str, step: str) -> float | None:
        """Return the median time of the newest successful runs of a step, or None."""
        query = (
            select(progress.c.elapsed_s)
            .where(
                progress.c.workflow == workflow,
                progress.c.step == step,
                progress.c.status == StepStatus.OK.value,
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
        """Keep a teardown's receipt in place of the generation's last one. Raises UnknownLabError."""
        here = _is(receipts, lab_id, generation)
        with self._write() as connection:
            _get_state(connection, lab_id, generation)
            if not connection.execute(update(receipts).where(here).values(receipt=receipt)).rowcount:
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
        entry = audit_entries.c
        query = select(
            entry.at, entry.actor, entry.action, entry.lab_id, entry.outcome, entry.detail
        ).order_by(entry.serial)
        if lab_id:
            query = query.where(entry.lab_id == lab_id)
        with self._read() as connection:
            return tuple(AuditEntry(**row) for row in connection.execute(query).mappings())

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


_GUESTS = guests


def _is(table: Table, lab_id: str, generation: int) -> ColumnElement[bool]:
    return and_(table.c.lab_id == lab_id, table.c.generation == generation)


def _find_newest(connection: Connection, lab_id: str) -> Lab | None:
    query = select(labs).where(labs.c.lab_id == lab_id).order_by(labs.c.generation.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else _to_lab(row)


def _get_state(connection: Connection, lab_id: str, generation: int) -> LabState:
    state = connection.scalar(select(labs.c.state).where(_is(labs, lab_id, generation)))
    if state is None:
        raise UnknownLabError(f"there is no lab {lab_id[:80]!r} of generation {generation}")
    return LabState(state)


def _check_next(lab: Lab, newest: Lab | None) -> None:
    if newest is not None and newest.state not in CLOSED_STATES:
        raise BusyError(
            f"lab {lab.lab_id} stands already: generation {newest.generation} is {newest.state}",
            hint=f"tear it down first: labctl teardown {lab.lab_id}",
        )
    if newest is not None and lab.generation <= newest.generation:
        raise BusyError(
            f"generation {lab.generation} of lab {lab.lab_id} was recorded by somebody else",
            hint="run the same command again",
        )


def _add_audit(connection: Connection, entry: AuditEntry) -> None:
    values = {
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "lab_id": entry.lab_id,
        "outcome": entry.outcome,
        "detail": entry.detail,
    }
    connection.execute(insert(audit_entries).values(values))


def _lab_row(lab: Lab) -> dict[str, Any]:
    return {
        "lab_id": lab.lab_id,
        "generation": lab.generation,
        "site": lab.site,
        "vcenter_uuid": lab.vcenter_uuid,
        "event_key": lab.event_key,
        "blueprint": lab.blueprint.model_dump(mode="json"),
        "hire_email": lab.hire.email,
        "hire_login": lab.hire.login,
        "hire_key": lab.hire.public_key,
        "lease_ends_at": lab.lease.ends_at,
        "lease_grace_s": lab.lease.grace_for.total_seconds(),
        "desired": lab.desired.value,
        "state": lab.state.value,
        "created_at": lab.created_at,
        "ready_at": lab.ready_at,
        "closed_at": lab.closed_at,
        "note": lab.note,
    }


def _to_lab(row: Mapping[Any, Any]) -> Lab:
    try:
        blueprint = Blueprint.model_validate(row["blueprint"])
    except ValidationError as error:
        raise StoreError(
            f"the blueprint of lab {row['lab_id']} in the store is not one that this labctl knows",
            hint="use the labctl that provisioned the lab",
        ) from error
    return Lab(
        lab_id=row["lab_id"],
        generation=row["generation"],
        site=row["site"],
        vcenter_uuid=row["vcenter_uuid"],
        event_key=row["event_key"],
        blueprint=blueprint,
        hire=Hire(row["hire_email"], row["hire_login"], row["hire_key"]),
        lease=Lease(row["lease_ends_at"], timedelta(seconds=row["lease_grace_s"])),
        desired=Desired(row["desired"]),
        state=LabState(row["state"]),
        created_at=row["created_at"],
        ready_at=row["ready_at"],
        closed_at=row["closed_at"],
        note=row["note"],
    )


def _guest_row(place: int, guest: GuestRecord) -> dict[str, Any]:
    return {
        "lab_id": guest.identity.lab_id,
        "generation": guest.identity.generation,
        "slot": guest.identity.slot,
        "place": place,
        "instance_uuid": guest.identity.instance_uuid,
        "vm_name": guest.vm_name,
        "nonce": guest.nonce,
        "vim_task": guest.vim_task,
        "moref": guest.moref,
        "mac": guest.mac,
        "address": guest.address,
        "host_key": guest.host_key,
        "birth_disks": list(guest.birth_disks),
    }


def _to_guest(row: Mapping[Any, Any]) -> GuestRecord:
    return GuestRecord(
        identity=GuestIdentity(
            row["lab_id"], row["generation"], row["slot"], row["instance_uuid"]
        ),
        vm_name=row["vm_name"],
        nonce=row["nonce"],
        vim_task=row["vim_task"],
        moref=row["moref"],
        mac=row["mac"],
        address=row["address"],
        host_key=row["host_key"],
        birth_disks=tuple(row["birth_disks"]),
    )
