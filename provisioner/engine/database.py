"""The durable engine's file: private, whole, and used by one process only.

It holds what is under way, nothing that vCenter and the store do not know: losing it costs the
recorded steps, and a step that runs again looks at the world first.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from pathlib import Path

from provisioner.errors import BusyError, StoreError


def take_lock(database: Path) -> int:
    """Take the one right to use `database`, and return the handle that holds it.

    The kernel frees it when the process ends, however it ends.

    Raises:
        BusyError: another process holds it.
        StoreError: its folder cannot be used.
    """
    try:
        database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(database.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"cannot open the engine's folder {database.parent}: {error.strerror}"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise BusyError(
            f"another labctl process runs the work of {database.parent}",
            hint="stop it first; it lets go when it ends",
        ) from error
    return lock


def prepare_database(database: Path) -> None:
    """Make the file if there is none, 0600, and see that it is a whole SQLite database.

    Raises:
        StoreError: it cannot be used, or others may read or write it.
    """
    try:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(database, flags, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open the engine's file {database}: {error.strerror}") from error
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):  # who can write it can make labctl run anything
        raise StoreError(
            f"{database} is open to other users (mode {mode:03o})", hint=f"chmod 600 {database}"
        )
    try:
        raw = sqlite3.connect(database)
        try:
            raw.execute("PRAGMA journal_mode=WAL")  # kept in the file
            found = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            raw.close()
    except sqlite3.Error as error:
        raise build_unusable(database, str(error)) from error
    if found != "ok":
        raise build_unusable(database, found)


def build_unusable(database: Path, why: str) -> StoreError:
    """Build the error of a database that cannot be used."""
    return StoreError(
        f"the engine's file {database} cannot be used: {why}",
        hint=f"free space on its disk; if that is not it, stop labctl and delete {database}*: "
        "every lab stays recorded in the store, and work that was under way starts anew",
    )
