"""What vCenter is asked for a receipt, and what each answer says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner.model.lab import GuestRecord
from provisioner.model.observed import DestroyResult
from provisioner.vsphere import VsphereHypervisor
from tests.contract.guests import Guest, clone, make_identity, make_order
from tests.contract.vcenters import Simulated


@pytest.fixture
def guest(hypervisor: VsphereHypervisor) -> Guest:
    return clone(hypervisor)


def read_answer(
    hypervisor: VsphereHypervisor, guest: GuestRecord, kind: str
) -> tuple[str, bool | None]:
    rows = hypervisor.collect_evidence(guest.identity.lab_id, (guest,))
    (row,) = [row for row in rows if row.kind == kind]
    return row.answer, row.gone


def test_a_clone_is_not_gone_before_its_task_has_ended(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    vcenter.client.simulator.world.settings.method_delays_s = {"CloneVM_Task": 1.0}
    order = make_order(hypervisor, make_identity())
    record = GuestRecord(order.identity, order.vm_name, "nonce")
    tasks: list[str] = []
    answers: list[tuple[str, bool | None]] = []

    def ask(task: str) -> None:
        tasks.append(task)
        answers.append(read_answer(hypervisor, replace(record, vim_task=task), "task"))

    hypervisor.ensure_clone(order, ask)
    ask(tasks[0])
    assert answers == [
        ("the task's state is running", False),
        ("the task's state is success", True),
    ]


def test_another_vm_of_the_same_name_is_not_the_guest(
    vcenter: Simulated, hypervisor: VsphereHypervisor, guest: Guest
) -> None:
    name = guest.record.vm_name
    assert guest.destroy() is DestroyResult.DESTROYED
    moref = vcenter.plant(name)
    said = f"{name} ({moref}) has this name, but is another VM; it was not touched"
    assert read_answer(hypervisor, guest.record, "name") == (said, True)


def test_a_file_that_went_from_a_folder_that_stays_is_gone(
    vcenter: Simulated, hypervisor: VsphereHypervisor, guest: Guest
) -> None:
    assert read_answer(hypervisor, guest.record, "disk") == ("the file is there", False)
    foreign = vcenter.attach_disk(guest.vm.moref)
    vcenter.detach_disk(guest.vm.moref, foreign)
    assert guest.destroy() is DestroyResult.DESTROYED
    assert foreign in vcenter.list_files()
    assert read_answer(hypervisor, guest.record, "disk") == ("the folder holds no such file", True)
