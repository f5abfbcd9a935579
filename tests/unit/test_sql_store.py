"""What the SQLite file itself promises: private, durable, shared, and understood."""

from __future__ import annotations

import inspect
import os
import re
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy.exc
from sqlalchemy import text

from provisioner.errors import BusyError, StoreError
from provisioner.model.lab import Progress, StepStatus
from provisioner.store import SqlStore, faults, open_store
from provisioner.store.schema import SCHEMA_VERSION, metadata
from tests.fakes.samples import NOW, make_audit, make_guests, make_lab

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "labctl.db"


def run_sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement).fetchall()
    finally:
        connection.close()


def test_file_and_folder_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_store(path)
        store.record(make_audit())
        modes = {found.name: found.stat().st_mode & 0o777 for found in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert modes == dict.fromkeys(("labctl.db", "labctl.db-wal", "labctl.db-shm"), 0o600)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_store_that_others_may_read_is_refused(path: Path, what: str) -> None:
    open_store(path).close()
    shared = path if what == "file" else path.parent
    shared.chmod(shared.stat().st_mode | 0o040)
    with pytest.raises(StoreError, match="open to other users") as caught:
        open_store(path)
    assert caught.value.hint.startswith("chmod ")
    shared.chmod(shared.stat().st_mode & 0o700)
    open_store(path).close()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot open the store"):
        open_store(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StoreError, match="cannot open the state folder"):
        open_store(tmp_path / "state" / "labctl.db")


def test_every_connection_is_durable_and_checks_keys(path: Path) -> None:
    store = open_store(path)
    with store._writing.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    store.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    open_store(path).close()
    run_sql(path, "UPDATE schema_versions SET version = version + 1")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer labctl") as caught:
        open_store(path)
    assert caught.value.hint
    assert path.read_bytes() == before


def test_another_file_is_refused(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"this is no database\n" * 100)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="no database of labctl"):
        open_store(path)
    assert path.read_bytes() == b"this is no database\n" * 100


def test_the_tables_are_those_of_the_recorded_version(path: Path) -> None:
    open_store(path).close()
    names = {row[0] for row in run_sql(path, "SELECT name FROM sqlite_master WHERE type='table'")}
    assert names - {"sqlite_sequence"} == set(metadata.tables)
    assert run_sql(path, "SELECT version FROM schema_versions") == [(SCHEMA_VERSION,)]


def test_a_blueprint_of_another_labctl_is_told(path: Path) -> None:
    store = open_store(path)
    store.add_lab(make_lab(), (), make_audit())
    run_sql(path, """UPDATE labs SET blueprint = '{"blueprint": "x", "gpus": 8}'""")
    with pytest.raises(StoreError, match="lab ana-mlops that this labctl does not know"):
        store.find_lab("ana-mlops")
    store.close()


def test_a_time_without_a_zone_is_refused(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(StoreError, match="without a zone"):
        store.record(replace(make_audit(), at=NOW.replace(tzinfo=None)))
    assert store.list_entries() == ()
    store.close()


def test_a_failed_intent_leaves_nothing(path: Path) -> None:
    store = open_store(path)
    lab = make_lab()
    with pytest.raises(StoreError, match="contradicts"):
        store.add_lab(lab, make_guests(lab) * 2, make_audit())
    assert store.find_lab("ana-mlops") is None
    assert store.list_guests("ana-mlops", 1) == ()
    assert store.list_entries() == ()
    store.close()


def test_a_log_line_of_no_lab_is_refused(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(StoreError, match="contradicts"):
        store.add_progress(Progress("no-lab", 1, NOW, "provision", "clone", "", StepStatus.OK))
    store.close()


def test_threads_share_a_store(path: Path) -> None:
    store = open_store(path)
    store.add_lab(make_lab(), (), make_audit())

    def write(number: int) -> None:
        row = Progress("ana-mlops", 1, NOW, "provision", "clone", str(number), StepStatus.NOTE)
        store.add_progress(row)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(200)))
    rows = store.list_progress("ana-mlops")
    store.close()
    assert {row.slot for row in rows} == {str(number) for number in range(200)}
    assert len({row.serial for row in rows}) == 200


WRITER = """
import sys
from pathlib import Path
from provisioner.errors import BusyError
from provisioner.model.lab import Progress, StepStatus
from provisioner.store import open_store
from tests.fakes.samples import NOW, make_audit, make_lab
name, path = sys.argv[1:]
sys.stdin.read()
store = open_store(Path(path))
try:
    store.add_lab(make_lab(), (), make_audit(action=name))
    print("first")
except BusyError:
    print("busy")
for number in range(25):
    store.add_progress(Progress("ana-mlops", 1, NOW, name, str(number), "", StepStatus.NOTE))
store.close()
"""


