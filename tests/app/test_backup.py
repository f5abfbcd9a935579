from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.app.backup import Backup, Restoring, make_backup, open_backup
from provisioner.app.wiring import House
from provisioner.credentials import ensure_installation, get_installation
from provisioner.credentials.sealing import seal
from provisioner.errors import (
    BusyError,
    CredentialError,
    InputError,
    RefusedError,
    StoreError,
)
from provisioner.model.lab import LabState, Progress, StepStatus, WorkStatus
from provisioner.rules.restored import find_restored_at
from tests.app.office import Office
from tests.fakes.samples import NOW, make_audit, make_guests, make_lab

PASSPHRASE = "correct horse battery staple"
KEY_OF_ANA = "keys/ana-mlops/1"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house of which only files and the store are used."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    ensure_installation(state)
    made = Office.build_house(state)
    made.store.add_lab(make_lab(), make_guests(make_lab()), make_audit())
    made.credentials.ensure_lab_key("ana-mlops", 1)
    made.credentials.make_trial_key("ana-mlops", "workbench")
    yield made
    made.close()


@pytest.fixture
def backup(house: House, tmp_path: Path) -> Backup:
    make_backup(house, tmp_path / "backup", PASSPHRASE)
    return open_backup(tmp_path / "backup", PASSPHRASE)


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def build_empty(tmp_path: Path) -> House:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    return Office.build_house(other)


def test_one_private_file_brings_store_identity_and_keys_to_another_machine(
    house: House, backup: Backup, tmp_path: Path
) -> None:
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o600
    other = build_empty(tmp_path)
    restoring = Restoring(other, backup)
    assert restoring.list_replaced() == ()
    assert restoring.restore() is None
    assert get_installation(other.state) == get_installation(house.state)
    assert other.credentials.get_lab_key("ana-mlops", 1).public_key == (
        house.credentials.get_lab_key("ana-mlops", 1).public_key
    )
    assert other.store.get_lab("ana-mlops").hire == make_lab().hire
    assert find_restored_at(other.store) == backup.made_at
    other.close()
    names = {name for name in read_all(other.state) if "worker" not in name}
    assert names == {"labctl.db", "installation.json", KEY_OF_ANA}
    for path in other.state.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.suffix == ".lock"


def test_nothing_secret_is_readable_in_it(house: House, backup: Backup, tmp_path: Path) -> None:
    del backup
    sealed = (tmp_path / "backup").read_bytes()
    key = json.loads((house.state / "installation.json").read_text())["key"]
    assert key.encode() not in sealed
    assert b"SQLite" not in sealed
    assert b"ana@example.com" not in sealed


def test_the_store_of_a_backup_is_whole_while_a_worker_writes(house: House, tmp_path: Path) -> None:
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            row = Progress(
                "ana-mlops", 1, NOW, "provision", "clone", "", StepStatus.NOTE, "x" * 999
            )
            house.store.add_progress(row)

    worker = threading.Thread(target=write)
    worker.start()
    try:
        for number in range(5):
            make_backup(house, tmp_path / f"backup-{number}", PASSPHRASE)
    finally:
        ended.set()
        worker.join()
    Restoring(
        other := build_empty(tmp_path), open_backup(tmp_path / "backup-4", PASSPHRASE)
    ).restore()
    with other.store._reading.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert len(other.store.list_progress("ana-mlops")) > 0
    other.close()


