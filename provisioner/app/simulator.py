"""Starting and stopping the simulator: a vCenter with real Linux guests on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioner.app.wiring import House
from provisioner.credentials import ensure_installation
from provisioner.errors import SimulatorError
from provisioner.files.host_settings import (
    build_simulator_site,
    read_host_settings,
    write_site,
)
from provisioner.model.lab import Lab

SITE = "sim"
# The first start builds the guests' image: about a minute, more on a slow line.
START_S = 900.0
STOP_S = 120.0
POLL_S = 0.1


@dataclass(frozen=True)
class SimulatorStatus:
    """Where the simulator listens; `pid` is 0 when none runs."""

    pid: int
    url: str
    site_file: str
    log_file: str


class Simulator:
    """The one simulator of this state folder, as a process of its own."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.folder = house.state / "simulator"
        self.endpoint_file = self.folder / "endpoint.json"
        self.log_file = self.folder / "simulator.log"
        self.site_file = house.state / "sites" / f"{SITE}.yml"

    def get_status(self) -> SimulatorStatus:
        """Say whether it runs, and where."""
        endpoint = self._read_endpoint()
        pid = int(endpoint.get("pid", 0))
        alive = pid > 0 and _is_alive(pid)
        return SimulatorStatus(
            pid=pid if alive else 0,
            url=str(endpoint.get("url", "")) if alive else "",
            site_file=str(self.site_file),
            log_file=str(self.log_file),
        )

    def list_labs(self) -> tuple[Lab, ...]:
        """List the living labs that stand on it."""
        return tuple(lab for lab in self.house.store.list_labs() if lab.site == SITE)

    def up(self, on_line: Callable[[str], None]) -> tuple[SimulatorStatus, bool]:
        """Start it when it does not run, write its site file, and say whether it was started.

        Raises SimulatorError with the simulator's own last words when it cannot start.
        """
        ensure_installation(self.house.state)
        status = self.get_status()
        if started := not status.pid:
            self._start(on_line)
            status = self.get_status()
        settings = read_host_settings(os.environ)  # noqa: TID251 - app may read the environment
        write_site(self.site_file, build_simulator_site(settings, self._read_endpoint()))
        return status, started

    def down(self) -> bool:
        """Stop it and everything it made; False when none ran. Raises SimulatorError."""
        status = self.get_status()
        self.site_file.unlink(missing_ok=True)
        if not status.pid:
            return False
        os.kill(status.pid, signal.SIGTERM)
        self._wait(lambda: not _is_alive(status.pid), STOP_S, "does not stop")
        return True

    def _start(self, on_line: Callable[[str], None]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.endpoint_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "provisioner.simulator"]
        with self.log_file.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--state", str(self.folder), "--guests", "containers"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.house.project,
            )
        told = 0

        def is_ready() -> bool:
            nonlocal told
            lines = self.log_file.read_text(errors="replace").splitlines()
            for line in lines[told:]:
                on_line(line)
            told = len(lines)
            if process.poll() is not None:
                last = lines[-1] if lines else f"exit status {process.returncode}"
                raise SimulatorError(
                    f"the simulator did not start: {last}", hint=f"its log is {self.log_file}"
                )
            return self.endpoint_file.exists()

        self._wait(is_ready, START_S, "does not become ready")

    def _wait(self, is_done: Callable[[], bool], timeout_s: float, failing: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            if time.monotonic() > deadline_s:
                raise SimulatorError(
                    f"the simulator {failing} within {timeout_s:.0f} s",
                    hint=f"its log is {self.log_file}",
                )
            time.sleep(POLL_S)  # noqa: TID251 - polling another process under a deadline

    def _read_endpoint(self) -> dict[str, Any]:
        try:
            endpoint: dict[str, Any] = json.loads(self.endpoint_file.read_text())
        except (OSError, ValueError):
            return {}
        return endpoint


def _is_alive(pid: int) -> bool:
    """Tell whether the process runs; a zombie of ours is reaped and counts as ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return b"provisioner.simulator" in Path(f"/proc/{pid}/cmdline").read_bytes()
