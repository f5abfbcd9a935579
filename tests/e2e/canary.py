"""A scan for secrets: of every process' argv and environ while something runs, and of files."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from typing import Self

PAUSE_S = 0.01
# A process' argv and environment change when it starts another program, not later.
READS = 4


class ProcessScan:
    """Reads argv and environ of all processes again and again until it is left."""

    def __init__(self, secrets: dict[str, bytes]) -> None:
        self.secrets = secrets
        self.hits: set[str] = set()
        self.processes_read = 0
        self._reads: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._ended.wait(PAUSE_S):
            alive = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - quick
            self._reads = {name: self._reads.get(name, 0) + 1 for name in alive}
            for name, reads in self._reads.items():
                if reads <= READS:
                    self._read(Path("/proc", name))

    def _read(self, process: Path) -> None:
        for part in ("cmdline", "environ"):
            try:
                text = (process / part).read_bytes()
            except OSError:
                continue  # ended meanwhile
            self.processes_read += 1
            for name, secret in self.secrets.items():
                if secret in text:
                    self.hits.add(f"{name} in {part} of {text[:80]!r}")


def find_in_files(root: Path, secrets: dict[str, bytes], homes: set[Path]) -> list[str]:
    """Return every file below `root`, outside the secrets' homes, that holds one of them."""
    hits = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path not in homes:
            text = path.read_bytes()
            hits += [f"{name} in {path}" for name, secret in spell(secrets) if secret in text]
    return hits


def spell(secrets: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Spell each secret the ways it could be written: plain, hexadecimal, base64."""
    spelled = []
    for name, secret in secrets.items():
        spelled.append((name, secret))
        spelled.append((f"{name} (hex)", secret.hex().encode()))
        spelled.append((f"{name} (base64)", base64.b64encode(secret).rstrip(b"=")[:-1]))
    return spelled
