"""Processes of a run on this machine, found in /proc by descent or by a mark they carry."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

_PROC = Path("/proc")
_TICK_S = 0.05
_PAUSE = threading.Event()


def list_descendants(pid: int) -> tuple[int, ...]:
    """List the living descendants of `pid`, zombies left out."""
    children: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _read_stat(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            if fields[0] == "Z":
                zombies.add(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return tuple(process for process in found if process not in zombies)


def list_marked(mark: str) -> tuple[int, ...]:
    """List the processes that were started with `mark` (`NAME=value`) in their environment."""
    wanted = mark.encode()
    return tuple(
        int(entry.name)
        for entry in _PROC.iterdir()
        if entry.name.isdigit() and wanted in _read(entry / "environ").split(b"\0")
    )


def read_command(pid: int) -> bytes:
    """Return a process's arguments, joined by NUL; empty when it has ended."""
    return _read(_PROC / str(pid) / "cmdline")


def end_processes(
    list_living: Callable[[], tuple[int, ...]], *, grace_s: float, kill_s: float
) -> tuple[int, ...]:
    """End what `list_living` names: SIGTERM, and SIGKILL after `grace_s`.

    Returns those that still live `kill_s` after that, which root's or uninterruptible ones may.
    """
    for signum, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, kill_s)):
        ends_s = monotonic() + wait_s
        told: set[int] = set()
        while living := list_living():
            for pid in living:
                if signum is signal.SIGKILL or pid not in told:
                    _send(pid, signum)
            told.update(living)
            if monotonic() > ends_s:
                break
            _PAUSE.wait(_TICK_S)
    return list_living()


def send_term(pid: int) -> None:
    """Ask a process to end; one that has ended already is no error."""
    _send(pid, signal.SIGTERM)


def _send(pid: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def _read_stat(entry: Path) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; empty when it has ended."""
    text = _read(entry / "stat").decode(errors="replace")
    return text.rpartition(")")[2].split()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return b""