def test_processes_may_open_it_at_once_for_the_first_time(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, f"writer-{number}", str(path)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()  # all begin
        writer.stdin = None
    said = [writer.communicate(timeout=120)[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    assert sorted(said) == ["busy"] * 3 + ["first"], "the intent was recorded exactly once"
    store = open_store(path)
    assert len(store.list_progress("ana-mlops")) == 4 * 25
    assert len(store.list_entries()) == 1
    store.close()


def test_a_writer_does_not_hold_up_readers(path: Path) -> None:
    store = open_store(path)
    store.add_lab(make_lab(), (), make_audit())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE labs SET note = 'not yet committed'")
    try:
        found = store.find_lab("ana-mlops")
        assert found is not None
        assert found.note == ""
    finally:
        other.execute("ROLLBACK")
        other.close()
        store.close()


def test_a_decision_is_made_with_the_write_lock_held(path: Path) -> None:
    """Twenty threads ask for the next generation; reading first must not let two of them win."""
    store = open_store(path)

    def ask(number: int) -> bool:
        try:
            store.add_lab(make_lab("ana-mlops", number), (), make_audit())
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(20) as threads:
        won = sum(threads.map(ask, range(1, 21)))
    assert won == 1
    assert len(store.list_labs(closed=True)) == 1
    store.close()


# sqlite.org/rescode.html, all primary codes but OK, ROW and DONE, which are no faults.
PRIMARY_CODES = re.findall(
    r"\w+",
    """ABORT AUTH BUSY CANTOPEN CONSTRAINT CORRUPT EMPTY ERROR FORMAT FULL INTERNAL INTERRUPT IOERR
    LOCKED MISMATCH MISUSE NOLFS NOMEM NOTADB NOTFOUND NOTICE PERM PROTOCOL RANGE READONLY SCHEMA
    TOOBIG WARNING""",
)


def test_every_fault_of_sqlite_has_its_words() -> None:
    assert set(faults.SQLITE_FAULTS) == {f"SQLITE_{code}" for code in PRIMARY_CODES}
    assert all(what and hint for what, hint in faults.SQLITE_FAULTS.values())
    # Not one of the driver's result codes is missing from the list above. Python 3.12 and later
    # also name settings (SQLITE_DBCONFIG_...), whose numbers are large but no result codes.
    known = {getattr(sqlite3, f"SQLITE_{code}") for code in PRIMARY_CODES}
    extended = {
        value & 0xFF
        for name, value in vars(sqlite3).items()
        if re.match(r"SQLITE_(?!DBCONFIG_)", name) and isinstance(value, int) and value > 0xFF
    }
    assert extended - {0} <= known


@pytest.mark.parametrize("code", PRIMARY_CODES)
def test_a_fault_is_told_by_its_primary_code(code: str) -> None:
    orig = sqlite3.OperationalError("the driver's words")
    orig.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}") | (3 << 8)  # an extended code of it
    fault = sqlalchemy.exc.OperationalError("INSERT a secret", {"a": "secret"}, orig)
    told = faults.translate(fault)
    what, hint = faults.SQLITE_FAULTS[f"SQLITE_{code}"]
    assert (told.what, told.hint) == (f"{what}: the driver's words", hint)


FAULT_CLASSES = [
    kind
    for _, kind in inspect.getmembers(sqlalchemy.exc, inspect.isclass)
    if issubclass(kind, sqlalchemy.exc.SQLAlchemyError)
] + [
    kind
    for kind in vars(sqlite3).values()
    if inspect.isclass(kind) and issubclass(kind, sqlite3.Error)
]


@pytest.mark.parametrize("kind", FAULT_CLASSES)
def test_no_fault_of_the_library_gets_through(kind: type[Exception]) -> None:
    fault = kind.__new__(kind, "its words")
    with pytest.raises(StoreError), faults.translated_faults():
        raise fault


def test_a_full_disk_is_told(path: Path) -> None:
    store = open_store(path)
    with store._writing.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    for connection_ in _pooled(store):
        connection_.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk of the database is full"):
        store.record(make_audit(action="x" * 100_000))
    store.close()


def _pooled(store: SqlStore) -> list[sqlite3.Connection]:
    with store._writing.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        return [raw]


def test_values_of_a_statement_are_never_told(path: Path) -> None:
    store = open_store(path)
    with (
        pytest.raises(StoreError) as caught,
        faults.translated_faults(),
        store._writing.begin() as connection,
    ):
        connection.execute(text("INSERT INTO nowhere VALUES (:word)"), {"word": "canary"})
    told = f"{caught.value} {caught.value.__cause__}"
    store.close()
    assert "nowhere" in told
    assert "canary" not in told


def test_a_copy_is_whole_and_of_its_own(path: Path, tmp_path: Path) -> None:
    store = open_store(path)
    store.add_lab(make_lab(), make_guests(make_lab()), make_audit())
    store.copy_to(tmp_path / "copy.db")
    store.add_lab(make_lab("bo-mlops"), (), make_audit("bo-mlops"))
    store.close()
    (tmp_path / "copy.db").chmod(0o600)
    tmp_path.chmod(0o700)
    copy = open_store(tmp_path / "copy.db")
    assert [lab.lab_id for lab in copy.list_labs()] == ["ana-mlops"]
    copy.close()
