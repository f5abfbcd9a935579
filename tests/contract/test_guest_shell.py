"""What every GuestShell promises, and what the real one does beyond it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko
import pytest

from provisioner.credentials import FileCredentials
from provisioner.errors import GuestUnreachableError, HostKeyError, ShellError
from provisioner.model.observed import ShellResult
from provisioner.ports import GuestShell, KeyPair, ShellTarget
from provisioner.shell import ParamikoShell
from provisioner.shell.command import OUTPUT_BYTES
from tests.contract.conftest import wait_until
from tests.contract.ssh_server import SshServer, serving
from tests.fakes.guest_shell import FakeGuestShell, FakeMachine

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtwGcWB2gCgPhM"


@dataclass
class World:
    """A shell, a guest that lets it in, and a place where nothing answers."""

    shell: GuestShell
    target: ShellTarget
    nowhere: ShellTarget


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return FileCredentials(tmp_path / "state").ensure_lab_key("ana-mlops", 1)


@pytest.fixture
def server(key: KeyPair) -> Iterator[SshServer]:
    host_key = paramiko.ECDSAKey.generate(bits=256)
    with serving(SshServer(host_key, authorized={"labctl": {key.public_key}})) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[ParamikoShell]:
    shell = ParamikoShell(jump_known_hosts=tmp_path / "jump_known_hosts")
    yield shell
    shell.close()


@pytest.fixture
def target(server: SshServer, key: KeyPair) -> ShellTarget:
    return ShellTarget(
        alias="ana-mlops-workbench",
        address="127.0.0.1",
        host_key=server.public_key,
        user="labctl",
        key_file=key.private_file,
        port=server.port,
    )


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def answer(_target: ShellTarget, command: str, stdin: str) -> ShellResult | None:
    """What the contract's commands do, for the fake."""
    return {
        "cat": ShellResult(0, stdin, ""),
        "echo out; echo err >&2; exit 3": ShellResult(3, "out\n", "err\n"),
        "sleep 30": None,
    }[command]


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, key: KeyPair, free_port: int) -> World:
    if request.param == "real":
        target = request.getfixturevalue("target")
        return World(request.getfixturevalue("shell"), target, replace(target, port=free_port))
    target = ShellTarget("ana-mlops-workbench", "192.0.2.1", OTHER_KEY, "labctl", key.private_file)
    machine = FakeMachine(OTHER_KEY, {"labctl": {key.private_file}}, answer)
    fake = FakeGuestShell({target.address: machine})
    return World(fake, target, replace(target, address="192.0.2.2"))


# -- what every GuestShell promises -------------------------------------------------------------


def test_a_command_gets_its_input_and_gives_its_output(world: World) -> None:
    result = world.shell.run(world.target, "cat", stdin="héllo\n", timeout_s=20)
    assert result == ShellResult(0, "héllo\n", "")


def test_a_non_zero_status_is_no_error(world: World) -> None:
    result = world.shell.run(world.target, "echo out; echo err >&2; exit 3", timeout_s=20)
    assert result == ShellResult(3, "out\n", "err\n")


def test_a_login_that_works_is_not_waited_for(world: World) -> None:
    if isinstance(world.shell, FakeGuestShell):
        world.shell.machines[world.target.address].answer = lambda *_: ShellResult(0, "", "")
    started_s = time.monotonic()
    world.shell.wait_for_login(world.target, timeout_s=30)
    assert time.monotonic() - started_s < 10


def ask(world: World, target: ShellTarget, call: str, timeout_s: float) -> None:
    if call == "run":
        world.shell.run(target, "cat", timeout_s=timeout_s)
    else:
        world.shell.wait_for_login(target, timeout_s=timeout_s)


@pytest.mark.parametrize("call", ["run", "wait"])
def test_another_host_key_is_refused(world: World, call: str) -> None:
    swapped = replace(world.target, host_key=OTHER_KEY[:-4] + "AAAA")
    with pytest.raises(HostKeyError, match="another host key"):
        ask(world, swapped, call, 60)


@pytest.mark.parametrize("call", ["run", "wait"])
def test_a_guest_that_does_not_answer_is_worth_another_try(world: World, call: str) -> None:
    with pytest.raises(GuestUnreachableError) as caught:
        ask(world, world.nowhere, call, 1)
    assert caught.value.retryable
    assert world.target.alias in caught.value.what


def test_a_refused_login_is_an_error(world: World) -> None:
    with pytest.raises(ShellError, match="refuses the login"):
        world.shell.run(replace(world.target, user="mallory"), "cat", timeout_s=20)


