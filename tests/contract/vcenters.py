"""Two vCenters for the contract of the Hypervisor port, and what a hand at their console does.

The hand is a stock pyVmomi client of the simulator, or reaches into the memory of the fake: what
proves that something is there, left or untouched never asks the code under test.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from pyVmomi import vim

from provisioner.model.observed import Connection, PowerState
from provisioner.model.spec import Site
from provisioner.ports import Hypervisor
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY, Installation
from provisioner.simulator.control import control
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.samples import make_site
from tests.fakes.vcenter import FakeVcenter
from tests.simulator.conftest import Client, running

PLACE: dict[str, object] = {
    "placement": {
        "datacenter": "/DC0",
        "folder": "/DC0/vm/labs",
        "resource_pool": "/DC0/host/cluster-0/Resources",
        "datastores": ["datastore-0", "datastore-1"],
    },
    "networks": {"lab": "/DC0/network/lab", "sealed": "/DC0/network/sealed"},
}


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.monotonic()


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


class Simulated:
    """A simulator, and a stock client as the hand."""

    def __init__(self, state: Path, client: Client) -> None:
        self.client = client
        self.ca_file = state / "certificate.pem"
        self.hypervisors: list[VsphereHypervisor] = []

    def make_site(self, **changes: object) -> Site:
        """Describe the simulator as a site."""
        simulator = self.client.simulator
        vcenter = {
            "host": simulator.host,
            "port": simulator.port,
            "username": simulator.world.settings.username,
            "ca_file": str(self.ca_file),
        }
        return make_site(**{"vcenter": vcenter, **PLACE, **changes})

    def connect(self, installation: Installation, **site: object) -> VsphereHypervisor:
        return self.connect_within(None, installation, **site)

    def connect_within(
        self, limits: Limits | None, installation: Installation, **site: object
    ) -> VsphereHypervisor:
        password = self.client.simulator.password
        made = VsphereHypervisor(
            self.make_site(**site), installation, lambda: password, RealClock(), limits
        )
        self.hypervisors.append(made)
        return made

    def close(self) -> None:
        for hypervisor in self.hypervisors:
            hypervisor.close()

    def refer(self, moref: str) -> Any:
        return vim.VirtualMachine(moref, self.client.si._stub)

    def list_names(self) -> set[str]:
        return {child.name for child in self.client.labs.childEntity}

    def list_files(self) -> set[str]:
        found = set()
        for name in ("datastore-0", "datastore-1"):
            browser = self.client.find(f"DC0/datastore/{name}").browser
            for folder in self.client.do(browser.SearchDatastoreSubFolders_Task(f"[{name}]")):
                found |= {f"{folder.folderPath}/{file.path}" for file in folder.file}
        return found

    def is_on(self, moref: str) -> bool:
        return self.refer(moref).runtime.powerState == "poweredOn"

    def get_options(self, moref: str) -> dict[str, str]:
        return {one.key: one.value for one in self.refer(moref).config.extraConfig}

    def plant(self, name: str) -> str:
        return str(self.client.clone(name)._moId)

    def copy(self, moref: str, name: str) -> str:
        spec = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(pool=self.client.pool), powerOn=False)
        task = self.refer(moref).CloneVM_Task(folder=self.client.labs, name=name, spec=spec)
        return str(self.client.do(task)._moId)

    def _reconfigure(self, moref: str, **config: Any) -> None:
        self.client.do(self.refer(moref).ReconfigVM_Task(vim.vm.ConfigSpec(**config)))

    def set_option(self, moref: str, key: str, value: str) -> None:
        self._reconfigure(moref, extraConfig=[vim.option.OptionValue(key=key, value=value)])

    def _list_disks(self, moref: str) -> list[Any]:
        devices = self.refer(moref).config.hardware.device
        return [one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]

    def attach_disk(self, moref: str) -> str:
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            diskMode="persistent", thinProvisioned=True
        )
        disk = vim.vm.device.VirtualDisk(
            key=-1, controllerKey=1000, unitNumber=5, capacityInKB=1024 * 1024, backing=backing
        )
        change = vim.vm.device.VirtualDeviceSpec(
            operation="add", fileOperation="create", device=disk
        )
        self._reconfigure(moref, deviceChange=[change])
        return str(self._list_disks(moref)[-1].backing.fileName)

    def detach_disk(self, moref: str, path: str) -> None:
        disk = next(one for one in self._list_disks(moref) if one.backing.fileName == path)
        change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk)
        self._reconfigure(moref, deviceChange=[change])

    def snapshot(self, moref: str, name: str) -> None:
        task = self.refer(moref).CreateSnapshot_Task(name, "", memory=False, quiesce=False)
        self.client.do(task)

    def remove(self, moref: str) -> None:
        vm = self.refer(moref)
        if self.is_on(moref):
            self.client.do(vm.PowerOffVM_Task())
        self.client.do(vm.Destroy_Task())

    def unregister(self, moref: str) -> None:
        self.refer(moref).UnregisterVM()

    def rename(self, moref: str, name: str) -> None:
        self.client.do(self.refer(moref).Rename_Task(name))

    def suspend(self, moref: str) -> None:
        self.client.do(self.refer(moref).SuspendVM_Task())

    def move(self, moref: str, folder: str) -> None:
        above, _, name = folder.rpartition("/")
        made = self.client.find(above.removeprefix("/")).CreateFolder(name)
        self.client.do(made.MoveIntoFolder_Task([self.refer(moref)]))

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

    def change_template(self) -> None:
        self._reconfigure(self.client.template._moId, annotation="patched")


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
