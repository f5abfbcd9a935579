"""Opening the store's SQLite file: private, durable, and safe for many processes at once."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.engine import URL

from provisioner.errors import StoreError
from provisioner.store.faults import translated_faults
from provisioner.store.schema import SCHEMA_VERSION, metadata, schema_versions

BUSY_TIMEOUT_S = 30
_READ_ONLY = "labctl_read_only"


def open_database(path: Path) -> Engine:
    """Open the database at `path`, and make it when there is none.

    The file is 0600 in a folder of 0700. Two processes may open it at once for the first time.

    Raises:
        StoreError: it cannot be made or read, others may read it, or a newer labctl wrote it.
    """
    with _folder_lock(path.parent):
        _ensure_private_file(path)
        engine = _make_engine(path)
        try:
            with translated_faults():
                with engine.connect() as connection:
                    # Outside of a transaction; kept in the file. Readers never wait for a writer.
                    raw = connection.connection.dbapi_connection
                    raw.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr]
                with engine.begin() as connection:
                    _ensure_schema(connection, path)
        except BaseException:
            engine.dispose()
            raise
    return engine


def read_only(engine: Engine) -> Engine:
    """Return the same database for transactions that only read: they never wait for a writer."""
    return engine.execution_options(**{_READ_ONLY: True})


def _make_engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        # None: the driver begins no transactions of its own; `begin` below does.
        connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _prepare(raw: Any, _record: Any) -> None:
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA synchronous=FULL")  # what was recorded outlives a power cut

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: a transaction that reads first and then writes
        # can neither deadlock with another one nor decide on rows that changed meanwhile.
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _ensure_schema(connection: Connection, path: Path) -> None:
    metadata.create_all(connection, tables=[schema_versions])
    found = connection.scalar(select(schema_versions.c.version))
    if found is None:
        metadata.create_all(connection)
        connection.execute(insert(schema_versions).values(version=SCHEMA_VERSION))
    elif found != SCHEMA_VERSION:
        other = "a newer labctl" if found > SCHEMA_VERSION else "a labctl before its first release"
        raise StoreError(
            f"{path} was written by {other} (its schema is {found}, this labctl knows "
            f"{SCHEMA_VERSION})",
            hint="use the labctl that wrote it; this one changed nothing",
        )


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: turning on the journal mode fails when two do it at once."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot open the state folder {folder}: {error.strerror}") from error
    try:
        _refuse_when_shared(folder, os.fstat(handle), "700")
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _ensure_private_file(path: Path) -> None:
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open the store {path}: {error.strerror}") from error
    try:
        _refuse_when_shared(path, os.fstat(handle), "600")
    finally:
        os.close(handle)


def _refuse_when_shared(path: Path, found: os.stat_result, mode: str) -> None:
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StoreError(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):03o})",
            hint=f"chmod {mode} {path}",
        )
