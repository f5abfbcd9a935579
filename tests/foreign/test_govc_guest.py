"""govc makes a VM, and what answers behind its address is a real guest."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.simulator.containers import ContainerGuests
from tests.foreign.conftest import Govc
from tests.guests.conftest import ssh, wait_until
from tests.simulator.conftest import Simulator, running

GUEST = ("-vm", "by-govc")


@pytest.fixture(scope="module", name="simulator")
def _simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    folder = tmp_path_factory.mktemp("govc-guest")
    with running(folder / "state", ContainerGuests(folder / "guests")) as simulator:
        yield simulator


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_real_guest_answers(program: Path, simulator: Simulator, tmp_path: Path) -> None:
    govc, key = Govc(program, simulator), tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    user = {"name": "tester", "ssh_authorized_keys": [key.with_suffix(".pub").read_text().strip()]}
    told = {
        "userdata": "#cloud-config\n" + json.dumps({"users": [user]}),
        "metadata": json.dumps({"instance-id": "by-govc", "local-hostname": "by-govc"}),
    }
    pairs = [f"guestinfo.{name}={encode(text)}" for name, text in told.items()]
    pairs += [f"guestinfo.{name}.encoding=base64" for name in told]
    source = ("-vm", "debian-13", "-link", "-snapshot", "labctl-base", "-folder", "labs")
    govc.must("vm.clone", *source, "-on=false", "-m", "1024", GUEST[1])
    govc.must("vm.change", *GUEST, *(word for pair in pairs for word in ("-e", pair)))
    govc.must("vm.network.change", *GUEST, "-net", "switched", "ethernet-0")
    govc.must("vm.power", "-on", GUEST[1])
    address = govc.must("vm.ip", "-wait", "100s", GUEST[1]).strip()
    wait_until(lambda: ssh(key, address, "true").returncode == 0)
    assert ssh(key, address, "hostname").stdout.strip() == GUEST[1]
    govc.must("vm.power", "-s", GUEST[1])
    wait_until(lambda: "poweredOff" in govc.must("vm.info", GUEST[1]))
    assert ssh(key, address, "true").returncode == 255
    govc.must("vm.destroy", GUEST[1])
