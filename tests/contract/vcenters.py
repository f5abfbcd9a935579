"""Two vCenters for the contract of the Hypervisor port, and what a hand at their console does.

The hand is a stock pyVmomi client of the simulator, or reaches into the memory of the fake: what
proves that something is there, left or untouched never asks the code under test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from provisioner.model.observed import Connection, PowerState
from provisioner.ports import Hypervisor
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY, Installation
from provisioner.simulator.control import control
from provisioner.vsphere.session import Limits
from tests.contract.hands import PLACE, RealClock, StockHand
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.samples import make_site
from tests.fakes.vcenter import FakeVcenter
from tests.simulator.conftest import Client, running


class Vcenter(Protocol):
    """A vCenter with a hand at its console."""

    def connect(self, installation: Installation, **site: object) -> Hypervisor: ...
    def connect_within(
        self, limits: Limits | None, installation: Installation, **site: object
    ) -> Hypervisor: ...
    def list_names(self) -> set[str]: ...
    def list_files(self) -> set[str]: ...
    def is_on(self, moref: str) -> bool: ...
    def get_options(self, moref: str) -> dict[str, str]: ...
    def plant(self, name: str) -> str: ...
    def copy(self, moref: str, name: str) -> str: ...
    def set_option(self, moref: str, key: str, value: str) -> None: ...
    def attach_disk(self, moref: str) -> str: ...
    def detach_disk(self, moref: str, path: str) -> None: ...
    def snapshot(self, moref: str, name: str) -> None: ...
    def remove(self, moref: str) -> None: ...
    def unregister(self, moref: str) -> None: ...
    def rename(self, moref: str, name: str) -> None: ...
    def suspend(self, moref: str) -> None: ...
    def move(self, moref: str, folder: str) -> None: ...
    def disable(self, moref: str, *methods: str) -> None: ...
    def lose(self, moref: str, connection: Connection) -> None: ...
    def change_template(self) -> None: ...


class Simulated(StockHand):
    """A simulator, and a stock client as the hand."""

    def __init__(self, state: Path, client: Client) -> None:
        simulator = client.simulator
        self.ca_file = state / "certificate.pem"
        vcenter = {
            "host": simulator.host,
            "port": simulator.port,
            "username": simulator.world.settings.username,
            "ca_file": str(self.ca_file),
        }
        super().__init__(client, vcenter)

    def _change_state(self, moref: str, **state: object) -> None:
        world = self.client.simulator.world
        uuid = world.get(self.refer(moref)).config.instanceUuid  # unset for clients when it is lost
        body = json.dumps({"uuid": uuid, **state}).encode()
        status, answer = control(world, "POST", "/labctl/vm", body)
        assert status == HTTPStatus.OK, answer

    def disable(self, moref: str, *methods: str) -> None:
        self._change_state(moref, disabled_methods=methods)

    def lose(self, moref: str, connection: Connection) -> None:
        self._change_state(moref, connection_state=connection.value)


class InMemory:
    """The fake, and its memory as the hand."""

    def __init__(self) -> None:
        self.vcenter = FakeVcenter()

    def connect(self, installation: Installation, **site: object) -> FakeHypervisor:
        made_site = make_site(**{**PLACE, **site})
        return FakeHypervisor(made_site, installation, RealClock(), self.vcenter)

    def connect_within(
        self,
        limits: Limits | None,  # noqa: ARG002 - memory is quick
        installation: Installation,
        **site: object,
    ) -> FakeHypervisor:
        return self.connect(installation, **site)

    def close(self) -> None:
        """There is nothing to close."""

    def list_names(self) -> set[str]:
        return {vm.name for vm in self.vcenter.vms.values()}

    def list_files(self) -> set[str]:
        return set(self.vcenter.files)

    def is_on(self, moref: str) -> bool:
        return self.vcenter.vms[moref].power_state is PowerState.ON

    def get_options(self, moref: str) -> dict[str, str]:
        vm = self.vcenter.vms[moref]
        signed = {MARK_KEY: vm.mark, DOSSIER_KEY: vm.dossier}
        return {**vm.guestinfo, **{key: value for key, value in signed.items() if value}}

    def plant(self, name: str) -> str:
        number = next(self.vcenter.numbers)
        return self.vcenter.add_vm(name, f"00000000-0000-4000-8000-{number:012}").moref

    def copy(self, moref: str, name: str) -> str:
        copied = self.plant(name)
        self.vcenter.vms[copied].mark = self.vcenter.vms[moref].mark
        self.vcenter.vms[copied].dossier = self.vcenter.vms[moref].dossier
        return copied

    def set_option(self, moref: str, key: str, value: str) -> None:
        vm = self.vcenter.vms[moref]
        if key == MARK_KEY:
            vm.mark = value
        elif key == DOSSIER_KEY:
            vm.dossier = value
        else:
            vm.guestinfo[key] = value
        self.vcenter.happen()

    def attach_disk(self, moref: str) -> str:
        vm = self.vcenter.vms[moref]
        path = f"[datastore-0] {vm.name}/{vm.name}_{len(vm.disks)}.vmdk"
        vm.disks.append((path,))
        self.vcenter.files.add(path)
        return path

    def detach_disk(self, moref: str, path: str) -> None:
        vm = self.vcenter.vms[moref]
        vm.disks = [chain for chain in vm.disks if chain[0] != path]

    def snapshot(self, moref: str, name: str) -> None:
        vm = self.vcenter.vms[moref]
        vm.snapshots.append(name)
        vm.held_by_snapshots += vm.disks
        number = len(vm.snapshots)
        vm.disks = [
            (f"{chain[0].removesuffix('.vmdk')}-{number:06}.vmdk", *chain) for chain in vm.disks
        ]
        self.vcenter.files |= {chain[0] for chain in vm.disks}

    def remove(self, moref: str) -> None:
        for chain in self.vcenter.vms.pop(moref).disks:
            self.vcenter.files -= set(chain)
        self.vcenter.happen()

    def unregister(self, moref: str) -> None:
        del self.vcenter.vms[moref]
        self.vcenter.happen()

    def rename(self, moref: str, name: str) -> None:
        self.vcenter.vms[moref].name = name

    def suspend(self, moref: str) -> None:
        self.vcenter.vms[moref].power_state = PowerState.SUSPENDED

    def move(self, moref: str, folder: str) -> None:
        self.vcenter.vms[moref].folder = folder

    def disable(self, moref: str, *methods: str) -> None:
        self.vcenter.vms[moref].disabled_methods = methods

    def lose(self, moref: str, connection: Connection) -> None:
        self.vcenter.vms[moref].connection = connection

    def change_template(self) -> None:
        self.vcenter.template = replace(self.vcenter.template, change_version="patched")


@contextmanager
def simulated(folder: Path) -> Iterator[Simulated]:
    """Run a simulator below `folder` and hold its vCenter."""
    state = folder / "simulator"
    with running(state) as simulator:
        hand = Simulated(state, Client(simulator))
        yield hand
        hand.close()
