"""A process that holds the worker's lock, and an installation on a simulated vCenter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.office import Office, opening_office

HOLDER = """
import sys
from pathlib import Path
from provisioner.app.worker_process import holding_the_lock
with holding_the_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with opening_office(tmp_path) as made:
        yield made
