"""What every Credentials promises, and what the files beyond it do."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from provisioner.credentials import FileCredentials, ensure_installation, get_installation
from provisioner.errors import CredentialError, InputError
from provisioner.ports import Credentials, KeyPair
from tests.fakes.credentials import FakeCredentials

LAB = "ana-mlops"
SLOT = "workbench"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=["fake", "files"])
def credentials(request: pytest.FixtureRequest, state: Path) -> Credentials:
    return FakeCredentials() if request.param == "fake" else FileCredentials(state)


@pytest.fixture
def files(state: Path) -> FileCredentials:
    return FileCredentials(state)


# -- what every Credentials promises ---------------------------------------------------------------


def test_a_lab_key_is_made_once(credentials: Credentials) -> None:
    key = credentials.ensure_lab_key(LAB, 1)
    assert credentials.ensure_lab_key(LAB, 1) == credentials.get_lab_key(LAB, 1) == key
    assert key.public_key.startswith("ssh-ed25519 ")


def test_each_generation_and_lab_has_its_own(credentials: Credentials) -> None:
    keys = [credentials.ensure_lab_key(*at) for at in ((LAB, 1), (LAB, 2), ("ben-mlops", 1))]
    assert len({key.public_key for key in keys}) == len({key.private_file for key in keys}) == 3


def test_a_key_that_was_never_made_is_an_error(credentials: Credentials) -> None:
    credentials.ensure_lab_key(LAB, 1)
    with pytest.raises(CredentialError):
        credentials.get_lab_key(LAB, 2)


def test_trial_keys_come_and_go_alone(credentials: Credentials) -> None:
    kept = credentials.ensure_lab_key(LAB, 1)
    first, second = (credentials.make_trial_key(LAB, slot) for slot in ("left", "right"))
    assert first.public_key != second.public_key
    for _ in range(2):
        credentials.destroy_trial_key(first)
    assert credentials.get_lab_key(LAB, 1) == kept


def test_a_trial_key_that_a_dead_run_left_is_replaced(credentials: Credentials) -> None:
    left, fresh = (credentials.make_trial_key(LAB, SLOT) for _ in range(2))
    assert left.public_key != fresh.public_key
    assert left.private_file == fresh.private_file, "nothing of the dead run is left"


def test_a_lab_key_is_no_trial_key(credentials: Credentials) -> None:
    key = credentials.ensure_lab_key(LAB, 1)
    with pytest.raises(CredentialError):
        credentials.destroy_trial_key(key)
    assert credentials.get_lab_key(LAB, 1) == key


def test_the_keys_of_a_lab_end_together(credentials: Credentials) -> None:
    other = credentials.ensure_lab_key("ben-mlops", 1)
    for generation in (1, 2):
        credentials.ensure_lab_key(LAB, generation)
    credentials.make_trial_key(LAB, SLOT)
    for _ in range(2):
        credentials.destroy_lab_keys(LAB)
    for generation in (1, 2):
        with pytest.raises(CredentialError):
            credentials.get_lab_key(LAB, generation)
    assert credentials.get_lab_key("ben-mlops", 1) == other


# -- files -----------------------------------------------------------------------------------------


def list_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_where_keys_are_and_who_may_read_them(files: FileCredentials, state: Path) -> None:
    old = os.umask(0)
    try:
        key, trial = files.ensure_lab_key(LAB, 3), files.make_trial_key(LAB, SLOT)
    finally:
        os.umask(old)
    assert Path(key.private_file) == state / "keys" / LAB / "3"
    for path in (Path(key.private_file), Path(trial.private_file)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (state / "keys", state / "keys" / LAB):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files.destroy_trial_key(trial)
    assert list_files(state) == [f"keys/{LAB}/3"], "no draft is left"
    files.destroy_lab_keys(LAB)
    assert list((state / "keys").iterdir()) == []


def test_openssh_reads_the_key(files: FileCredentials) -> None:
    key = files.ensure_lab_key(LAB, 1)
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", key.private_file], check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == key.public_key


def test_of_two_at_once_the_first_key_wins(files: FileCredentials) -> None:
    keys: list[KeyPair] = []
    start = threading.Barrier(8)

    def ensure() -> None:
        start.wait(10)
        keys.append(files.ensure_lab_key(LAB, 1))

    threads = [threading.Thread(target=ensure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(keys) == 8
    assert len(set(keys)) == 1


@pytest.mark.parametrize("lab_id", ["", "..", "../ana", "/etc", "ana/1", "-rf", "ana\n", "a" * 64])
def test_a_name_that_is_no_lab_id_touches_nothing(
    files: FileCredentials, state: Path, lab_id: str
) -> None:
    for call in (
        lambda: files.ensure_lab_key(lab_id, 1),
        lambda: files.make_trial_key(lab_id, SLOT),
        lambda: files.destroy_lab_keys(lab_id),
    ):
        with pytest.raises(InputError, match="is no lab id"):
            call()
    assert not state.exists()


@pytest.mark.parametrize("place", ["outside", "climbing", "not a trial"])
def test_only_trial_keys_are_destroyed_as_such(
    files: FileCredentials, state: Path, tmp_path: Path, place: str
) -> None:
    files.ensure_lab_key(LAB, 1)
    path = {
        "outside": tmp_path / "keys" / LAB / "trial-1",
        "climbing": state / "keys" / LAB / ".." / ".." / LAB / "trial-1",
        "not a trial": state / "keys" / LAB / "precious",
    }[place]
    path.parent.resolve().mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises((CredentialError, InputError)):
        files.destroy_trial_key(KeyPair(str(path), ""))
    assert path.exists()


@pytest.fixture(params=["open", "empty", "text", "folder", "symlink", "encrypted"])
def spoiled(request: pytest.FixtureRequest, files: FileCredentials) -> Path:
    path = Path(files.ensure_lab_key(LAB, 1).private_file)
    match request.param:
        case "open":
            path.chmod(0o640)
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("canary4711")
        case "folder":
            path.unlink()
            path.mkdir()
        case "symlink":
            path.rename(path.with_name("moved"))
            path.symlink_to("moved")
        case "encrypted":
            command = ["ssh-keygen", "-q", "-p", "-N", "passphrase", "-f", str(path)]
            subprocess.run(command, check=True, capture_output=True)
    return path


def test_a_spoiled_key_is_refused_and_stays(files: FileCredentials, spoiled: Path) -> None:
    for call in (files.get_lab_key, files.ensure_lab_key):
        with pytest.raises(CredentialError) as caught:
            call(LAB, 1)
        assert str(spoiled) in caught.value.what
        assert "canary4711" not in str(caught.value)
    assert spoiled.exists(), "nobody replaced it"


def test_what_the_disk_refuses_is_said(files: FileCredentials, state: Path) -> None:
    state.write_text("a file where the folder should be")
    with pytest.raises(CredentialError, match="Not a directory"):
        files.ensure_lab_key(LAB, 1)


# -- the installation ------------------------------------------------------------------------------


def test_an_installation_is_made_once(state: Path) -> None:
    with pytest.raises(CredentialError, match="labctl init"):
        get_installation(state)
    made = ensure_installation(state)
    assert ensure_installation(state) == get_installation(state) == made
    assert len(made.key) == 32
    assert len(made.installation_id) == 12
    assert stat.S_IMODE((state / "installation.json").stat().st_mode) == 0o600
    assert list_files(state) == ["installation.json"]
    assert ensure_installation(state.with_name("other")) != made


def test_its_key_is_in_no_text(state: Path) -> None:
    made = ensure_installation(state)
    assert repr(made.key)[2:10] not in repr(made)


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "[]",
        "{}",
        '{"installation_id": "0123456789ab", "key": "zz"}',
        '{"installation_id": "0123456789ab", "key": "abcd"}',
        '{"installation_id": 7, "key": "abcd"}',
        '{"installation_id": "../../../etc", "key": "' + "00" * 32 + '"}',
    ],
)
def test_a_damaged_installation_is_never_replaced(state: Path, fields: str) -> None:
    ensure_installation(state)
    path = state / "installation.json"
    path.write_text(fields)
    for call in (ensure_installation, get_installation):
        with pytest.raises(CredentialError, match="is damaged") as caught:
            call(state)
        assert caught.value.__context__ is None, "no text of the parser comes along"
    assert path.read_text() == fields


def test_an_open_installation_is_refused(state: Path) -> None:
    ensure_installation(state)
    (state / "installation.json").chmod(0o604)
    with pytest.raises(CredentialError, match="open to others"):
        get_installation(state)
    assert json.loads((state / "installation.json").read_text())
