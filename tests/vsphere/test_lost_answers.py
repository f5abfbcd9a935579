"""A lost answer means unknown: the world is looked at, and no mutating call is sent twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from provisioner.errors import (
    NotOwnedError,
    VsphereError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestRecord
from provisioner.model.observed import DestroyResult, Ownership, PowerState
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.contract.guests import OURS, make_record
from tests.contract.vcenters import Simulated
from tests.vsphere.conftest import Meddler, ignore, make_order

Count = Callable[[], dict[str, int]]
WAIT_S = 20.0


def delay(vcenter: Simulated, **seconds: float) -> None:
    vcenter.client.simulator.world.settings.method_delays_s = seconds


@pytest.mark.parametrize("clone_s", [0.0, 1.0], ids=["quick", "slow"])
def test_a_clone_whose_answer_is_lost_is_adopted(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    meddler: Meddler,
    count: Count,
    clone_s: float,
) -> None:
    order = make_order(hypervisor)
    hypervisor.observe_site()
    delay(vcenter, CloneVM_Task=clone_s)
    count()
    meddler.lose("CloneVM_Task")
    vm = hypervisor.ensure_clone(order, ignore)
    assert (vm.ownership, vm.identity) == (Ownership.OURS, order.identity)
    assert count()["CloneVM_Task"] == 1
    assert vcenter.list_names() == {order.vm_name}


def test_a_clone_that_another_run_has_under_way_is_adopted(vcenter: Simulated) -> None:
    runs = [vcenter.connect(OURS) for _ in range(2)]
    order = make_order(runs[0])
    for run in runs:
        run.observe_site()
    delay(vcenter, CloneVM_Task=0.5)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda run: run.ensure_clone(order, ignore), runs)
    assert first == second
    assert vcenter.list_names() == {order.vm_name}


def test_a_clone_over_its_deadline_is_cancelled_and_unknown(vcenter: Simulated) -> None:
    hasty = vcenter.connect_within(Limits(clone_s=0.3), OURS)
    order = make_order(hasty)
    delay(vcenter, CloneVM_Task=30)
    with pytest.raises(VsphereUnavailableError, match="not within"):
        hasty.ensure_clone(order, ignore)
    assert vcenter.list_names() == set(), "the task was cancelled"
    delay(vcenter)
    assert hasty.ensure_clone(order, ignore).identity == order.identity


def test_destroying_waits_for_the_clone_that_is_under_way(vcenter: Simulated) -> None:
    maker, breaker = vcenter.connect(OURS), vcenter.connect(OURS)
    order = make_order(maker)
    for run in (maker, breaker):
        run.observe_site()
    record = GuestRecord(order.identity, order.vm_name, "nonce", pin=order.pin)
    delay(vcenter, CloneVM_Task=1.0)
    with ThreadPoolExecutor(1) as pool:
        started: list[str] = []
        made = pool.submit(maker.ensure_clone, order, started.append)
        while not (started or made.done()):
            maker.find_vm(order.identity)
        assert breaker.destroy_vm(record).result is DestroyResult.DESTROYED
        made.exception(WAIT_S)
    assert vcenter.list_names() == set()


@pytest.mark.parametrize("method", ["PowerOnVM_Task", "PowerOffVM_Task", "Destroy_Task"])
def test_no_mutating_call_is_resent(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    meddler: Meddler,
    count: Count,
    method: str,
) -> None:
    order = make_order(hypervisor)
    vm = hypervisor.ensure_clone(order, ignore)
    record = make_record(vm, order)
    meddler.lose(method)
    for _ in range(2):
        # An answer lost before the task ended leaves the outcome unknown; the next run looks.
        try:
            hypervisor.ensure_powered_on(order.identity)
            hypervisor.ensure_powered_off(order.identity, grace_s=0)
            hypervisor.destroy_vm(record)
        except VsphereUnavailableError:
            continue
        break
    assert count()[method] == 1
    assert vcenter.list_names() == set()
    assert vm.name not in "".join(vcenter.list_files())


@pytest.mark.parametrize(
    "method",
    ["RetrievePropertiesEx", "FindByUuid", "FindByInventoryPath", "HasPrivilegeOnEntities"],
)
def test_a_read_is_asked_again(
    hypervisor: VsphereHypervisor, meddler: Meddler, count: Count, method: str
) -> None:
    before = (hypervisor.observe_site(), hypervisor.check_sight())
    count()
    meddler.lose(method)
    assert (hypervisor.observe_site(), hypervisor.check_sight()) == before
    assert hypervisor.find_vm(make_order(hypervisor).identity) is None
    assert method not in meddler.lost
    assert count().get("Login", 0) == 0


def test_a_machine_that_someone_else_powered_on_is_on(
    vcenter: Simulated, hypervisor: VsphereHypervisor, meddler: Meddler
) -> None:
    order = make_order(hypervisor)
    vm = hypervisor.ensure_clone(order, ignore)

    def power_on() -> None:
        vcenter.client.do(vcenter.refer(vm.moref).PowerOnVM_Task())

    meddler.do_before("PowerOnVM_Task", power_on)
    hypervisor.ensure_powered_on(order.identity)
    assert vcenter.is_on(vm.moref)
    hypervisor.ensure_powered_off(order.identity, grace_s=0)
    meddler.do_before("Destroy_Task", power_on)
    record = make_record(vm, order)
    assert hypervisor.destroy_vm(record).result is DestroyResult.DESTROYED


def test_another_uuid_than_asked_for_is_put_right(
    vcenter: Simulated, hypervisor: VsphereHypervisor, meddler: Meddler
) -> None:
    order = make_order(hypervisor)
    planted: list[str] = []

    def take() -> None:
        uuid = order.identity.instance_uuid
        planted.append(vcenter.client.clone("thief", instanceUuid=uuid)._moId)

    meddler.do_before("CloneVM_Task", take)
    meddler.do_before("ReconfigVM_Task", lambda: vcenter.remove(planted[0]))
    vm = hypervisor.ensure_clone(order, ignore)
    assert (vm.ownership, vm.identity) == (Ownership.OURS, order.identity)
    assert vm.instance_uuid == order.identity.instance_uuid
    assert vcenter.list_names() == {order.vm_name}


def test_a_uuid_that_stays_taken_is_said_and_nothing_is_powered_on(
    vcenter: Simulated, hypervisor: VsphereHypervisor, meddler: Meddler
) -> None:
    order = make_order(hypervisor)

    def take() -> None:
        vcenter.client.clone("thief", instanceUuid=order.identity.instance_uuid)

    meddler.do_before("CloneVM_Task", take)
    with pytest.raises(VsphereError, match="was made with instance UUID"):
        hypervisor.ensure_clone(order, ignore)
    made = {vm.name: vm for vm in hypervisor.list_marked_vms()}[order.vm_name]
    assert made.power_state is PowerState.OFF
    with pytest.raises(NotOwnedError):
        hypervisor.ensure_powered_on(order.identity)
