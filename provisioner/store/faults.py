"""The one edge where faults of the database become ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError, StatementError

from provisioner.errors import StoreError

_FREE = "free space on its disk, then run the same command again"
_RIGHTS = "run labctl as the user that owns the state folder"
_RESTORE = "put the state folder back from a backup; docs/runbook.md says how"
_AGAIN = "run the same command again; when it stays so, another labctl hangs"
_BUG = "this is a fault of labctl: report it with the words above"

# By SQLite's primary result code (sqlite.org/rescode.html): what happened, what to do next.
SQLITE_FAULTS: dict[str, tuple[str, str]] = {
    "SQLITE_ABORT": ("the database gave up the transaction", _AGAIN),
    "SQLITE_AUTH": ("the database refuses this statement", _BUG),
    "SQLITE_BUSY": ("the database is kept busy by another process", _AGAIN),
    "SQLITE_CANTOPEN": ("the database cannot be opened", _RIGHTS),
    "SQLITE_CONSTRAINT": ("the database refuses a row that contradicts the others", _BUG),
    "SQLITE_CORRUPT": ("the database is damaged", _RESTORE),
    "SQLITE_EMPTY": ("the database is damaged", _RESTORE),
    "SQLITE_ERROR": ("the database does not understand a statement", _BUG),
    "SQLITE_FORMAT": ("the database is damaged", _RESTORE),
    "SQLITE_FULL": ("the disk of the database is full", _FREE),
    "SQLITE_INTERNAL": ("the database library failed", _BUG),
    "SQLITE_INTERRUPT": ("the database was interrupted", _AGAIN),
    "SQLITE_IOERR": ("the disk of the database does not read or write", "look at the disk"),
    "SQLITE_LOCKED": ("the database is kept busy by this process", _AGAIN),
    "SQLITE_MISMATCH": ("the database refuses a value of another type", _BUG),
    "SQLITE_MISUSE": ("the database is used wrongly", _BUG),
    "SQLITE_NOLFS": ("the database is larger than its disk allows", _FREE),
    "SQLITE_NOMEM": ("there is no memory left for the database", "free memory and run it again"),
    "SQLITE_NOTADB": ("the file is no database of labctl", _RESTORE),
    "SQLITE_NOTFOUND": ("the database library failed", _BUG),
    "SQLITE_NOTICE": ("the database library failed", _BUG),
    "SQLITE_PERM": ("the database may not be accessed", _RIGHTS),
    "SQLITE_PROTOCOL": ("the database's locks are contended", _AGAIN),
    "SQLITE_RANGE": ("the database is used wrongly", _BUG),
    "SQLITE_READONLY": ("the database cannot be written", _RIGHTS),
    "SQLITE_SCHEMA": ("the tables changed meanwhile", _AGAIN),
    "SQLITE_TOOBIG": ("a value is too large for the database", _BUG),
    "SQLITE_WARNING": ("the database library failed", _BUG),
}

_PRIMARY_CODES = {getattr(sqlite3, name): name for name in SQLITE_FAULTS}


@contextmanager
def translated_faults() -> Iterator[None]:
    """Turn faults of the database into StoreError; values of the statement are never told."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:  # the driver's own: from a bare PRAGMA
        raise translate(error) from error


def translate(error: SQLAlchemyError | sqlite3.Error) -> StoreError:
    """Say in IT's words what a fault of the database means."""
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, sqlite3.Error):
        # An extended code keeps its primary one in the lowest byte.
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        what, hint = SQLITE_FAULTS[_PRIMARY_CODES.get(code, "SQLITE_ERROR")]
        return StoreError(f"{what}: {cause}", hint=hint)
    return StoreError(f"the store failed: {type(cause).__name__}: {cause}", hint=_BUG)
