"""What belongs to the project: its own files, without what tools leave in the folder."""

from __future__ import annotations

import fnmatch
from pathlib import Path

PROJECT = Path(__file__).parents[2]
IGNORED = [
    line.rstrip("/") for line in (PROJECT / ".gitignore").read_text().splitlines() if line
] + [".git"]


def is_ignored(path: Path) -> bool:
    parts = path.relative_to(PROJECT).parts
    return any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in IGNORED)


def list_files(pattern: str = "*") -> list[Path]:
    """List the project's text files whose name fits `pattern`."""
    found = PROJECT.rglob(pattern)
    return sorted(path for path in found if path.is_file() and not is_ignored(path))


def count_lines(path: Path) -> int:
    return len(path.read_text().splitlines())
