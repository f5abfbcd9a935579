"""GuestShell on paramiko."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from paramiko import Channel

from provisioner.errors import GuestUnreachableError, HostKeyError, LabctlError
from provisioner.model.observed import ShellResult
from provisioner.ports import ShellTarget
from provisioner.shell.command import open_channel, run_command
from provisioner.shell.connection import (
    Connection,
    close_quietly,
    connect,
    read_jump,
    read_private_key,
    translating,
)
from provisioner.shell.deadline import Deadline

IDLE_S = 10.0
ATTEMPT_S = 15.0
RETRY_S = 0.5


@dataclass(frozen=True)
class _Idle:
    connection: Connection
    timer: threading.Timer


class ParamikoShell:
    """Logs in by key alone (no agent, no password, no key of the user's own).

    A guest's host key is the pinned one, plain; the jump host's is looked up in
    `jump_known_hosts`. A connection that a command ended well on serves the next command to the
    same target; after `idle_s` without one it is closed. Safe to use from several threads.

    Args:
        jump_known_hosts: a file in OpenSSH's known_hosts format.
        jump_key_file: the key to log in to the jump host with; by default the target's own.
        idle_s: how long an unused connection is kept, in seconds.
    """

    def __init__(
        self, *, jump_known_hosts: Path, jump_key_file: Path | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._jump_known_hosts = jump_known_hosts
        self._jump_key_file = jump_key_file
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: dict[ShellTarget, _Idle] = {}
        self._wake = threading.Event()  # never set: its wait is a pause

    def wait_for_login(self, target: ShellTarget, timeout_s: float) -> None:
        """Wait until a login works and a command runs.

        Raises HostKeyError at once when the key is another, GuestUnreachableError with the last
        reason when `timeout_s` ran out.
        """
        deadline = Deadline(timeout_s)
        read_private_key(target.key_file)  # a key that cannot be read is not waited for
        last: LabctlError = GuestUnreachableError(f"guest {target.alias} was not asked")
        while True:
            try:
                attempt_s = deadline.left_s(ATTEMPT_S)
                if self.run(target, "true", timeout_s=attempt_s).exit_status == 0:
                    return
                last = GuestUnreachableError(
                    f"guest {target.alias} runs no command for {target.user} yet"
                )
            except HostKeyError:
                raise
            except LabctlError as error:
                last = error
            except TimeoutError:
                raise GuestUnreachableError(
                    f"no login within {timeout_s:.0f} s: {last.what}", hint=last.hint
                ) from last
            self._wake.wait(RETRY_S)

    def run(
        self, target: ShellTarget, command: str, *, stdin: str = "", timeout_s: float
    ) -> ShellResult:
        """Run `command` with `stdin` and return its result; a non-zero status is no error.

        Of each stream the last 64 KiB are kept, without control characters. `timeout_s` covers
        everything; running out of it raises GuestUnreachableError, and the command is ended on
        the guest a moment later. The status is -1 when a signal ended it.
        """
        deadline = Deadline(timeout_s)
        who = f"guest {target.alias} at {target.address}"
        connection, channel = self._open(target, deadline)
        ended_well = False
        try:
            with translating(who), deadline.watching(connection.close):
                result = run_command(channel, command, stdin, deadline)
            ended_well = True
        except LabctlError as error:
            if not deadline.is_over():
                raise
            raise GuestUnreachableError(
                f"{who} did not end a command within {timeout_s:.0f} s: what it did is unknown",
                hint="it is ended there by now: look at the guest's load, then try again",
            ) from error
        finally:
            close_quietly(channel)
            self._keep(target, connection) if ended_well else connection.close()
        return result

    def close(self) -> None:
        """Close every unused connection. Never raises."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for entry in idle.values():
            entry.timer.cancel()
            entry.connection.close()

    def _open(self, target: ShellTarget, deadline: Deadline) -> tuple[Connection, Channel]:
        """Return a channel on a kept connection, or on a new one when that has died."""
        who = f"guest {target.alias} at {target.address}"
        if kept := self._take(target):
            try:
                with translating(who), deadline.watching(kept.close):
                    return kept, open_channel(kept.transport, deadline)
            except LabctlError:
                kept.close()  # nothing was sent: a new connection may serve
        key = read_private_key(target.key_file)
        jump = read_jump(target.jump, self._jump_known_hosts) if target.jump else None
        jump_key = read_private_key(str(self._jump_key_file)) if self._jump_key_file else key
        fresh = connect(target, key, jump, jump_key, deadline)
        try:
            with translating(who), deadline.watching(fresh.close):
                return fresh, open_channel(fresh.transport, deadline)
        except BaseException:
            fresh.close()
            raise

    def _take(self, target: ShellTarget) -> Connection | None:
        with self._lock:
            entry = self._idle.pop(target, None)
        if entry is None:
            return None
        entry.timer.cancel()
        return entry.connection

    def _keep(self, target: ShellTarget, connection: Connection) -> None:
        timer = threading.Timer(self._idle_s, self._drop, (target, connection))
        timer.daemon = True
        with self._lock:
            if room := target not in self._idle and connection.transport.is_active():
                self._idle[target] = _Idle(connection, timer)
                timer.start()
        if not room:
            connection.close()

    def _drop(self, target: ShellTarget, connection: Connection) -> None:
        with self._lock:
            entry = self._idle.get(target)
            if entry is None or entry.connection is not connection:
                return  # in use again
            del self._idle[target]
        connection.close()