def test_a_backup_never_replaces_a_file(house: House, tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("mine")
    with pytest.raises(RefusedError, match="there already"):
        make_backup(house, tmp_path / "backup", PASSPHRASE)
    assert (tmp_path / "backup").read_text() == "mine"


def test_a_backup_that_cannot_be_written_says_so(house: House, tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="nowhere"):
        make_backup(house, tmp_path / "nowhere" / "backup", PASSPHRASE)


def test_without_a_store_there_is_no_backup(tmp_path: Path) -> None:
    house = build_empty(tmp_path)
    with pytest.raises(InputError, match="no store"):
        make_backup(house, tmp_path / "backup", PASSPHRASE)
    assert not (house.state / "labctl.db").exists()


@pytest.mark.parametrize(
    ("data", "passphrase", "text"),
    [
        (b"", PASSPHRASE, "no backup"),
        (b"labctl sealed 9\n...", PASSPHRASE, "newer labctl"),
        (seal(b"{}", PASSPHRASE)[:-1], PASSPHRASE, "not whole"),
        (seal(b"{}", PASSPHRASE), "another", "not the passphrase"),
        (seal(b"{}", PASSPHRASE), PASSPHRASE, "something else"),
    ],
    ids=["empty", "newer", "cut", "another passphrase", "something else"],
)
def test_what_cannot_be_restored_is_refused(
    tmp_path: Path, data: bytes, passphrase: str, text: str
) -> None:
    (tmp_path / "backup").write_bytes(data)
    with pytest.raises(InputError, match=text):
        open_backup(tmp_path / "backup", passphrase)
    with pytest.raises(InputError, match="cannot read"):
        open_backup(tmp_path / "nowhere", passphrase)


@pytest.mark.parametrize("name", ["../x/1", "ana-mlops/../1", "ana-mlops/trial-1", "ana-mlops"])
def test_a_key_of_a_strange_name_is_refused(backup: Backup, tmp_path: Path, name: str) -> None:
    strange = backup.model_copy(update={"keys": {name: b"x"}})
    (tmp_path / "strange").write_bytes(seal(strange.model_dump_json().encode(), PASSPHRASE))
    with pytest.raises(InputError):
        open_backup(tmp_path / "strange", PASSPHRASE)


def test_what_is_in_the_way_is_moved_aside(house: House, backup: Backup) -> None:
    house.close()
    (house.state / "engine.db").write_text("runs")
    younger = house.credentials.ensure_lab_key("bob-mlops", 1)
    before = read_all(house.state)
    restoring = Restoring(house, backup)
    assert {path.name for path in restoring.list_replaced()} == {"labctl.db", "engine.db"}
    aside = restoring.restore()
    assert aside is not None
    assert read_all(aside) == {name: before[name] for name in ("labctl.db", "engine.db")}
    assert Path(younger.private_file).exists()


def test_another_installation_is_moved_aside_with_its_keys(
    house: House, backup: Backup, tmp_path: Path
) -> None:
    other = build_empty(tmp_path)
    ensure_installation(other.state)
    other.credentials.ensure_lab_key("eve-mlops", 1)
    before = read_all(other.state)
    aside = Restoring(other, backup).restore()
    assert aside is not None
    assert read_all(aside) == before
    assert get_installation(other.state) == get_installation(house.state)
    assert (other.state / KEY_OF_ANA).exists()
    assert not (other.state / "keys" / "eve-mlops").exists()


def test_a_key_that_differs_is_moved_aside(house: House, backup: Backup) -> None:
    house.close()
    key = house.state / KEY_OF_ANA
    key.write_bytes(b"damaged")
    aside = Restoring(house, backup).restore()
    assert aside is not None
    assert (aside / KEY_OF_ANA).read_bytes() == b"damaged"
    assert key.read_bytes() == backup.keys["ana-mlops/1"]


def test_it_is_refused_while_a_worker_runs(
    house: House, backup: Backup, holder: subprocess.Popen[str]
) -> None:
    house.close()
    before = read_all(house.state)
    with pytest.raises(BusyError, match=str(holder.pid)):
        Restoring(house, backup).restore()
    assert read_all(house.state) == before


OPENER = """
import sys
from pathlib import Path
from provisioner.store import open_store
store = open_store(Path(sys.argv[1]))
store.list_labs()
print("open", flush=True)
sys.stdin.read()
"""


def test_it_is_refused_while_another_labctl_uses_the_store(house: House, backup: Backup) -> None:
    house.close()
    with subprocess.Popen(
        [sys.executable, "-c", OPENER, str(house.state / "labctl.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(BusyError, match=f"process {other.pid}"):
            Restoring(house, backup).restore()
        other.kill()
    assert Restoring(house, backup).restore() is not None


def test_a_store_of_another_version_changes_nothing(house: House, backup: Backup) -> None:
    with house.store._writing.begin() as connection:
        connection.exec_driver_sql("UPDATE schema_versions SET version = 99")
    house.store.copy_to(house.state / "newer.db")
    newer = backup.model_copy(update={"store": (house.state / "newer.db").read_bytes()})
    house.close()
    before = read_all(house.state)
    with pytest.raises(StoreError, match="newer labctl"):
        Restoring(house, newer).restore()
    assert read_all(house.state) == before


def test_a_damaged_installation_changes_nothing(house: House, backup: Backup) -> None:
    house.close()
    before = read_all(house.state)
    damaged = backup.model_copy(update={"installation": b"{}"})
    with pytest.raises(CredentialError, match="damaged"):
        Restoring(house, damaged).restore()
    assert read_all(house.state) == before


def test_work_that_was_open_is_closed_as_failed(house: House, backup: Backup) -> None:
    house.close()
    Restoring(house, backup).restore()
    restored = Office.build_house(house.state)
    item = restored.store.find_last_work("ana-mlops")
    assert item is not None
    assert (item.workflow, item.status) == ("provision", WorkStatus.FAILED)
    assert restored.store.get_lab("ana-mlops").state is LabState.FAILED
    assert restored.store.list_open_work() == ()
    restored.close()


def test_a_backup_of_a_restored_store_keeps_the_first_time(
    house: House, backup: Backup, tmp_path: Path
) -> None:
    other = build_empty(tmp_path)
    Restoring(other, backup).restore()
    second = make_backup(other, tmp_path / "second", PASSPHRASE)
    assert second.made_at > backup.made_at
    other.close()
    house.close()
    Restoring(house, second).restore()
    restored = Office.build_house(house.state)
    assert find_restored_at(restored.store) == backup.made_at
    restored.close()
