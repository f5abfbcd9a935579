"""A hand at a vCenter's console: a stock pyVmomi client, whosever vCenter it is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any

from pyVmomi import vim, vmodl

from provisioner.model.observed import Connection
from provisioner.model.spec import Site
from provisioner.rules.mark import Installation
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.fakes.samples import make_site
from tests.simulator.conftest import Client

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


def read(content: Any, ref: Any, path: str) -> Any:
    """Read one property by its leaf path; None when it is unset."""
    query = vmodl.query.PropertyCollector
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=ref)],
        propSet=[query.PropertySpec(type=type(ref), pathSet=[path])],
    )
    (found,) = content.propertyCollector.RetrieveContents([spec])
    return next((one.val for one in found.propSet), None)


class StockHand(ABC):
    """A vCenter, and a stock client as the hand.

    Args:
        client: logged in as the account that `vcenter` names.
        vcenter: the vCenter as a site file describes it.
    """

    def __init__(self, client: Client, vcenter: dict[str, object]) -> None:
        self.client = client
        self.vcenter = vcenter
        self.hypervisors: list[VsphereHypervisor] = []

    def make_site(self, **changes: object) -> Site:
        """Describe the vCenter as a site."""
        return make_site(**{"vcenter": self.vcenter, **PLACE, **changes})

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

    def _read(self, moref: str, path: str) -> Any:
        return read(self.client.content, self.refer(moref), path)

    def list_names(self) -> set[str]:
        return {child.name for child in self.client.labs.childEntity}

    def list_files(self) -> set[str]:
        found, every = set(), vim.host.DatastoreBrowser.SearchSpec(matchPattern=["*"])
        for name in ("datastore-0", "datastore-1"):
            browser = self.client.find(f"DC0/datastore/{name}").browser
            task = browser.SearchDatastoreSubFolders_Task(f"[{name}]", every)
            for folder in self.client.do(task):
                path = folder.folderPath.removeprefix(f"[{name}]").strip(" /")
                found |= {f"[{name}] {path}/{file.path}" for file in folder.file}
        return found

    def is_on(self, moref: str) -> bool:
        return bool(self._read(moref, "runtime.powerState") == "poweredOn")

    def get_options(self, moref: str) -> dict[str, str]:
        options = self._read(moref, "config.extraConfig")
        return {one.key: one.value for one in options}

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

    def list_disks(self, moref: str) -> list[Any]:
        devices = self._read(moref, "config.hardware.device")
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
        return str(self.list_disks(moref)[-1].backing.fileName)

    def detach_disk(self, moref: str, path: str) -> None:
        disk = next(one for one in self.list_disks(moref) if one.backing.fileName == path)
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

    def change_template(self) -> None:
        self._reconfigure(self.client.template._moId, annotation="patched")

    @abstractmethod
    def disable(self, moref: str, *methods: str) -> None:
        """Forbid these methods of a VM, and no others."""

    @abstractmethod
    def lose(self, moref: str, connection: Connection) -> None:
        """Give a VM another connection state."""
