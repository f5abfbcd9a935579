"""The process: what it writes, refuses and leaves behind."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import hashlib
import json
import signal
import ssl
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

import pytest
from pyVim.connect import SmartConnect
from pyVmomi import vim

from provisioner.simulator.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEADLINE_S = 30


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started = []

    def run(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "provisioner.simulator", "--guests", "null"]
        process = subprocess.Popen(
            [*command, "--state", str(tmp_path / "state"), *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        _stderr(process).close()


def _stderr(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stderr is not None
    return process.stderr


def endpoint(process: subprocess.Popen[str], state: Path) -> dict[str, Any]:
    """Return what the simulator announces, once it does."""
    lines = _stderr(process)
    assert any("ready: https://127.0.0.1:" in line for line in lines), "it never was ready"
    found: dict[str, Any] = json.loads((state / "endpoint.json").read_text())
    return found


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(DEADLINE_S)


def test_a_start_announces_itself_and_a_stop_takes_it_back(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    process = run("--datastore-gib", "7")
    first = endpoint(process, state)
    assert first["pid"] == process.pid
    modes = {path.name: path.stat().st_mode & 0o777 for path in state.iterdir()}
    assert state.stat().st_mode & 0o777 == 0o700
    assert {modes[name] for name in ("password", "key.pem", "endpoint.json")} == {0o600}
    password = (state / "password").read_text().strip()
    assert password not in (state / "endpoint.json").read_text()
    pem = (state / "certificate.pem").read_text()
    thumbprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    assert first["thumbprint_sha256"] == thumbprint.upper()

    client = SmartConnect(
        host=first["host"],
        port=first["port"],
        user=first["username"],
        pwd=password,
        sslContext=ssl.create_default_context(cafile=first["ca_file"]),
    )
    content = client.RetrieveContent()
    assert content.about.instanceUuid == first["instance_uuid"]
    store = content.searchIndex.FindByInventoryPath("DC0/datastore/datastore-0")
    assert store.summary.capacity == 7 * 1024**3
    key = content.eventManager.latestEvent.key
    client._stub.DropConnections()

    second = run()
    assert second.wait(DEADLINE_S) == 1
    assert "already runs" in _stderr(second).read()
    assert (state / "endpoint.json").exists(), "the first one is not disturbed"
    assert stop(process) == 0
    assert not (state / "endpoint.json").exists()

    process = run()
    again = endpoint(process, state)
    kept = ("instance_uuid", "thumbprint_sha256", "username")
    assert [again[name] for name in kept] == [first[name] for name in kept]
    assert (state / "password").read_text().strip() == password
    client = SmartConnect(
        host=again["host"],
        port=again["port"],
        user=again["username"],
        pwd=password,
        sslContext=ssl.create_default_context(cafile=again["ca_file"]),
    )
    assert client.RetrieveContent().eventManager.latestEvent.key > key, "event keys only grow"
    client._stub.DropConnections()
    assert stop(process, signal.SIGINT) == 0


def test_a_stop_ends_waits_and_tasks(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    process = run("--method-delay", "CloneVM_Task=600")
    found = endpoint(process, state)
    client = SmartConnect(
        host=found["host"],
        port=found["port"],
        user=found["username"],
        pwd=(state / "password").read_text().strip(),
        sslContext=ssl.create_default_context(cafile=found["ca_file"]),
    )
    content = client.RetrieveContent()
    find = content.searchIndex.FindByInventoryPath
    template = find("DC0/vm/templates/debian-13")
    location = vim.vm.RelocateSpec(pool=find("DC0/host/cluster-0/Resources"))
    spec = vim.vm.CloneSpec(location=location, powerOn=False, template=False)
    task = template.CloneVM_Task(find("DC0/vm/labs"), "never", spec)
    assert task.info.state in ("queued", "running")
    client._stub.DropConnections()
    assert stop(process) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--listen", "0.0.0.0:0"], "no loopback address"),
        (["--listen", "127.0.0.1"], "use 127.0.0.1:PORT"),
        (["--method-delay", "CloneVM_Task=soon"], "use METHOD=SECONDS"),
        (["--faults", "no-such-file"], "No such file"),
        (["--faults", __file__], "Extra data: line 1"),
        (["--users", __file__], "Extra data: line 1"),
    ],
)
def test_options_that_are_refused(
    options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--state", str(tmp_path / "s"), "--guests", "null", *options])
    assert ended.value.code == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_folder_open_to_others_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    assert main(["--state", str(tmp_path / "open"), "--guests", "null"]) == 1
    assert "chmod 700" in capsys.readouterr().err


def test_rules_and_users_come_from_files(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    rules = tmp_path / "faults.json"
    rules.write_text('[{"method": "CurrentTime", "what": "vim.fault.InvalidState"}]')
    users = tmp_path / "users.json"
    grants = [{"path": "DC0/vm/labs", "privileges": ["System.Read"]}]
    users.write_text(json.dumps([{"name": "ana", "password": "a word", "grants": grants}]))
    process = run("--faults", str(rules), "--users", str(users))
    found = endpoint(process, tmp_path / "state")
    client = SmartConnect(
        host=found["host"],
        port=found["port"],
        user="ana",
        pwd="a word",
        sslContext=ssl.create_default_context(cafile=found["ca_file"]),
    )
    search = client.RetrieveContent().searchIndex
    assert search.FindByInventoryPath("DC0/vm/labs") is not None
    assert search.FindByInventoryPath("DC0/vm/templates") is None
    with pytest.raises(vim.fault.InvalidState):
        client.CurrentTime()
    assert client.CurrentTime()
    client._stub.DropConnections()
    assert stop(process) == 0


def test_a_bad_user_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = tmp_path / "users.json"
    grants = [{"path": "DC0/nowhere", "privileges": []}]
    users.write_text(json.dumps([{"name": "ana", "password": "a word", "grants": grants}]))
    words = ["--state", str(tmp_path / "s"), "--guests", "null", "--users", str(users)]
    assert main(words) == 1
    assert "a grant has a path that exists" in capsys.readouterr().err


def test_a_bad_rule_stops_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "faults.json"
    rules.write_text('[{"method": "Login", "what": "loss"}]')
    with pytest.raises(SystemExit):
        main(["--state", str(tmp_path / "s"), "--guests", "null", "--faults", str(rules)])
    assert "rule 0: 'loss' is neither a fault" in capsys.readouterr().err
