"""One worker for each state folder, found by anybody, gone with its process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from provisioner.app.worker_process import find_worker, holding_the_lock
from provisioner.errors import BusyError


def test_without_a_worker_none_is_found(tmp_path: Path) -> None:
    assert find_worker(tmp_path / "state") is None
    with holding_the_lock(tmp_path / "state"):
        pass
    assert find_worker(tmp_path / "state") is None
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_second_worker_is_refused(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    assert find_worker(tmp_path / "state") == holder.pid
    with (
        pytest.raises(BusyError, match=rf"runs already \(process {holder.pid}\)"),
        holding_the_lock(tmp_path / "state"),
    ):
        pass
    assert find_worker(tmp_path / "state") == holder.pid, "asking takes nothing from it"


def test_a_killed_worker_leaves_the_lock(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(10)
    assert find_worker(tmp_path / "state") is None
    with holding_the_lock(tmp_path / "state"):
        pass
