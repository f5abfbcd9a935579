"""labctl as a command on a simulated vCenter whose guests need no container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provisioner.credentials import ensure_installation
from provisioner.files.host_settings import HostSettings, build_simulator_site, write_site

PROJECT = Path(__file__).parents[2]
READY_S = 60


@dataclass
class Desk:
    """An installation's state, and the words to run labctl on it."""

    state: Path
    key: Path

    def labctl(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "provisioner.cli.main", *words],
            env={**os.environ, "LABCTL_STATE": str(self.state), **environ},
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def project(self) -> Path:
        return PROJECT

    @property
    def endpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "simulator" / "endpoint.json").read_text())
        return found

    def write_site(self, name: str, **changes: Any) -> None:
        """Write a site file that differs from the simulator's in some keys."""
        site = build_simulator_site(HostSettings(), self.endpoint)
        site["site"] = name
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = site
            for parent in parents:
                place = place[parent]
            place[last] = value
        write_site(self.state / "sites" / f"{name}.yml", site)


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("cli")
    made = Desk(root / "state", root / "ana.pub")
    made.state.mkdir(mode=0o700)
    ensure_installation(made.state)
    made.key.write_text(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMFZiq4b4CFvqu1BGCvhFxE1hKkEOcnPVeYxNB3sXGqB ana\n"
    )
    folder = made.state / "simulator"
    command = [sys.executable, "-m", "provisioner.simulator", "--state", str(folder)]
    process = subprocess.Popen([*command, "--guests", "null"], cwd=PROJECT)
    try:
        deadline_s = time.monotonic() + READY_S
        while not (folder / "endpoint.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline_s
        made.write_site("plant")
        yield made
    finally:
        process.terminate()
        process.wait(timeout=30)
