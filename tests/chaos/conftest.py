"""The files that verbs read, and another process that holds the worker's lock for the service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import HOLDER
from tests.chaos.house import write_project


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("chaos")
    write_project(made / "project")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(made / "state")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield made
        process.kill()
