"""The worker as a process: its lock, and how a client starts one when none runs."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioner.app.wiring import House
from provisioner.errors import BusyError

IDLE_S = 60.0
_FLOCK = "hhqqi4x"
"""struct flock of Linux on 64 bits: type, whence, start, length, pid."""


@contextmanager
def keeping_workers_out(state: Path) -> Iterator[None]:
    """Be sure that no worker runs meanwhile. Raises BusyError when one does."""
    worker = find_worker(state)
    if worker is not None:
        raise BusyError(
            f"a worker of {state} runs (process {worker})",
            hint="stop it first: systemctl stop labctl-worker; one that a verb started ends by"
            " itself after a minute without work",
        )
    with holding_the_lock(state):
        yield


@contextmanager
def holding_the_lock(state: Path) -> Iterator[None]:
    """Be the one worker of a state folder. Raises BusyError when there is one already.

    A POSIX record lock: the kernel frees it however the process ends, no child inherits it, and
    anybody may ask who holds it without taking it.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _lock_file(state).open("a+") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"a worker of {state} runs already (process {find_worker(state)})",
                hint="leave it running: every verb hands its work to it",
            ) from error
        yield


def find_worker(state: Path) -> int | None:
    """Return the process id of the worker of a state folder, None when none runs."""
    return find_holder(_lock_file(state))


def find_holder(path: Path) -> int | None:
    """Return the id of another process that holds a record lock on a file, if one does.

    SQLite holds one on each database that is open. Never ask of a file that this process has
    locked: to close it again would free the lock.
    """
    try:
        with path.open("r+") as lock:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
    except FileNotFoundError:
        return None
    kind, pid = answer[0], answer[4]
    return None if kind == fcntl.F_UNLCK else int(pid)


def start_worker(house: House) -> int:
    """Start a worker that ends when it is idle, and return its process id. It outlives the verb.

    Passwords that were typed at this terminal go to it through a pipe, and nowhere else.
    """
    words = ["worker", "--idle-s", f"{IDLE_S:g}", "--passwords-from-stdin"]
    environ = {
        **os.environ,  # noqa: TID251 - app may read it
        "LABCTL_STATE": str(house.state),
        "LABCTL_PROJECT": str(house.project),
    }
    log = str(house.state / "worker.log")
    told, telling = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "provisioner.cli.main", *words],
            environ,
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, told, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        os.write(telling, json.dumps(house.list_typed_passwords()).encode())
    finally:
        os.close(told)
        os.close(telling)
    return pid


def find_end(pid: int) -> int | None:
    """Return how a process that this one started has ended, None while it runs.

    That is its exit code, or the negative number of the signal that killed it.
    """
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _lock_file(state: Path) -> Path:
    return state / "worker.lock"
