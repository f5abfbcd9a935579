"""A third vCenter for the contract of the Hypervisor port: govmomi's simulator, none of ours.

`vcsim/` is its program. What it lacks stands in `lacks.py`.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pyVim.connect import SmartConnect

from provisioner.model.observed import Connection
from tests.contract.hands import StockHand, read
from tests.simulator.conftest import Client

SOURCE = Path(__file__).with_name("vcsim")
USERNAME, PASSWORD = "labctl@vsphere.local", "vcsim-1"
DEADLINE_S = 30.0
PAUSE = threading.Event()


class Vcsim:
    """One running vcsim, and stock clients of it.

    Args:
        process: it, just started.
        settings: the settings that `main.go` describes, without who may log in.
    """

    def __init__(
        self, process: subprocess.Popen[str], settings: Mapping[str, Mapping[str, int]]
    ) -> None:
        self.process, self.password = process, PASSWORD
        ready = self.tell({"Username": USERNAME, "Password": PASSWORD, **settings})
        self.host, self.port = ready["host"], int(ready["port"])
        self.ca_file = ready["ca_file"]
        self._clients: list[Any] = []

    def tell(self, order: Mapping[str, object]) -> Any:
        """Give an order that `main.go` describes, and return the answer: then it holds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin
        assert stdout
        stdin.write(f"{json.dumps(order)}\n")
        stdin.flush()
        return json.loads(stdout.readline())

    def set_faults(self, *rules: Mapping[str, object]) -> None:
        """Let these fault rules hold, and no others.

        What a rule leaves out means every call; its fields are those that `main.go` names.
        """
        every = {"MethodName": "*", "ObjectType": "*", "ObjectName": "*", "Probability": 1}
        self.tell({"Faults": [{**every, "Enabled": True, **rule} for rule in rules]})

    def connect(self, user: str = USERNAME, password: str = PASSWORD) -> Any:
        """Log in as a stock client does."""
        tls = ssl.create_default_context(cafile=self.ca_file)
        made = SmartConnect(host=self.host, port=self.port, user=user, pwd=password, sslContext=tls)
        self._clients.append(made)
        return made

    def close(self) -> None:
        """Close every client's connections."""
        for client in self._clients:
            client._stub.DropConnections()


class VcsimClient(Client):
    """A logged in client. It reads leaf paths of tasks: pyVmomi cannot read the whole here."""

    def __init__(self, vcsim: Any) -> None:
        super().__init__(vcsim)

    def do(self, task: Any) -> Any:
        """Wait for a task, and return its result."""
        end_s = time.monotonic() + DEADLINE_S
        while (state := read(self.content, task, "info.state")) not in {"success", "error"}:
            assert time.monotonic() < end_s, f"{task} is {state} after {DEADLINE_S} s"
            PAUSE.wait(0.02)
        assert state == "success", read(self.content, task, "info.error")
        return read(self.content, task, "info.result")


class OnVcsim(StockHand):
    """A vcsim, and a stock client as the hand."""

    def __init__(self, vcsim: Vcsim) -> None:
        vcenter = {
            "host": vcsim.host,
            "port": vcsim.port,
            "username": USERNAME,
            "ca_file": vcsim.ca_file,
        }
        super().__init__(VcsimClient(vcsim), vcenter)
        self.vcsim = vcsim

    def disable(self, moref: str, *methods: str) -> None:
        self.vcsim.tell({"VM": moref, "DisabledMethod": methods})

    def lose(self, moref: str, connection: Connection) -> None:
        self.vcsim.tell({"VM": moref, "ConnectionState": connection.value})


@contextmanager
def vcsim(program: Path, folder: Path, **settings: Mapping[str, int]) -> Iterator[OnVcsim]:
    """Run a vcsim whose files lie in `folder`, and hold its vCenter.

    Args:
        program: what was built from `SOURCE`.
        folder: an empty folder.
        settings: more of the settings that `main.go` describes, such as `TaskDelays`.
    """
    pipe, env = subprocess.PIPE, {"TMPDIR": str(folder)}
    with (
        subprocess.Popen([program], stdin=pipe, stdout=pipe, env=env, text=True) as process,
        closing(Vcsim(process, settings)) as started,
        closing(OnVcsim(started)) as hand,
    ):
        yield hand
