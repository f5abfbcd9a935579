"""Real guests for these tests: one shared runtime, and what a test does with a guest."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import shlex
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import docker
import pytest

from provisioner.simulator.containers import ContainerGuests
from provisioner.simulator.guests import GuestHardware, GuestState, NicHardware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
_PAUSE = threading.Event()
_NUMBERS = itertools.count(1)


def wait_until(check: Callable[[], T], deadline_s: float = 60) -> T:
    """Return what the check returns as soon as it is true."""
    end_s = time.monotonic() + deadline_s
    while not (found := check()):
        assert time.monotonic() < end_s, f"still not so after {deadline_s} s"
        _PAUSE.wait(0.1)
    return found


def ssh(key: Path, address: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the user that these tests give to guests."""
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    return subprocess.run(
        [
            *("ssh", "-F", "none", "-i", str(key), "-o", "BatchMode=yes"),
            *("-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=5"),
            *(word for option in options for word in ("-o", option)),
            *(f"tester@{address}", command),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


@dataclass
class Guest:
    """A VM as the SOAP side would see it: hardware, guestinfo, and what its Tools reported."""

    runtime: ContainerGuests
    hardware: GuestHardware
    key: Path
    info: dict[str, str] = field(default_factory=dict)
    states: list[GuestState] = field(default_factory=list)

    def info_get(self, key: str) -> str | None:
        return self.info.get(key)

    def info_set(self, key: str, value: str) -> None:
        self.info[key] = value

    def guest_state(self, state: GuestState) -> None:
        self.states.append(state)

    def power_on(self) -> Guest:
        """Power on and wait for the address and the end of cloud-init."""
        self.states.clear()
        self.runtime.power_on(self.hardware, self)
        wait_until(self.address)
        wait_until(lambda: self.ssh("true").returncode == 0)
        self.run("sudo cloud-init status --wait")
        return self

    def address(self, nic: int = 0) -> str:
        """The reported IPv4 address of one of the VM's NICs, found by MAC as labctl does it."""
        mac = self.hardware.nics[nic].mac
        nics = self.states[-1].nics if self.states else ()
        found = [a for n in nics if n.mac == mac for a in n.addresses if "." in a]
        return found[0].split("/")[0] if found else ""

    def ssh(
        self, command: str, key: Path | None = None, nic: int = 0
    ) -> subprocess.CompletedProcess[str]:
        return ssh(key or self.key, self.address(nic), command)

    def run(self, command: str) -> str:
        """Run a shell command that must succeed; return what it printed."""
        done = self.ssh(command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def run_as_root(self, script: str) -> str:
        """Run a script that must succeed as root."""
        return self.run(f"sudo sh -ec {shlex.quote(script)}")


@dataclass
class Bench:
    """One runtime, and guests made from its template."""

    runtime: ContainerGuests
    state_dir: Path
    key: Path
    client: docker.DockerClient

    def clone(
        self, source: str = "", portgroups: tuple[str, ...] = ("lab",), memory_mib: int = 1024
    ) -> Guest:
        number = next(_NUMBERS)
        name = f"guest-{number}"
        public = self.key.with_suffix(".pub").read_text(encoding="utf-8").strip()
        user = {"name": "tester", "sudo": "ALL=(ALL) NOPASSWD:ALL", "shell": "/bin/bash"}
        userdata = "#cloud-config\n" + json.dumps(
            {"users": [user | {"ssh_authorized_keys": [public]}]}
        )
        metadata = json.dumps({"instance-id": f"iid-{number}", "local-hostname": name})
        info = {
            "guestinfo.metadata": base64.b64encode(metadata.encode()).decode(),
            "guestinfo.metadata.encoding": "base64",
            "guestinfo.userdata": base64.b64encode(gzip.compress(userdata.encode())).decode(),
            "guestinfo.userdata.encoding": "gzip+base64",
        }
        vm_id = f"vm-{number}"
        disk = self.runtime.clone_disk(source or self.runtime.ensure_template("debian-13"), vm_id)
        nics = tuple(
            NicHardware(f"00:50:56:{number:02x}:00:{index:02x}", portgroup)
            for index, portgroup in enumerate(portgroups)
        )
        hardware = GuestHardware(
            vm_id, name, f"i-{number}", f"b-{number}", 2, memory_mib, disk, nics
        )
        return Guest(self.runtime, hardware, self.key, info)

    def remains(self, vm_id: str = "") -> list[str]:
        """List the names of everything of this runtime (or of one VM of it) in the engine."""
        prefix = self.runtime._engine.prefix + (f"-{vm_id}" if vm_id else "")
        names = [c.name for c in self.client.containers.list(all=True)]
        names += [v.name for v in self.client.volumes.list()]
        names += [] if vm_id else [n.name for n in self.client.networks.list()]
        names += [] if vm_id else [t for i in self.client.images.list(all=True) for t in i.tags]
        return [name for name in names if name and name.startswith(prefix)]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("guests")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    runtime = ContainerGuests(folder / "state")
    client = docker.from_env()
    bench = Bench(runtime, folder / "state", key, client)
    try:
        runtime.ensure_network("lab", uplink=True)
        runtime.ensure_network("sealed", uplink=False)
        yield bench
    finally:
        runtime.close()
        assert bench.remains() == []
        client.close()


@pytest.fixture(scope="module")
def guest(bench: Bench) -> Iterator[Guest]:
    """A running guest for tests that leave it as it was."""
    made = bench.clone().power_on()
    yield made
    bench.runtime.destroy(made.hardware.vm_id)


@pytest.fixture
def fresh(bench: Bench) -> Iterator[Guest]:
    """A running guest of one test's own."""
    made = bench.clone().power_on()
    yield made
    bench.runtime.destroy(made.hardware.vm_id)


def with_hardware(guest: Guest, **changes: object) -> Guest:
    """Change the guest's hardware as a reconfiguration of the powered-off VM would."""
    guest.hardware = replace(guest.hardware, **changes)  # type: ignore[arg-type] # checked at run time
    return guest
