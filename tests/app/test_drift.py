"""What vCenter shows of guests is found even where their marks are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from provisioner.app.drift import compare_guests
from provisioner.model.lab import GuestRecord, GuestState, LabState
from provisioner.rules.mark import Installation, build_mark
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.samples import VCENTER, make_guests, make_lab, make_site
from tests.fakes.vcenter import FakeVcenter, FakeVm
from tests.workflows.conftest import FixedClock

HERE = Installation("here", b"k" * 32)
LAB = replace(make_lab(), state=LabState.READY)


class Place:
    """One guest on its VM, as recorded."""

    def __init__(self) -> None:
        self.vcenter = FakeVcenter(VCENTER)
        self.hypervisor = FakeHypervisor(make_site(), HERE, FixedClock(), self.vcenter)
        (guest,) = make_guests(LAB)
        self.vm: FakeVm = self.vcenter.add_vm(guest.vm_name, guest.identity.instance_uuid)
        self.vm.mark = build_mark(HERE, guest.identity)
        self.vm.nics = [self.vcenter.new_nic(0, "lab")]
        self.guest: GuestRecord = replace(
            guest,
            state=GuestState.STANDING,
            mac=self.vm.nics[0].mac,
            birth_disks=(self.vm.disks[0][0],),
        )
        self.hypervisor.ensure_powered_on(self.guest.identity)

    def compare(self) -> list[str]:
        (found,) = compare_guests(self.hypervisor, make_site(), LAB, (self.guest,))
        return [f"{one.what}: {one.recorded} / {one.observed}" for one in found.drift]


def test_a_guest_as_recorded_differs_in_nothing() -> None:
    assert Place().compare() == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda vm: setattr(vm, "cpus", 8), "CPUs: 2 / 8"),
        (lambda vm: setattr(vm, "mark", vm.mark.replace("ana", "eve")), "mark: ours / void"),
        (
            lambda vm: setattr(vm, "mark", ""),
            "VM: ana-mlops-workbench / stands, but has no mark: it is there",
        ),
        (
            lambda vm: vm.disks.append(("[datastore-1] payroll/payroll.vmdk",)),
            "disk: none / [datastore-1] payroll/payroll.vmdk",
        ),
    ],
)
def test_a_change_is_told(change: Callable[[FakeVm], None], difference: str) -> None:
    place = Place()
    change(place.vm)
    assert place.compare() == [difference]


def test_a_vm_that_is_gone_is_missing() -> None:
    place = Place()
    place.vcenter.vms.clear()
    assert place.compare() == ["VM: ana-mlops-workbench / missing in vCenter"]
