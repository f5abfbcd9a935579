"""Statements on labs and guests, run inside a transaction of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, insert, select, update

from provisioner.errors import UnknownLabError
from provisioner.model.lab import AuditEntry, GuestIdentity, GuestRecord, Lab, LabState
from provisioner.rules.states import CLOSED_STATES, check_move, check_next_generation
from provisioner.store.rows import (
    audit_to_row,
    guest_to_row,
    hint_to_column,
    lab_to_row,
    row_to_lab,
)
from provisioner.store.schema import audit_entries, guests, labs

BORN_WITH = {"identity", "vm_name", "nonce", "state", "pin"}
GUEST_HINTS = {field.name for field in fields(GuestRecord)} - BORN_WITH


def is_lab(table: Table, lab_id: str, generation: int) -> ColumnElement[bool]:
    """Select one generation of a lab."""
    return and_(table.c.lab_id == lab_id, table.c.generation == generation)


def is_guest(identity: GuestIdentity) -> ColumnElement[bool]:
    """Select one guest by all that it is known by."""
    return and_(
        is_lab(guests, identity.lab_id, identity.generation),
        guests.c.slot == identity.slot,
        guests.c.instance_uuid == identity.instance_uuid,
    )


def insert_lab(
    connection: Connection, lab: Lab, records: tuple[GuestRecord, ...], audit: AuditEntry
) -> None:
    """Record a lab with its guests. Raises BusyError when an earlier generation is not closed."""
    check_next_generation(lab, find_newest(connection, lab.lab_id))
    connection.execute(insert(labs).values(lab_to_row(lab)))
    for place, guest in enumerate(records):
        connection.execute(insert(guests).values(guest_to_row(place, guest)))
    add_audit(connection, audit)


def move_lab(
    connection: Connection, lab_id: str, generation: int, state: LabState, at: datetime, note: str
) -> None:
    """Move a lab to `state`. Raises UnknownLabError, or RefusedError for an illegal move."""
    before = get_state(connection, lab_id, generation)
    check_move(lab_id, before, state)
    values: dict[str, Any] = {"state": state, "note": note}
    if state is not before and state is LabState.READY:
        values["ready_at"] = at
    if state is not before and state in CLOSED_STATES:
        values["closed_at"] = at
    connection.execute(update(labs).where(is_lab(labs, lab_id, generation)).values(values))


def update_guest(
    connection: Connection,
    identity: GuestIdentity,
    hints: Mapping[str, str | tuple[str, ...]],
    others: Mapping[str, Any],
) -> None:
    """Record hints of a guest, and `others`. Raises UnknownLabError, TypeError."""
    if unknown := hints.keys() - GUEST_HINTS:
        raise TypeError(f"not a hint of a guest: {', '.join(sorted(unknown))}")
    values = {**{key: hint_to_column(hint) for key, hint in hints.items()}, **others}
    changed = connection.execute(update(guests).where(is_guest(identity)).values(values))
    if not changed.rowcount:
        raise UnknownLabError(f"the store knows no guest {identity}")


def find_newest(connection: Connection, lab_id: str) -> Lab | None:
    """Return the newest generation of a lab."""
    query = select(labs).where(labs.c.lab_id == lab_id).order_by(labs.c.generation.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else row_to_lab(row)


def get_lab(connection: Connection, lab_id: str, generation: int) -> Lab:
    """Return one generation of a lab. Raises UnknownLabError."""
    get_state(connection, lab_id, generation)
    query = select(labs).where(is_lab(labs, lab_id, generation))
    return row_to_lab(connection.execute(query).mappings().one())


def get_state(connection: Connection, lab_id: str, generation: int) -> LabState:
    """Return a lab's state. Raises UnknownLabError."""
    state: LabState | None = connection.scalar(
        select(labs.c.state).where(is_lab(labs, lab_id, generation))
    )
    if state is None:
        raise UnknownLabError(f"there is no lab {lab_id[:80]!r} of generation {generation}")
    return state


def add_audit(connection: Connection, entry: AuditEntry) -> None:
    """Append an audit row."""
    connection.execute(insert(audit_entries).values(audit_to_row(entry)))
