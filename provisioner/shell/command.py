"""Running one command on an open connection: standard input fed, output capped and cleaned."""

from __future__ import annotations

import math
import select
import shlex
from time import monotonic

from paramiko import Channel, Transport

from provisioner.model.observed import ShellResult
from provisioner.rules.plain_text import build_plain_text
from provisioner.shell.deadline import Deadline

OUTPUT_BYTES = 64 * 1024
CHANNEL_S = 20.0
# How long to wait for the last output of a command that has ended but left something running.
LINGER_S = 2.0
_CHUNK_BYTES = 32 * 1024
_TICK_S = 0.5
_FEED_TICK_S = 0.02
_KILL_AFTER_S = 5


class _Tail:
    """The last `OUTPUT_BYTES` of a stream: what a command said last matters most."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        self._kept += data
        if (over := len(self._kept) - OUTPUT_BYTES) > 0:
            del self._kept[:over]
            self._left_out += over

    def build_text(self) -> str:
        text = build_plain_text(self._kept.decode(errors="replace"))
        return f"[{self._left_out} bytes left out]\n{text}" if self._left_out else text


def open_channel(transport: Transport, deadline: Deadline) -> Channel:
    """Open a session channel; nothing has run on the guest yet when this raises."""
    return transport.open_session(timeout=deadline.left_s(CHANNEL_S))


def run_command(channel: Channel, command: str, stdin: str, deadline: Deadline) -> ShellResult:
    """Run `command` and return its result; the status is -1 when a signal ended it.

    coreutils' `timeout` ends it on the guest a moment after the deadline: nothing goes on there
    unseen, even when the connection breaks or labctl is killed. Raises TimeoutError at the
    deadline, ConnectionResetError when the connection broke: in both cases what the command did is
    unknown.
    """
    limit_s = math.ceil(deadline.left_s()) + 1
    guarded = f"timeout --kill-after={_KILL_AFTER_S} {limit_s} sh -c {shlex.quote(command)}"
    channel.exec_command(guarded.encode())
    out, err = _Tail(), _Tail()
    _pump(channel, stdin.encode(), out, err, deadline)
    if not channel.status_event.wait(deadline.left_s()):
        raise TimeoutError
    if channel.exit_status == -1 and not channel.get_transport().is_active():
        raise ConnectionResetError("the connection broke while a command ran")
    return ShellResult(channel.exit_status, out.build_text(), err.build_text())


def _pump(channel: Channel, stdin: bytes, out: _Tail, err: _Tail, deadline: Deadline) -> None:
    """Move data both ways until the command's output has ended."""
    pending: bytes | None = stdin
    linger_ends_s = math.inf
    while not _has_ended(channel):
        left_s = deadline.left_s()
        pending = _feed(channel, pending)
        if channel.recv_ready():
            out.add(channel.recv(_CHUNK_BYTES))
        elif channel.recv_stderr_ready():
            err.add(channel.recv_stderr(_CHUNK_BYTES))
        elif channel.exit_status_ready() and linger_ends_s == math.inf:
            linger_ends_s = monotonic() + LINGER_S
        elif monotonic() > linger_ends_s:
            return
        else:
            tick_s = _TICK_S if pending is None else _FEED_TICK_S
            select.select([channel], [], [], min(left_s, tick_s))


def _has_ended(channel: Channel) -> bool:
    ended = bool(channel.eof_received or channel.closed)
    return ended and not (channel.recv_ready() or channel.recv_stderr_ready())


def _feed(channel: Channel, pending: bytes | None) -> bytes | None:
    """Send what the channel takes now; return the rest, None once standard input is closed."""
    if pending is None or (pending and not channel.send_ready()):
        return pending
    try:
        pending = pending[channel.send(pending[:_CHUNK_BYTES]) :] if pending else pending
        if pending:
            return pending
        channel.shutdown_write()
    except OSError:  # the command ended without reading all of it
        pass
    return None
