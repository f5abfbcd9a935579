"""A vCenter in memory: what hypervisors of several installations see of one place."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from provisioner.model.lab import TemplatePin
from provisioner.model.observed import Connection, ObservedNic, PowerState

INVENTORY = frozenset(
    {
        "/DC0",
        "/DC0/vm/labs",
        "/DC0/host/cluster-0/Resources",
        "/DC0/network/lab",
        "/DC0/network/sealed",
        "/DC0/vm/templates/debian-13",
    }
)
DATASTORES = {"datastore-0": 500.0, "datastore-1": 500.0}
DISK_GIB = 32
TEMPLATE_DISK = "[datastore-0] debian-13/debian-13.vmdk"


@dataclass
class FakeVm:
    """One VM. Each disk is its chain of files, from the newest down."""

    moref: str
    name: str
    instance_uuid: str
    mark: str = ""
    cpus: int = 2
    memory_mib: int = 4096
    disks: list[tuple[str, ...]] = field(default_factory=list)
    held_by_snapshots: list[tuple[str, ...]] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    nics: list[ObservedNic] = field(default_factory=list)
    power_state: PowerState = PowerState.OFF
    guestinfo: dict[str, str] = field(default_factory=dict)
    dossier: str = ""
    is_sealed: bool = False
    folder: str = "/DC0/vm/labs"
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    connection: Connection = Connection.CONNECTED
    disabled_methods: tuple[str, ...] = ()
    addresses: dict[str, str] = field(default_factory=dict)


class FakeVcenter:
    """What several installations' hypervisors share: VMs, files, tasks, events, requests."""

    def __init__(self, uuid: str = "7d3f1c52-0000-4000-8000-00000000c0de") -> None:
        self.uuid = uuid
        self.vms: dict[str, FakeVm] = {}
        self.files: set[str] = set()
        self.events = 0
        self.inventory = set(INVENTORY)
        self.template = TemplatePin("template-uuid", "version-1", "snapshot-1", 1)
        self.changed = threading.Condition(threading.RLock())
        self.numbers = itertools.count(1)

    def add_vm(self, name: str, uuid: str, **values: object) -> FakeVm:
        """Put a VM with one disk into the labs' folder."""
        number = next(self.numbers)
        path = f"[datastore-0] {name}/{name}.vmdk"
        vm = FakeVm(f"vm-{number}", name, uuid, disks=[(path,)], **values)  # type: ignore[arg-type]
        self.files.add(path)
        self.vms[vm.moref] = vm
        self.happen()
        return vm

    def new_nic(self, at: int, network: str) -> ObservedNic:
        return ObservedNic(4000 + at, f"00:50:56:80:00:{next(self.numbers):02x}", network, False)

    def happen(self) -> None:
        """Count an event and wake who waits."""
        with self.changed:
            self.events += 1
            self.changed.notify_all()