def test_a_command_past_its_deadline_is_unknown(world: World) -> None:
    started_s = time.monotonic()
    with pytest.raises(GuestUnreachableError, match="did not end a command within 1 s"):
        world.shell.run(world.target, "sleep 30", timeout_s=1)
    assert time.monotonic() - started_s < 8


# -- the real one --------------------------------------------------------------------------------


def test_nothing_of_ours_is_sent_before_the_host_key_is_right(
    shell: ParamikoShell, target: ShellTarget, server: SshServer
) -> None:
    with pytest.raises(HostKeyError):
        shell.run(replace(target, host_key=OTHER_KEY), "true", timeout_s=20)
    assert server.attempts == []
    assert shell.run(target, "true", timeout_s=20).exit_status == 0
    assert server.attempts, "negative control: a right key is followed by a login"


@pytest.mark.parametrize("host_key", ["", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-rot13 AAAA"])
def test_no_pin_no_connection(
    shell: ParamikoShell, target: ShellTarget, server: SshServer, host_key: str
) -> None:
    with pytest.raises(HostKeyError, match="no usable host key is pinned"):
        shell.run(replace(target, host_key=host_key), "true", timeout_s=20)
    assert server.attempts == []


def test_output_is_capped_at_its_end_and_harmless(
    shell: ParamikoShell, target: ShellTarget
) -> None:
    command = r"yes 0123456789 | head -c 300000; printf '\033[31mred\033[0m\007\n'; echo last"
    result = shell.run(target, command, timeout_s=30)
    assert result.stdout.endswith("red\nlast\n")
    assert len(result.stdout) <= OUTPUT_BYTES + 40
    assert result.stdout.startswith("[")
    assert "bytes left out]" in result.stdout.splitlines()[0]


def test_much_both_ways_does_not_lock_up(shell: ParamikoShell, target: ShellTarget) -> None:
    sent = "x" * 3_000_000
    result = shell.run(target, "tee /dev/stderr | wc -c", stdin=sent, timeout_s=60)
    assert result.stdout.strip() == "3000000"
    assert result.stderr.endswith("x" * 1000)


def test_input_that_nobody_reads_is_no_error(shell: ParamikoShell, target: ShellTarget) -> None:
    result = shell.run(target, "exit 4", stdin="x" * 3_000_000, timeout_s=30)
    assert result.exit_status == 4


def test_something_left_in_the_background_is_not_waited_for(
    shell: ParamikoShell, target: ShellTarget
) -> None:
    started_s = time.monotonic()
    result = shell.run(target, "echo done; (sleep 2; echo late) &", timeout_s=30)
    assert result.stdout.startswith("done\n")
    assert time.monotonic() - started_s < 10


def test_a_command_past_its_deadline_ends_on_the_guest(
    shell: ParamikoShell, target: ShellTarget, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(GuestUnreachableError):
        shell.run(target, f"echo $$ > {pid_file}; sleep 300; true", timeout_s=1)
    process = Path("/proc") / pid_file.read_text().strip()
    wait_until(lambda: not process.exists())


def test_connections_are_kept_for_a_moment(
    target: ShellTarget, server: SshServer, tmp_path: Path
) -> None:
    shell = ParamikoShell(jump_known_hosts=tmp_path / "none", idle_s=0.3)
    for _ in range(3):
        shell.run(target, "true", timeout_s=20)
    assert len(set(server.attempts)) == 1
    kept = len(server.attempts)
    wait_until(lambda: not shell._idle)
    shell.run(target, "true", timeout_s=20)
    assert len(server.attempts) > kept, "a new login after the pause"
    shell.close()


def test_a_kept_connection_that_died_is_replaced(shell: ParamikoShell, target: ShellTarget) -> None:
    shell.run(target, "true", timeout_s=20)
    (kept,) = shell._idle.values()
    kept.connection.transport.sock.close()
    assert shell.run(target, "echo again", timeout_s=20).stdout == "again\n"


def test_a_failed_command_leaves_no_connection_behind(
    shell: ParamikoShell, target: ShellTarget
) -> None:
    with pytest.raises(GuestUnreachableError):
        shell.run(target, "sleep 30", timeout_s=1)
    assert not shell._idle


@pytest.mark.parametrize(
    "says", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n" + b"\0" * 64]
)
def test_what_is_no_ssh_server_ends_in_time(
    shell: ParamikoShell, target: ShellTarget, says: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def speak() -> None:
            sock, _ = listener.accept()
            taken.append(sock)
            sock.sendall(says)

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        started_s = time.monotonic()
        with pytest.raises((GuestUnreachableError, ShellError)):
            shell.run(replace(target, port=listener.getsockname()[1]), "true", timeout_s=2)
        assert time.monotonic() - started_s < 10
        thread.join(timeout=5)
        for sock in taken:
            sock.close()


def test_a_server_that_never_answers_a_request_ends_in_time(
    shell: ParamikoShell, target: ShellTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paramiko itself would wait for ever here."""
    hang = threading.Event()
    monkeypatch.setattr(
        "tests.contract.ssh_server._Session.check_channel_exec_request",
        lambda *_: hang.wait(30),
    )
    started_s = time.monotonic()
    with pytest.raises(GuestUnreachableError, match="did not end a command"):
        shell.run(target, "true", timeout_s=1)
    assert time.monotonic() - started_s < 12
    hang.set()


def test_a_key_that_cannot_be_used_is_named_and_not_repeated(
    shell: ParamikoShell, target: ShellTarget, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.write_text(
        "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary4711\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    for path in (bad, tmp_path / "missing"):
        with pytest.raises(ShellError, match=path.name) as caught:
            shell.wait_for_login(replace(target, key_file=str(path)), timeout_s=30)
        assert "canary4711" not in str(caught.value)


# -- jump host -----------------------------------------------------------------------------------


@pytest.fixture
def jump(key: KeyPair) -> Iterator[SshServer]:
    server = SshServer(
        paramiko.RSAKey.generate(2048), authorized={"gate@corp": {key.public_key}}, forwards=True
    )
    with serving(server):
        yield server


def test_a_guest_behind_a_jump_host(
    shell: ParamikoShell, target: ShellTarget, jump: SshServer, tmp_path: Path
) -> None:
    (tmp_path / "jump_known_hosts").write_text(f"[127.0.0.1]:{jump.port} {jump.public_key}\n")
    behind = replace(target, jump=f"gate@corp@127.0.0.1:{jump.port}")
    assert shell.run(behind, "echo through", timeout_s=20).stdout == "through\n"
    assert jump.forwarded == [("127.0.0.1", target.port)]
    with pytest.raises(HostKeyError, match="guest ana-mlops-workbench"):
        shell.run(replace(behind, host_key=OTHER_KEY), "true", timeout_s=20)


def test_closing_what_has_broken_already_is_quiet(
    shell: ParamikoShell, target: ShellTarget, jump: SshServer, tmp_path: Path
) -> None:
    (tmp_path / "jump_known_hosts").write_text(f"[127.0.0.1]:{jump.port} {jump.public_key}\n")
    behind = replace(target, jump=f"gate@corp@127.0.0.1:{jump.port}")
    for _ in range(10):
        shell.run(behind, "true", timeout_s=20)
        (kept,) = shell._idle.values()
        assert kept.connection.jump
        kept.connection.jump.sock.shutdown(socket.SHUT_RDWR)
        shell.close()


@pytest.mark.parametrize("known", ["nothing", "another key", "another port"])
def test_a_jump_host_that_is_not_known_is_refused(
    shell: ParamikoShell, target: ShellTarget, jump: SshServer, tmp_path: Path, known: str
) -> None:
    name = f"[127.0.0.1]:{jump.port + (known == 'another port')}"
    line = f"{name} {OTHER_KEY if known == 'another key' else jump.public_key}\n"
    (tmp_path / "jump_known_hosts").write_text("" if known == "nothing" else line)
    with pytest.raises(HostKeyError, match=r"jump host 127\.0\.0\.1"):
        shell.wait_for_login(replace(target, jump=f"gate@corp@127.0.0.1:{jump.port}"), timeout_s=20)
    assert jump.attempts == []


def test_a_jump_host_with_a_damaged_file_is_refused(
    shell: ParamikoShell, target: ShellTarget, tmp_path: Path
) -> None:
    behind = replace(target, jump="gate@127.0.0.1:22")
    with pytest.raises(HostKeyError, match="not known"):
        shell.run(behind, "true", timeout_s=5)
    (tmp_path / "jump_known_hosts").write_text("127.0.0.1 ssh-ed25519 abc\n")
    with pytest.raises(HostKeyError):
        shell.run(behind, "true", timeout_s=5)


def test_a_jump_host_that_forwards_nothing_is_said(
    shell: ParamikoShell, target: ShellTarget, jump: SshServer, tmp_path: Path
) -> None:
    jump.forwards = False
    (tmp_path / "jump_known_hosts").write_text(f"[127.0.0.1]:{jump.port} {jump.public_key}\n")
    with pytest.raises(GuestUnreachableError, match="refuses a channel"):
        shell.run(replace(target, jump=f"gate@corp@127.0.0.1:{jump.port}"), "true", timeout_s=10)
