from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from provisioner.model.lab import GuestIdentity, GuestRecord, GuestState, Lab, LabState
from provisioner.model.observed import (
    Connection,
    ObservedDisk,
    ObservedNic,
    ObservedVm,
    Ownership,
    PowerState,
)
from provisioner.rules.drift import Difference, build_drift
from tests.fakes.samples import make_guests, make_lab, make_site

SITE = make_site()
DISK = ObservedDisk(2000, "[datastore-0] ana-mlops-workbench/ana-mlops-workbench.vmdk", 32 * 1024)
NIC = ObservedNic(4000, "00:50:56:80:00:01", "lab", connected=True)


def make_lab_in(state: LabState = LabState.READY) -> Lab:
    return replace(make_lab(), state=state)


def make_guest(state: GuestState = GuestState.STANDING) -> GuestRecord:
    (guest,) = make_guests(make_lab(), mac=NIC.mac, birth_disks=(DISK.path,))
    return replace(guest, state=state)


def make_vm(**changes: Any) -> ObservedVm:
    guest = make_guest()
    values: dict[str, Any] = {
        "moref": "vm-7",
        "name": guest.vm_name,
        "instance_uuid": guest.identity.instance_uuid,
        "ownership": Ownership.OURS,
        "identity": guest.identity,
        "power_state": PowerState.ON,
        "cpus": 2,
        "memory_mib": 4096,
        "disks": (DISK,),
        "nics": (NIC,),
        "folder": "/DC0/vm/labs",
        **changes,
    }
    return ObservedVm(**values)


def compare(
    vm: ObservedVm | None,
    state: LabState = LabState.READY,
    guest: GuestState = GuestState.STANDING,
) -> list[tuple[str, str, str]]:
    drift = build_drift(make_lab_in(state), SITE, make_guest(guest), vm, template_gib=32.0)
    assert all(isinstance(one, Difference) for one in drift)
    return [(one.what, one.recorded, one.observed) for one in drift]


def test_a_guest_as_recorded_differs_in_nothing() -> None:
    assert compare(make_vm()) == []


OTHER = GuestIdentity("ben-mlops", 1, "workbench", "ana-mlops-1-workbench-uuid")
FOREIGN = ObservedDisk(2001, "[datastore-1] payroll/payroll.vmdk", 1024)
SECOND = ObservedNic(4001, "00:50:56:80:00:02", "lab", connected=True)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"cpus": 8}, ("CPUs", "2", "8")),
        ({"memory_mib": 8192}, ("memory", "4096 MiB", "8192 MiB")),
        ({"name": "tmp"}, ("name", "ana-mlops-workbench", "tmp")),
        ({"name": "t\x1b[2J\nmp"}, ("name", "ana-mlops-workbench", "t mp")),
        ({"folder": "/DC0/vm/old"}, ("folder", "/DC0/vm/labs", "/DC0/vm/old")),
        ({"connection": Connection.ORPHANED}, ("connection", "connected", "orphaned")),
        ({"snapshots": ("before", "after")}, ("snapshots", "none", "before, after")),
        ({"power_state": PowerState.OFF}, ("power", "on", "off")),
        ({"power_state": PowerState.SUSPENDED}, ("power", "on", "suspended")),
        ({"ownership": Ownership.VOID, "identity": None}, ("mark", "ours", "void")),
        ({"ownership": Ownership.UNMARKED, "identity": None}, ("mark", "ours", "unmarked")),
        ({"identity": OTHER}, ("mark", "ours", "another guest's")),
        ({"disks": (DISK, FOREIGN)}, ("disk", "none", FOREIGN.path)),
        ({"disks": ()}, ("disk", DISK.path, "missing")),
        ({"disks": (replace(DISK, capacity_mib=65536),)}, ("disk size", "32 GiB", "64 GiB")),
        ({"nics": (NIC, SECOND)}, ("NICs", "1", "2")),
        ({"nics": (replace(NIC, network="sealed"),)}, ("networks", "lab", "sealed")),
        ({"nics": (replace(NIC, mac=SECOND.mac),)}, ("MAC", NIC.mac, SECOND.mac)),
        ({"nics": ()}, ("networks", "lab", "none")),
        (
            {"nics": (replace(NIC, connected=False),)},
            (f"NIC {NIC.mac}", "connected", "disconnected"),
        ),
    ],
)
def test_each_change_is_told(changes: dict[str, Any], difference: tuple[str, str, str]) -> None:
    assert difference in compare(make_vm(**changes))


def test_one_change_is_one_line() -> None:
    assert compare(make_vm(cpus=8)) == [("CPUs", "2", "8")]
    off = make_vm(power_state=PowerState.OFF, nics=(replace(NIC, connected=False),))
    assert compare(off) == [("power", "on", "off")], "a guest that is off has no network"


def test_a_snapshot_makes_no_foreign_disk() -> None:
    path = DISK.path.replace(".vmdk", "-000002.vmdk")
    vm = make_vm(disks=(replace(DISK, path=path),), snapshots=("before",))
    assert compare(vm) == [("snapshots", "none", "before")]
    elsewhere = path.replace("ana-mlops-workbench/", "other/")
    assert ("disk", "none", elsewhere) in compare(make_vm(disks=(replace(DISK, path=elsewhere),)))


def test_a_distributed_portgroup_shows_its_key_and_is_not_judged_by_it() -> None:
    nic = replace(NIC, network="dvportgroup-21")
    assert compare(make_vm(nics=(nic,))) == []
    extra = make_vm(nics=(nic, replace(SECOND, network="sealed")))
    assert ("networks", "lab", "dvportgroup-21, sealed") in compare(extra)


def test_an_expired_lab_is_off_and_disconnected() -> None:
    off = make_vm(power_state=PowerState.OFF, nics=(replace(NIC, connected=False),))
    assert compare(off, LabState.EXPIRED) == []
    assert compare(make_vm(), LabState.EXPIRED) == [
        ("power", "off", "on"),
        (f"NIC {NIC.mac}", "disconnected", "connected"),
    ]


@pytest.mark.parametrize("state", [LabState.PROVISIONING, LabState.FAILED, LabState.RESIDUE])
def test_power_is_not_judged_while_a_lab_is_neither_ready_nor_expired(state: LabState) -> None:
    assert compare(make_vm(power_state=PowerState.OFF), state) == []


@pytest.mark.parametrize(
    ("state", "without_vm", "with_vm"),
    [
        (GuestState.PLANNED, [], []),
        (GuestState.INTENDED, [], []),
        (GuestState.CLONING, [], []),
        (GuestState.STANDING, [("VM", "ana-mlops-workbench", "missing in vCenter")], []),
        (GuestState.GONE, [], [("VM", "gone", "stands in vCenter")]),
    ],
)
def test_a_vm_is_missed_where_one_should_stand(
    state: GuestState,
    without_vm: list[tuple[str, str, str]],
    with_vm: list[tuple[str, str, str]],
) -> None:
    assert compare(None, guest=state) == without_vm
    assert compare(make_vm(), guest=state) == with_vm


def test_what_is_not_known_is_not_compared() -> None:
    guest = replace(make_guest(), birth_disks=(), mac="")
    vm = make_vm(disks=(FOREIGN,), folder="", nics=(SECOND,))
    assert build_drift(make_lab_in(), SITE, guest, vm) == ()
