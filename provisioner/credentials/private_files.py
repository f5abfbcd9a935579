"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provisioner.errors import CredentialError

FILE_MODE = 0o600
FOLDER_MODE = 0o700


@contextmanager
def translated(doing: str, path: Path) -> Iterator[None]:
    """Turn every OSError into a CredentialError that names `path`."""
    try:
        yield
    except OSError as error:
        raise CredentialError(
            f"cannot {doing} {path}: {error.strerror or error}",
            hint="look at the rights and the free space of labctl's state folder",
        ) from error


def ensure_private_folder(path: Path) -> None:
    """Make a folder of mode 0700; one that is there gets this mode."""
    with translated("make the folder", path):
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) != FOLDER_MODE:
            path.chmod(FOLDER_MODE)
        sync_folder(path.parent)


def add_private_file(path: Path, data: bytes) -> bool:
    """Write a new file of mode 0600, durable when this returns.

    It appears under its name whole, or not at all. Returns False, and leaves it alone, when the
    name is taken already: of two writers at once the first one wins.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with translated("write", path):
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE)
        try:
            with os.fdopen(file, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                return False
        finally:
            draft.unlink()
        sync_folder(path.parent)
    return True


def read_private_file(path: Path) -> bytes | None:
    """Read a file, or return None when there is none.

    Raises CredentialError when others could read or change it, or it is no plain file.
    """
    with translated("read", path):
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        with os.fdopen(file, "rb") as stream:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise CredentialError(f"{path} is no plain file", hint="move it away")
            if stat.S_IMODE(status.st_mode) & ~FILE_MODE:
                raise CredentialError(
                    f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
                    hint=f"find out who could read it, then: chmod 600 {path}",
                )
            return stream.read()


def sync_folder(path: Path) -> None:
    """Make what happened to a folder's names durable."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
