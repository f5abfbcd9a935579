"""A simulator for each test, a stock client of it, and ways to lose what it answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from provisioner.ports import CloneOrder
from provisioner.simulator.server import SoapHandler
from provisioner.vsphere import VsphereHypervisor
from tests.contract import guests
from tests.contract.guests import OURS
from tests.contract.vcenters import Simulated, simulated


@pytest.fixture
def vcenter(tmp_path: Path) -> Iterator[Simulated]:
    with simulated(tmp_path) as hand:
        yield hand


@pytest.fixture
def hypervisor(vcenter: Simulated) -> VsphereHypervisor:
    return vcenter.connect(OURS)


@pytest.fixture
def count(vcenter: Simulated) -> Callable[[], dict[str, int]]:
    """Count the requests since the last call, by method."""
    seen: dict[str, int] = {}

    def count() -> dict[str, int]:
        world = vcenter.client.simulator.world
        with world.changed:
            now = dict(world.requests)
        fresh = {name: number - seen.get(name, 0) for name, number in now.items()}
        seen.update(now)
        return {name: number for name, number in fresh.items() if number}

    return count


@dataclass
class Meddler:
    """What happens to the next call of a method: each is done once, then forgotten."""

    lost: set[str] = field(default_factory=set)
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    rewritten: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def lose(self, method: str) -> None:
        """Lose the answer: the work is done, the connection ends without a word."""
        self.lost.add(method)

    def do_before(self, method: str, act: Callable[[], object]) -> None:
        """Let something else happen just before the call is worked on."""
        self.before[method] = act

    def rewrite(self, method: str, old: bytes, new: bytes) -> None:
        """Change the answer; the call counts once it holds `old`."""
        self.rewritten[method] = (old, new)


@pytest.fixture
def meddler(vcenter: Simulated) -> Meddler:
    meddler = Meddler()

    class Handler(SoapHandler):
        method = ""

        def _soap(self, body: bytes) -> None:
            found = re.search(rb"<soapenv:Body>\s*<(\w+)", body)
            self.method = found[1].decode() if found else ""
            meddler.before.pop(self.method, lambda: None)()
            super()._soap(body)

        def _send(self, status: int, body: bytes, kind: str, cookie: str | None = None) -> None:
            if self.method in meddler.lost:
                meddler.lost.remove(self.method)
                self.close_connection = True
                return
            old, new = meddler.rewritten.get(self.method, (b"", b""))
            if old and old in body:
                del meddler.rewritten[self.method]
                body = body.replace(old, new)
            super()._send(status, body, kind, cookie)

    vcenter.client.simulator.server.RequestHandlerClass = Handler
    return meddler


def make_order(hypervisor: VsphereHypervisor, lab: str = "ana-mlops", **changes: Any) -> CloneOrder:
    small: dict[str, Any] = {
        "cpus": 2,
        "memory_mib": 4096,
        "datastore": "datastore-0",
        "guestinfo": (("guestinfo.userdata", "I2Nsb3Vk"),),
    }
    return guests.make_order(hypervisor, guests.make_identity(lab=lab), **(small | changes))
