"""Work that was asked for: its rows, read and written inside a transaction of the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, insert, null, select, update

from provisioner.errors import StoreError
from provisioner.model.lab import OPEN_WORK, WorkItem, WorkStatus
from provisioner.rules.work import check_free, choose_run, find_same
from provisioner.store.rows import row_to_work
from provisioner.store.schema import work


def ask(
    connection: Connection, workflow: str, lab_id: str, generation: int, at: datetime
) -> WorkItem:
    """Add a piece of work, or return the same work that is open. Raises BusyError."""
    mine = select(work).where(work.c.lab_id == lab_id, work.c.generation == generation)
    items = _list(connection, mine.order_by(work.c.serial))
    check_free(workflow, lab_id, items)
    if same := find_same(workflow, items):
        return same
    newest = next((one for one in reversed(items) if one.workflow == workflow), None)
    row: Mapping[str, Any] = {
        "workflow": workflow,
        "lab_id": lab_id,
        "generation": generation,
        "run": choose_run(workflow, newest),
        "status": WorkStatus.WAITING,
        "asked_at": at,
        "ended_at": None,
        "error": null(),
    }
    made = connection.execute(insert(work).values(row)).inserted_primary_key
    return get(connection, int(made[0]) if made else 0)


def list_open(connection: Connection) -> tuple[WorkItem, ...]:
    """List the work that has not ended, oldest first."""
    query = select(work).where(work.c.status.in_(OPEN_WORK))
    return _list(connection, query.order_by(work.c.serial))


def get(connection: Connection, serial: int) -> WorkItem:
    """Return a piece of work. Raises StoreError when there is none of that serial."""
    found = _list(connection, select(work).where(work.c.serial == serial))
    if not found:
        raise StoreError(f"the store knows no work of number {serial}")
    return found[0]


def find_last(connection: Connection, lab_id: str) -> WorkItem | None:
    """Return the newest piece of work on a lab."""
    newest = select(work).where(work.c.lab_id == lab_id).order_by(work.c.serial.desc()).limit(1)
    return next(iter(_list(connection, newest)), None)


def set_status(
    connection: Connection,
    serial: int,
    status: WorkStatus,
    at: datetime,
    error: Mapping[str, str] | None,
) -> None:
    """Record how a piece of work stands. Raises StoreError when there is none of that serial."""
    values: dict[str, Any] = {"status": status, "error": error or null()}
    if status not in OPEN_WORK:
        values["ended_at"] = at
    if not connection.execute(update(work).where(work.c.serial == serial).values(values)).rowcount:
        raise StoreError(f"the store knows no work of number {serial}")


def _list(connection: Connection, query: Select[Any]) -> tuple[WorkItem, ...]:
    rows = connection.execute(query).mappings()
    return tuple(row_to_work(row) for row in rows)
