"""What of a VM's disks is its own: an adopted guest's birth disks rest on it."""

from __future__ import annotations

import pytest

from provisioner.ports import Hypervisor
from tests.contract.guests import Guest
from tests.contract.vcenters import Vcenter


def read(hypervisor: Hypervisor, guest: Guest) -> tuple[str, ...]:
    vm = hypervisor.find_vm(guest.identity)
    assert vm is not None
    return vm.own_disks


@pytest.mark.needs("linked clones")
def test_a_clones_own_disk_is_the_one_it_was_born_with(
    vcenter: Vcenter, hypervisor: Hypervisor, guest: Guest
) -> None:
    assert read(hypervisor, guest) == guest.record.birth_disks
    vcenter.snapshot(guest.vm.moref, "before-the-workshop")
    assert read(hypervisor, guest) == guest.record.birth_disks


@pytest.mark.needs("linked clones")
def test_a_disk_that_somebody_attached_is_not_its_own(
    vcenter: Vcenter, hypervisor: Hypervisor, guest: Guest
) -> None:
    vcenter.attach_disk(guest.vm.moref)
    assert read(hypervisor, guest) == guest.record.birth_disks
    vcenter.detach_disk(guest.vm.moref, guest.record.birth_disks[0])
    assert read(hypervisor, guest) == ()
