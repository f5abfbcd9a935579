"""The Go programs of the tests: other people's vSphere, built from their module by hash."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def find_go() -> str:
    """Return the Go tool of the machine, or else the one among the packages of development."""
    return shutil.which("go") or str(Path(sys.executable).with_name("go"))


def build_program(folder: Path) -> Path:
    """Build the main package in a folder; free when nothing changed, as Go caches its work.

    Raises subprocess.CalledProcessError: Go's own words are in the test's output.
    """
    program = PROJECT / "build" / folder.name
    program.parent.mkdir(exist_ok=True)
    command = [find_go(), "build", "-trimpath", "-buildvcs=false", "-o", str(program), "."]
    with program.with_suffix(".lock").open("w") as lock:
        # Another process of the suite may build it now, or run it as soon as it is there.
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(command, cwd=folder, check=True)
    return program
