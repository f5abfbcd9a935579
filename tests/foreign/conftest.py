"""Other people's clients, and the simulators that they talk to."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner.simulator.state_dir import USERNAME
from tests.ground.golang import build_program
from tests.simulator.conftest import Client, Simulator, running

DEADLINE_S = 120
FAULT = re.compile(r"Fault: +&?types\.(\w+)\{")


class Govc:
    """govc as a person calls it, told by its environment where to log in."""

    def __init__(self, program: Path, simulator: Simulator) -> None:
        self._program = program
        self._environ = {
            "PATH": os.environ["PATH"],
            "GOVC_URL": f"https://{simulator.host}:{simulator.port}/sdk",
            "GOVC_USERNAME": USERNAME,
            "GOVC_PASSWORD": simulator.password,
            "GOVC_TLS_CA_CERTS": str(simulator.ca_file),
            "GOVC_PERSIST_SESSION": "false",
            "GOVC_DATASTORE": "datastore-0",
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *words],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def must(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def ask(self, command: str, *words: str) -> Any:
        """Run a command that prints JSON."""
        return json.loads(self.must(command, "-json", *words))

    def fault(self, command: str, *words: str) -> str:
        """Return the name of the fault that a command ends with: the type of govc's own library."""
        done = self.run(command, "-dump", *words)
        assert done.returncode == 1, (words, done.stdout)
        found = FAULT.search(done.stderr)
        assert found, done.stderr
        return found[1]


@pytest.fixture(scope="session", name="program")
def _program() -> Path:
    return build_program(Path(__file__).with_name("govc"))


@pytest.fixture(scope="module", name="client")
def _client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A plain client of a simulator whose guests are no machines."""
    with running(tmp_path_factory.mktemp("foreign") / "state") as simulator:
        yield Client(simulator)


@pytest.fixture(scope="module", name="govc")
def _govc(program: Path, client: Client) -> Govc:
    return Govc(program, client.simulator)
