"""A lost answer means unknown: the world is looked at, and no mutating call is sent twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pyVmomi import vim

from provisioner.errors import (
    NotOwnedError,
    TemplateChangedError,
    VsphereError,
    VsphereUnavailableError,
)
from provisioner.model.lab import GuestRecord
from provisioner.model.observed import DestroyResult, Ownership, PowerState
from provisioner.ports import CloneOrder
from provisioner.rules.mark import MARK_KEY
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.contract.conftest import wait_until
from tests.contract.guests import OURS, make_record
from tests.contract.vcenters import Simulated
from tests.fakes.samples import ignore
from tests.vsphere.conftest import Meddler, make_order

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


def test_a_clone_call_that_may_not_have_arrived_is_not_sent_again(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor)
    world = vcenter.client.simulator.world
    world.faults.add({"method": "CloneVM_Task", "what": "lost", "when": "before"})
    with pytest.raises(VsphereUnavailableError):
        hypervisor.ensure_clone(order, ignore)
    assert vcenter.list_names() == set()
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity


@pytest.mark.parametrize(
    "method", ["PowerOnVM_Task", "ReconfigVM_Task", "PowerOffVM_Task", "Destroy_Task"]
)
def test_a_call_whose_answer_is_lost_is_looked_after_and_not_sent_again(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    meddler: Meddler,
    count: Count,
    method: str,
) -> None:
    order = make_order(hypervisor)
    vm = hypervisor.ensure_clone(order, ignore)
    count()
    meddler.lose(method)
    hypervisor.ensure_powered_on(order.identity)
    hypervisor.ensure_networks(order.identity, connected=False)
    hypervisor.ensure_powered_off(order.identity, grace_s=0)
    outcome = hypervisor.destroy_vm(make_record(vm, order))
    assert outcome.result is DestroyResult.DESTROYED
    assert method not in meddler.lost
    assert count()[method] == 1
    assert vcenter.list_names() == set()


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


@pytest.mark.parametrize(
    "rule",
    [
        {"what": "cancel-ignored"},
        {"what": "lost"},
        {"what": "expire"},
        {"what": "vmodl.fault.NotSupported"},
    ],
    ids=lambda rule: rule["what"],
)
def test_a_clone_that_goes_on_after_its_deadline_is_not_left_behind(
    vcenter: Simulated, rule: dict[str, str]
) -> None:
    hasty = vcenter.connect_within(Limits(clone_s=1.0), OURS)
    order = make_order(hasty)
    delay(vcenter, CloneVM_Task=1.5)
    world = vcenter.client.simulator.world
    world.faults.add({"method": "CancelTask", **rule})
    assert hasty.ensure_clone(order, ignore).identity == order.identity
    assert world.requests["CancelTask"] == world.requests["CloneVM_Task"] == 1


def start_clone(hypervisor: VsphereHypervisor, order: CloneOrder) -> CloneOrder:
    """Send the clone call as a run does that dies right after it noted the task."""

    class DeadError(Exception):
        """The process ended."""

    tasks: list[str] = []

    def die(task: str) -> None:
        tasks.append(task)
        raise DeadError

    with pytest.raises(DeadError):
        hypervisor.ensure_clone(order, die)
    return replace(order, vim_task=tasks[0])


def outdate(order: CloneOrder) -> CloneOrder:
    """Let the template have changed since it was pinned."""
    return replace(order, pin=replace(order.pin, change_version="older"))


def test_a_clone_under_way_is_followed_by_its_task(
    vcenter: Simulated, hypervisor: VsphereHypervisor, count: Count
) -> None:
    order = make_order(hypervisor)
    delay(vcenter, CloneVM_Task=0.7)
    order = outdate(start_clone(hypervisor, order))
    count()
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity
    assert "CloneVM_Task" not in count()


def test_a_task_of_an_earlier_run_is_never_cancelled(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor)
    delay(vcenter, CloneVM_Task=1.2)
    order = start_clone(hypervisor, order)
    hasty = vcenter.connect_within(Limits(clone_s=0.3), OURS)
    with pytest.raises(VsphereUnavailableError, match="not within"):
        hasty.ensure_clone(order, ignore)
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity
    requests = vcenter.client.simulator.world.requests
    assert (requests["CloneVM_Task"], requests["CancelTask"]) == (1, 0)


def test_a_clone_under_way_is_found_without_its_task(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor)
    delay(vcenter, CloneVM_Task=0.7)
    start_clone(hypervisor, order)
    assert hypervisor.ensure_clone(outdate(order), ignore).identity == order.identity
    assert vcenter.list_names() == {order.vm_name}


@pytest.mark.parametrize(("may_be_coming", "calls"), [(True, 0), (False, 1)])
def test_a_clone_that_may_be_under_way_is_waited_for_before_another_call(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    count: Count,
    may_be_coming: bool,  # noqa: FBT001 - of a table
    calls: int,
) -> None:
    order = make_order(hypervisor)
    delay(vcenter, CloneVM_Task=0.7)
    start_clone(hypervisor, order)
    count()
    order = replace(order, may_be_coming=may_be_coming)
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity
    assert count().get("CloneVM_Task", 0) == calls, "one that is sent is refused by its name"
    assert vcenter.list_names() == {order.vm_name}


@pytest.mark.parametrize("known", ["failed", "forgotten"])
def test_a_task_that_made_nothing_is_no_obstacle(
    vcenter: Simulated, hypervisor: VsphereHypervisor, known: str
) -> None:
    order = replace(make_order(hypervisor), vim_task="task-99999")
    if known == "failed":
        rule = {"method": "CloneVM_Task", "what": "task-error", "when": "before"}
        vcenter.client.simulator.world.faults.add(rule)
        order = start_clone(hypervisor, order)
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity
    vcenter.remove(hypervisor.ensure_clone(order, ignore).moref)
    again = hypervisor.ensure_clone(order, ignore)
    assert again.identity == order.identity, "a task that ended well, and a VM removed since"


def test_a_task_that_made_something_else_is_not_taken(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    other, order = make_order(hypervisor, vm_name="other"), make_order(hypervisor)
    tasks: list[str] = []
    hypervisor.ensure_clone(other, tasks.append)
    vm = hypervisor.ensure_clone(replace(order, vim_task=tasks[0]), ignore)
    assert vm.identity == order.identity
    assert vcenter.list_names() == {other.vm_name, order.vm_name}


def test_references_that_are_no_longer_good_are_looked_up_anew(
    vcenter: Simulated, hypervisor: VsphereHypervisor, count: Count
) -> None:
    order = make_order(hypervisor)
    fault = {"method": "CloneVM_Task", "what": "vmodl.fault.ManagedObjectNotFound"}
    vcenter.client.simulator.world.faults.add(fault)
    count()
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity
    spent = count()
    assert (spent["CloneVM_Task"], spent["FindByInventoryPath"]) == (2, 6)


def test_a_name_that_nothing_visible_bears_is_unknown_not_taken(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor)
    names = vcenter.client.simulator.world.reserved_names
    names.add((vcenter.client.labs._moId, order.vm_name))  # as a clone does that no task tells of
    with pytest.raises(VsphereUnavailableError, match="nothing that is shown"):
        hypervisor.ensure_clone(order, ignore)
    names.clear()
    assert hypervisor.ensure_clone(order, ignore).identity == order.identity


def test_a_clone_whose_task_a_restart_forgot_is_made_once(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor)
    delay(vcenter, CloneVM_Task=0.5)
    world = vcenter.client.simulator.world
    world.faults.add({"method": "CloneVM_Task", "what": "restart", "when": "after"})

    def is_made() -> bool:
        with contextlib.suppress(VsphereUnavailableError):
            return hypervisor.ensure_clone(order, ignore).identity == order.identity
        return False

    wait_until(is_made)
    wait_until(lambda: not world.reserved_names)
    assert len(list(world.of_type(vim.VirtualMachine))) == 3, "two templates and one clone"


def test_a_template_that_changes_under_the_clone_call_is_said(
    vcenter: Simulated, hypervisor: VsphereHypervisor, meddler: Meddler
) -> None:
    order = make_order(hypervisor)

    def remake_snapshot() -> None:
        vcenter.client.do(vcenter.client.template.RemoveAllSnapshots_Task())
        vcenter.snapshot(vcenter.client.template._moId, "labctl-base")

    meddler.do_before("CloneVM_Task", remake_snapshot)
    with pytest.raises(TemplateChangedError, match="snapshot was snapshot-"):
        hypervisor.ensure_clone(order, ignore)
    assert vcenter.list_names() == set()


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


def test_a_clone_that_came_without_its_mark_is_not_taken(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    order = make_order(hypervisor)
    labs = vcenter.client.labs

    def deface(_task: str) -> None:
        wait_until(lambda: labs.childEntity)
        vcenter.set_option(labs.childEntity[0]._moId, MARK_KEY, "")

    with pytest.raises(NotOwnedError, match="it has no mark"):
        hypervisor.ensure_clone(order, deface)
    assert vcenter.list_names() == {order.vm_name}
