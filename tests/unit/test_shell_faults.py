"""The table of SSH faults is complete: every class that paramiko raises has a row of its own."""

from __future__ import annotations

import builtins
import inspect
import socket

import paramiko
import pytest
from paramiko import ssh_exception

from provisioner.errors import GuestUnreachableError, HostKeyError, LabctlError, ShellError
from provisioner.shell.faults import FAULTS, translate

KEY = paramiko.ECDSAKey.generate(bits=256)
PARAMIKO = [
    kind
    for _name, kind in inspect.getmembers(ssh_exception, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == ssh_exception.__name__
]
OS_ERRORS = [
    kind
    for kind in (*vars(builtins).values(), socket.gaierror, socket.herror)
    if inspect.isclass(kind) and issubclass(kind, OSError)
]


@pytest.mark.parametrize("kind", PARAMIKO)
def test_every_exception_of_paramiko_has_a_row(kind: type[Exception]) -> None:
    assert kind in FAULTS


def test_the_list_is_paramikos_own() -> None:
    assert ssh_exception.BadHostKeyException in PARAMIKO
    assert len(PARAMIKO) >= 13


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ssh_exception.BadHostKeyException("h", KEY, KEY), HostKeyError, "another host key"),
        (ssh_exception.AuthenticationException("no"), ShellError, "refuses the login (no)"),
        (ssh_exception.BadAuthenticationType("no", ["password"]), ShellError, "refuses the login"),
        (ssh_exception.PartialAuthentication(["password"]), ShellError, "more than a key"),
        (ssh_exception.PasswordRequiredException("x"), ShellError, "passphrase"),
        (ssh_exception.ChannelException(1, "no"), GuestUnreachableError, "refuses a channel"),
        (ssh_exception.IncompatiblePeer("kex"), ShellError, "cannot follow (kex)"),
        (ssh_exception.SSHException("banner"), GuestUnreachableError, "(banner)"),
        (EOFError(), GuestUnreachableError, "ended the connection"),
        (TimeoutError(), GuestUnreachableError, "does not answer in time"),
        (TimeoutError(110, "Connection timed out"), GuestUnreachableError, "in time"),
        (ConnectionRefusedError(111, "Connection refused"), GuestUnreachableError, "refused"),
        (ConnectionResetError(104, "reset"), GuestUnreachableError, "ended the connection (reset)"),
        (BrokenPipeError(32, "Broken pipe"), GuestUnreachableError, "ended the connection"),
        (OSError(113, "No route to host"), GuestUnreachableError, "No route to host"),
        (socket.gaierror(-2, "Name unknown"), GuestUnreachableError, "does not resolve"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ShellError, "cannot follow"),
        (IndexError(), ShellError, "cannot follow (IndexError)"),
    ],
)
def test_cases(error: Exception, kind: type[LabctlError], text: str) -> None:
    translated = translate(error, "guest ana")
    assert type(translated) is kind
    assert translated.what.startswith("guest ana ")
    assert text in translated.what
    assert translated.hint


@pytest.mark.parametrize("kind", OS_ERRORS)
def test_every_kind_of_os_error_is_worth_another_try(kind: type[OSError]) -> None:
    translated = translate(kind(5, "Input/output error"), "guest")
    assert isinstance(translated, GuestUnreachableError)
    assert translated.retryable


def test_the_peers_words_are_made_harmless() -> None:
    error = ssh_exception.SSHException("\x1b[2J" + "x" * 5000)
    assert "\x1b" not in translate(error, "guest").what
    assert len(translate(error, "guest").what) < 300
