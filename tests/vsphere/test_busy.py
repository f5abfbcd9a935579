"""VMs that others work on: backups that forbid things, tasks under way, VMs that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from provisioner.errors import TaskFailedError, VsphereUnavailableError
from provisioner.model.observed import Connection, DestroyResult
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.contract.conftest import wait_until
from tests.contract.guests import OURS, Guest, clone, make_identity, make_order
from tests.contract.vcenters import Simulated
from tests.fakes.samples import ignore
from tests.vsphere.conftest import Meddler

Count = Callable[[], dict[str, int]]


@pytest.fixture
def guest(hypervisor: VsphereHypervisor) -> Guest:
    return clone(hypervisor)


@pytest.mark.parametrize("on", [True, False])
def test_a_backup_that_ends_in_time_is_waited_for(
    vcenter: Simulated,
    guest: Guest,
    count: Count,
    on: bool,  # noqa: FBT001 - a case
) -> None:
    if on:
        guest.hypervisor.ensure_powered_on(guest.identity)
    vcenter.disable(guest.vm.moref, "Destroy_Task", "PowerOffVM_Task")
    with ThreadPoolExecutor(1) as pool:
        count()
        going = pool.submit(guest.destroy)
        wait_until(lambda: "WaitForUpdatesEx" in count())
        assert vcenter.list_names() == {guest.vm.name}
        vcenter.disable(guest.vm.moref)
        assert going.result() is DestroyResult.DESTROYED
    assert vcenter.list_names() == set()


def test_a_backup_that_does_not_end_leaves_the_vm_as_it_is(
    vcenter: Simulated, guest: Guest, count: Count
) -> None:
    guest.hypervisor.ensure_powered_on(guest.identity)
    vcenter.disable(guest.vm.moref, "PowerOffVM_Task")
    hasty = vcenter.connect_within(Limits(backup_s=0.3), OURS)
    count()
    outcome = hasty.destroy_vm(guest.record)
    assert outcome.result is DestroyResult.RESIDUE
    for words in ("PowerOffVM_Task", "backup", "then tear down again", guest.vm.name):
        assert words in outcome.detail
    assert not {name for name in count() if name.endswith("_Task")}
    assert vcenter.is_on(guest.vm.moref)


def test_a_backup_that_begins_under_the_call_is_told_from_a_refusal(
    vcenter: Simulated, meddler: Meddler, guest: Guest
) -> None:
    moref = guest.vm.moref
    meddler.do_before("PowerOnVM_Task", lambda: vcenter.disable(moref, "PowerOnVM_Task"))
    with pytest.raises(VsphereUnavailableError, match="as a backup does"):
        guest.hypervisor.ensure_powered_on(guest.identity)
    vcenter.disable(moref)
    guest.hypervisor.ensure_powered_on(guest.identity)
    assert vcenter.is_on(moref)


VERBS: dict[str, Callable[[Guest], object]] = {
    "off": lambda guest: guest.hypervisor.ensure_powered_off(guest.identity, grace_s=0),
    "networks": lambda guest: guest.hypervisor.ensure_networks(guest.identity, connected=False),
    "dossier": lambda guest: guest.hypervisor.write_dossier(guest.identity, "text"),
    "destroy": Guest.destroy,
}


@pytest.mark.parametrize("verb", VERBS)
def test_another_task_on_the_vm_is_waited_for(vcenter: Simulated, guest: Guest, verb: str) -> None:
    world = vcenter.client.simulator.world
    if verb == "off":
        guest.hypervisor.ensure_powered_on(guest.identity)
    world.settings.method_delays_s = {"CreateSnapshot_Task": 0.7}
    vm = vcenter.refer(guest.vm.moref)
    snapshot = vm.CreateSnapshot_Task("by somebody", "", memory=False, quiesce=False)
    VERBS[verb](guest)
    assert snapshot.info.state == "success", "theirs came first"
    assert VERBS[verb](guest) in (None, DestroyResult.ALREADY_GONE)


def test_another_task_that_does_not_end_means_come_again(vcenter: Simulated, guest: Guest) -> None:
    world = vcenter.client.simulator.world
    world.settings.method_delays_s = {"CreateSnapshot_Task": 30}
    vcenter.refer(guest.vm.moref).CreateSnapshot_Task("s", "", memory=False, quiesce=False)
    hasty = vcenter.connect_within(Limits(power_s=0.3), OURS)
    with pytest.raises(VsphereUnavailableError, match="tasks under way"):
        hasty.ensure_powered_on(guest.identity)


def test_work_on_the_template_is_waited_for(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor, make_identity())
    vcenter.client.simulator.world.settings.method_delays_s = {"CreateSnapshot_Task": 0.7}
    template = vcenter.client.template
    snapshot = template.CreateSnapshot_Task("by somebody", "", memory=False, quiesce=False)
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity
    assert snapshot.info.state == "success", "theirs came first"


def test_work_on_the_template_that_no_task_tells_of_is_tried_again(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor, make_identity())
    world = vcenter.client.simulator.world
    world.faults.add(
        {
            "method": "CloneVM_Task",
            "what": "task-error",
            "fault": "vim.fault.TaskInProgress",
            "when": "before",
        },
    )
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity
    assert world.requests["CloneVM_Task"] == 2


def test_a_vm_whose_mark_cannot_be_read_is_neither_ours_nor_foreign(
    vcenter: Simulated, guest: Guest
) -> None:
    vcenter.lose(guest.vm.moref, Connection.INACCESSIBLE)
    order = make_order(guest.hypervisor, guest.identity)
    for verb in (
        lambda: guest.hypervisor.find_vm(guest.identity),
        lambda: guest.hypervisor.ensure_clone(order, ignore),
        lambda: guest.hypervisor.ensure_powered_on(guest.identity),
    ):
        with pytest.raises(VsphereUnavailableError, match="inaccessible"):
            verb()
    unrecorded = replace(guest.record, birth_disks=())
    for record in (guest.record, unrecorded):
        outcome = guest.hypervisor.destroy_vm(record)
        assert outcome.result is DestroyResult.RESIDUE
        assert "bring its datastore back" in outcome.detail
    assert guest.ask()["uuid"] is False


def test_a_vm_that_somebody_powers_on_again_and_again_is_said(
    vcenter: Simulated, meddler: Meddler, guest: Guest
) -> None:
    vm: Any = vcenter.refer(guest.vm.moref)

    def power_on() -> None:
        meddler.do_before("Destroy_Task", power_on)
        vcenter.client.do(vm.PowerOnVM_Task())

    meddler.do_before("Destroy_Task", power_on)
    with pytest.raises(TaskFailedError, match="does not stay powered off"):
        guest.destroy()
    assert vcenter.list_names() == {guest.vm.name}


def test_a_disk_that_is_attached_while_destroying_is_tried_again_stops_it(
    vcenter: Simulated, meddler: Meddler, guest: Guest
) -> None:
    attached: list[str] = []
    world = vcenter.client.simulator.world
    world.faults.add({"method": "Destroy_Task", "what": "lost"})
    meddler.do_before("Destroy_Task", lambda: attached.append(vcenter.attach_disk(guest.vm.moref)))
    assert guest.destroy() is DestroyResult.RESIDUE
    assert {*attached, *guest.record.birth_disks} <= vcenter.list_files()
    assert world.requests["Destroy_Task"] == 1
