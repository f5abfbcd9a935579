"""A small SSH server on loopback: key login, commands through `sh`, and channels onward."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_UNKNOWN_CHANNEL_TYPE,
    OPEN_SUCCEEDED,
)

CHUNK = 32 * 1024
# what paramiko raises on a connection that its other side has ended
BROKEN = (OSError, EOFError, paramiko.SSHException)


@dataclass
class SshServer:
    """What it lets in, and what it saw: who tried a key, and where channels went."""

    host_key: paramiko.PKey
    authorized: dict[str, set[str]] = field(default_factory=dict)
    forwards: bool = False
    attempts: list[str] = field(default_factory=list)
    forwarded: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0

    @property
    def public_key(self) -> str:
        return f"{self.host_key.get_name()} {self.host_key.get_base64()}"


class _Session(paramiko.ServerInterface):
    def __init__(self, server: SshServer) -> None:
        self.server = server
        self.onward: dict[int, tuple[str, int]] = {}

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.server.attempts.append(username)
        known = f"{key.get_name()} {key.get_base64()}" in self.server.authorized.get(username, ())
        return AUTH_SUCCESSFUL if known else AUTH_FAILED

    def check_channel_request(self, kind: str, _chanid: int) -> int:
        allowed = kind == "session"
        return OPEN_SUCCEEDED if allowed else OPEN_FAILED_UNKNOWN_CHANNEL_TYPE

    def check_channel_direct_tcpip_request(
        self, chanid: int, _origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if not self.server.forwards:
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        self.server.forwarded.append(destination)
        self.onward[chanid] = destination
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_execute, args=(channel, command), daemon=True).start()
        return True


def _execute(channel: paramiko.Channel, command: bytes) -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", command.decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    threads = [
        threading.Thread(target=_copy, args=(process.stdout.fileno(), channel.sendall)),
        threading.Thread(target=_copy, args=(process.stderr.fileno(), channel.sendall_stderr)),
    ]
    for thread in threads:
        thread.start()
    threading.Thread(target=_feed, args=(channel, process.stdin), daemon=True).start()
    status = process.wait()
    for thread in threads:
        thread.join()
    process.stdout.close()
    process.stderr.close()
    with suppress(*BROKEN):
        channel.shutdown_write()
        if status >= 0:
            channel.send_exit_status(status)
        channel.close()


def _copy(source: int, send: object) -> None:
    assert callable(send)
    while data := os.read(source, CHUNK):
        with suppress(*BROKEN):
            send(data)


def _feed(channel: paramiko.Channel, stdin: object) -> None:
    with suppress(*BROKEN, ValueError), stdin as stream:  # type: ignore[attr-defined]
        while data := channel.recv(CHUNK):
            stream.write(data)
            stream.flush()


def _forward(channel: paramiko.Channel, destination: tuple[str, int]) -> None:
    try:
        onward = socket.create_connection(destination, timeout=10)
    except OSError:
        with suppress(*BROKEN):
            channel.close()
        return
    onward.settimeout(None)

    def back() -> None:
        with suppress(*BROKEN):
            while data := onward.recv(CHUNK):
                channel.sendall(data)
            channel.close()

    threading.Thread(target=back, daemon=True).start()
    with suppress(*BROKEN):
        while data := channel.recv(CHUNK):
            onward.sendall(data)
    with suppress(OSError):
        onward.shutdown(socket.SHUT_RDWR)
    onward.close()


def _speak(sock: socket.socket, server: SshServer, ended: threading.Event) -> None:
    transport = paramiko.Transport(sock)
    transport.daemon = True
    transport.add_server_key(server.host_key)
    session = _Session(server)
    try:
        transport.start_server(server=session)
        while transport.is_active() and not ended.is_set():
            channel = transport.accept(0.1)
            if channel and (destination := session.onward.pop(channel.get_id(), None)):
                threading.Thread(target=_forward, args=(channel, destination), daemon=True).start()
    except BROKEN:
        pass  # the client's affair
    finally:
        with suppress(*BROKEN):
            transport.close()


@contextmanager
def serving(server: SshServer) -> Iterator[SshServer]:
    """Serve on a free port of loopback until the block is left."""
    listener = socket.create_server(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                sock, _address = listener.accept()
                thread = threading.Thread(target=_speak, args=(sock, server, ended), daemon=True)
                threads.append(thread)
                thread.start()

    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    try:
        yield server
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(timeout=10)
