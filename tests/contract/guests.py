"""Guests as the contract suite of the Hypervisor port clones them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

from provisioner.model.lab import GuestIdentity, GuestRecord, GuestState
from provisioner.model.observed import DestroyResult, ObservedVm
from provisioner.ports import CloneOrder, Hypervisor
from provisioner.rules.mark import Installation

OURS = Installation("plant-1", b"k" * 32)
THEIRS = Installation("plant-2", b"x" * 32)
ADDRESS_S = 20.0
GUESTINFO = (("guestinfo.userdata", "I2Nsb3Vk"), ("guestinfo.userdata.encoding", "base64"))


def make_identity(slot: str = "workbench", lab: str = "ana-mlops") -> GuestIdentity:
    return GuestIdentity(lab, 1, slot, str(uuid.uuid4()))


def make_order(hypervisor: Hypervisor, identity: GuestIdentity, **changes: object) -> CloneOrder:
    order = CloneOrder(
        identity=identity,
        vm_name=f"{identity.lab_id}-{identity.slot}",
        vm_template="debian-13",
        cpus=3,
        memory_mib=6144,
        networks=("lab",),
        datastore="datastore-1",
        guestinfo=GUESTINFO,
        pin=hypervisor.pin_template("debian-13"),
    )
    return replace(order, **changes)  # type: ignore[arg-type]


@dataclass
class Guest:
    """One cloned guest, and what the store would know of it."""

    hypervisor: Hypervisor
    vm: ObservedVm
    record: GuestRecord

    @property
    def identity(self) -> GuestIdentity:
        return self.record.identity

    def destroy(self) -> DestroyResult:
        return self.hypervisor.destroy_vm(self.record).result

    def ask(self) -> dict[str, bool | None]:
        rows = self.hypervisor.collect_evidence(self.identity.lab_id, (self.record,))
        return {row.kind: row.gone for row in rows}


def make_record(vm: ObservedVm, order: CloneOrder, **hints: Any) -> GuestRecord:
    return GuestRecord(
        order.identity,
        order.vm_name,
        "nonce",
        GuestState.STANDING,
        order.pin,
        moref=vm.moref,
        mac=vm.nics[0].mac,
        birth_disks=tuple(disk.path for disk in vm.disks),
        **hints,
    )


def clone(
    hypervisor: Hypervisor, identity: GuestIdentity | None = None, **changes: object
) -> Guest:
    order = make_order(hypervisor, identity or make_identity(), **changes)
    vm = hypervisor.ensure_clone(order, lambda _: None)
    return Guest(hypervisor, vm, make_record(vm, order))
