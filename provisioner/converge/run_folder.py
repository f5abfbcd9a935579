"""The private folder of one Ansible run: locked while it is used, gone afterwards."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic

from provisioner.converge.processes import end_processes, list_marked
from provisioner.errors import BusyError, ConvergeError, StoppedError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of ours with mode 0700 and a checked owner
BUSY_S = 60.0
ORPHAN_S = 20.0
"""How long a run whose labctl was killed may take to end by itself."""
MARK = "ANSIBLE_HOME"
_GRACE_S = 2.0
_KILL_S = 5.0
_TICK_S = 0.2
_PAUSE = threading.Event()


@dataclass(frozen=True)
class RunFolder:
    """A folder of mode 0700 that only this run uses; `lock` is its locked file descriptor.

    A child that inherits `lock` keeps the folder locked even when we are killed, so the next run
    of the same lab waits until that child has ended.
    """

    path: Path
    lock: int


class RunFolders:
    """Makes run folders in memory where that is possible, else below `run_root`.

    Args:
        run_root: the folder on disk; it also tells our folders in memory from others'.
        shared_memory: a tmpfs that every user may write to, or None for the disk alone.
    """

    def __init__(self, run_root: Path, shared_memory: Path | None = SHARED_MEMORY) -> None:
        self._bases = tuple(base for base in (shared_memory, run_root.absolute()) if base)
        self._on_disk = run_root.absolute()
        self._prefix = f"labctl-{_digest(str(run_root.absolute()), 8)}-"

    @contextmanager
    def taking(self, lab_id: str, is_cancelled: Callable[[], bool]) -> Iterator[RunFolder]:
        """Take the folder of a lab's run, empty, and remove it at the end.

        Raises BusyError when another run of the lab does not end within a minute, StoppedError
        when `is_cancelled` turned true while waiting for it.
        """
        folder = self._take(lab_id, is_cancelled)
        try:
            _clear(folder.path)
            yield folder
        finally:
            try:
                _remove(folder.path)
            finally:
                os.close(folder.lock)

    def sweep(self) -> None:
        """Remove what killed runs left: their processes, then their folders.

        What cannot be removed stays for the next run of its own lab, which says so.
        """
        for base in self._bases:
            for path in base.glob(f"{self._prefix}*"):
                if folder := _lock(path):
                    with suppress(ConvergeError):
                        _clear(path)
                        _remove(path)
                    os.close(folder.lock)

    def _take(self, lab_id: str, is_cancelled: Callable[[], bool]) -> RunFolder:
        name = f"{self._prefix}{_digest(lab_id, 12)}"
        began_s = monotonic()
        while (waited_s := monotonic() - began_s) < BUSY_S:
            for path in self._list_usable(name):
                if folder := _lock(path):
                    return folder
                if waited_s > ORPHAN_S and _is_orphaned(path):
                    _end_marked(path, grace_s=0.0)
                break  # in use
            if is_cancelled():
                raise StoppedError(f"the Ansible run of lab {lab_id} was stopped before it began")
            _PAUSE.wait(_TICK_S)
        raise BusyError(
            f"another Ansible run of lab {lab_id} is under way",
            hint="wait for its end, or stop it",
        )

    def _list_usable(self, name: str) -> Iterator[Path]:
        """Make the folder in each base that allows it; the disk is the last, and must."""
        for base in self._bases:
            may_fail = suppress(ConvergeError) if base != self._on_disk else nullcontext()
            with may_fail, translated(f"make a run folder in {base}"):
                if base == self._on_disk:
                    base.mkdir(mode=0o700, parents=True, exist_ok=True)
                (base / name).mkdir(mode=0o700, exist_ok=True)
                if _is_private(base / name):
                    yield base / name


def _is_private(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return True  # removed by its user just now: locking it fails, and is tried again
    ours = status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode)
    return ours and stat.S_IMODE(status.st_mode) == stat.S_IRWXU


def _lock(path: Path) -> RunFolder | None:
    """Lock a folder; None when another process holds it, or it went or changed meanwhile."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_private(path) and path.lstat().st_ino == os.fstat(lock).st_ino:
            return RunFolder(path, lock)
    except OSError:
        pass
    os.close(lock)
    return None


def _is_orphaned(path: Path) -> bool:
    """Tell whether the labctl that used the folder is dead; its job still holds the lock."""
    try:
        parent = int(json.loads((path / "order.json").read_text())["parent"])
    except (OSError, ValueError, KeyError):
        return False
    return not Path("/proc", str(parent)).exists()


def _end_marked(path: Path, grace_s: float = _GRACE_S) -> tuple[int, ...]:
    mark = f"{MARK}={path}"
    return end_processes(lambda: list_marked(mark), grace_s=grace_s, kill_s=_KILL_S)


def _clear(path: Path) -> None:
    """End what a killed run left running, and empty its folder."""
    if left := _end_marked(path):
        raise ConvergeError(
            f"processes of an earlier Ansible run do not end: {', '.join(map(str, left))}",
            hint="end them, then try again",
        )
    with translated(f"empty {path}"):
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _remove(path: Path) -> None:
    with translated(f"remove {path}"), suppress(FileNotFoundError):
        shutil.rmtree(path)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn every OSError into a ConvergeError that says what could not be done."""
    try:
        yield
    except OSError as error:
        raise ConvergeError(
            f"cannot {doing}: {error.strerror or error}",
            hint="look at the rights and the free space there, and in labctl's state folder",
        ) from error


def _digest(text: str, length: int) -> str:
    return sha256(text.encode()).hexdigest()[:length]
