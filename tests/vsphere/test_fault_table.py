"""Every mutating call, and every way to lose its answer: the effect is there once, and only once.

A run that ends with "unknown" is run again, as the engine and IT do. What counts then is what the
simulated vCenter itself says, and how often the call was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pyVmomi import vim

from provisioner.errors import TaskFailedError, VsphereUnavailableError
from provisioner.model.observed import ObservedVm
from provisioner.ports import CloneOrder
from provisioner.rules.mark import DOSSIER_KEY
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.contract.conftest import wait_until
from tests.contract.guests import OURS, make_record
from tests.contract.vcenters import Simulated
from tests.vsphere.conftest import make_order

REQUEST_S, LATE_S = 1.3, 1.6
RUNS = 4


@dataclass
class Life:
    """One guest, as far as a case brings it, and what the store would know of it."""

    hypervisor: VsphereHypervisor
    order: CloneOrder
    vm: ObservedVm | None = None

    def clone(self) -> None:
        self.vm = self.hypervisor.ensure_clone(self.order, self.hear)

    def hear(self, vim_task: str) -> None:
        self.order = replace(self.order, vim_task=vim_task)

    def power_on(self) -> None:
        self.hypervisor.ensure_powered_on(self.order.identity)

    def boot(self) -> None:
        self.power_on()
        assert self.vm is not None
        self.hypervisor.wait_for_address(self.order.identity, self.vm.nics[0].mac, 10)

    def power_off(self) -> None:
        self.hypervisor.ensure_powered_off(self.order.identity, grace_s=0)

    def shut_down(self) -> None:
        self.hypervisor.ensure_powered_off(self.order.identity, grace_s=2)

    def write(self) -> None:
        self.hypervisor.write_dossier(self.order.identity, "a dossier")

    def cut(self) -> None:
        self.hypervisor.ensure_networks(self.order.identity, connected=False)

    def destroy(self) -> None:
        assert self.vm is not None
        self.hypervisor.destroy_vm(make_record(self.vm, self.order))


def find(world: Any, life: Life) -> Any:
    """Return what the simulator holds under the guest's UUID; it must not hold two."""
    uuid = life.order.identity.instance_uuid
    found = [vm for vm in world.of_type(vim.VirtualMachine) if vm.config.instanceUuid == uuid]
    assert len(found) <= 1
    return found[0] if found else None


def is_whole(vm: Any) -> bool:
    return vm is not None and vm.power == "poweredOff" and vm.option("guestinfo.userdata")


def is_gone(vm: Any) -> bool:
    return vm is None


def is_on(vm: Any) -> bool:
    return bool(vm.power == "poweredOn")


def is_off(vm: Any) -> bool:
    return bool(vm.power == "poweredOff")


def has_dossier(vm: Any) -> bool:
    return vm.option(DOSSIER_KEY) is not None


def is_cut(vm: Any) -> bool:
    links = [one.connectable for one in vm.config.hardware.device if one.connectable]
    return bool(links) and not any(link.startConnected for link in links)


Step = Callable[[Life], None]
MADE, ON = (Life.clone,), (Life.clone, Life.boot)
CASES: dict[str, tuple[str, tuple[Step, ...], Step, Callable[[Any], bool], set[str]]] = {
    "clone": ("CloneVM_Task", (), Life.clone, is_whole, {"VmClonedEvent"}),
    "power-on": ("PowerOnVM_Task", MADE, Life.power_on, is_on, {"VmPoweredOnEvent"}),
    "power-off": ("PowerOffVM_Task", ON, Life.power_off, is_off, {"VmPoweredOffEvent"}),
    "shut-down": (
        "ShutdownGuest",
        ON,
        Life.shut_down,
        is_off,
        {"VmPoweredOffEvent", "VmGuestShutdownEvent"},
    ),
    "dossier": ("ReconfigVM_Task", MADE, Life.write, has_dossier, {"VmReconfiguredEvent"}),
    "networks": ("ReconfigVM_Task", MADE, Life.cut, is_cut, {"VmReconfiguredEvent"}),
    "destroy": ("Destroy_Task", MADE, Life.destroy, is_gone, {"VmRemovedEvent"}),
}
FAULTS: dict[str, dict[str, Any]] = {
    "lost": {"what": "lost"},
    "reset": {"what": "reset"},
    "late": {"what": "delay", "seconds": LATE_S},
    "busy": {"what": "vim.fault.TaskInProgress"},
    "expired": {"what": "expire"},
    "restarted": {"what": "restart", "seconds": 0.0},
    "outage": {"what": "outage", "seconds": 0.3},
}


def count_events(world: Any) -> Counter[str]:
    with world.changed:
        return Counter(type(event).__name__.rpartition(".")[2] for event in world.events)


def until_known(world: Any, act: Callable[[], None]) -> None:
    """Run it again as long as the outcome is unknown."""
    for _ in range(RUNS):
        try:
            return act()
        except VsphereUnavailableError:
            wait_until(lambda: not world.faults.is_out)
    return act()


def live(vcenter: Simulated, steps: tuple[Step, ...]) -> Life:
    hypervisor = vcenter.connect_within(Limits(request_s=REQUEST_S), OURS)
    life = Life(hypervisor, make_order(hypervisor))
    for step in steps:
        step(life)
    return life


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("case", CASES)
def test_the_effect_is_there_once(vcenter: Simulated, case: str, fault: str, when: str) -> None:
    method, steps, act, proof, events = CASES[case]
    world, life = vcenter.client.simulator.world, live(vcenter, steps)
    assert not (steps and proof(find(world, life))), "the proof must be able to fail"
    happened, sent = count_events(world), world.requests[method]
    world.faults.add({"method": method, "when": when, **FAULTS[fault]})
    until_known(world, lambda: act(life))
    assert world.faults.list_rules()[0]["fired"] == 1
    assert proof(find(world, life))
    effects = count_events(world) - happened
    late_twin = fault == "late" and when == "before" and method == "ReconfigVM_Task"
    assert sum(effects[name] for name in events) <= (2 if late_twin else 1), effects
    had_effect = when == "after" and fault != "expired"
    assert world.requests[method] - sent <= (1 if had_effect and method != "CloneVM_Task" else 2)


@pytest.mark.parametrize("fault", ["busy", "expired"])
def test_a_guest_that_surely_was_not_asked_is_asked_again(vcenter: Simulated, fault: str) -> None:
    world, life = vcenter.client.simulator.world, live(vcenter, ON)
    world.faults.add({"method": "ShutdownGuest", **FAULTS[fault]})
    life.shut_down()
    effects = count_events(world)
    assert (effects["VmGuestShutdownEvent"], effects["VmPoweredOffEvent"]) == (1, 0)


TASKS = sorted(set(CASES) - {"shut-down"})


@pytest.mark.parametrize("case", TASKS)
def test_a_task_that_fails_after_its_work_is_no_failure(vcenter: Simulated, case: str) -> None:
    method, steps, act, proof, _ = CASES[case]
    world, life = vcenter.client.simulator.world, live(vcenter, steps)
    world.faults.add({"method": method, "what": "task-error"})
    sent = world.requests[method]
    act(life)
    assert proof(find(world, life))
    assert world.requests[method] - sent == 1


@pytest.mark.parametrize("case", TASKS)
def test_a_task_that_fails_before_its_work_is_one(vcenter: Simulated, case: str) -> None:
    method, steps, act, proof, _ = CASES[case]
    world, life = vcenter.client.simulator.world, live(vcenter, steps)
    world.faults.add({"method": method, "what": "task-error", "when": "before"})
    sent = world.requests[method]
    with pytest.raises(TaskFailedError, match="SystemError"):
        act(life)
    assert not (steps and proof(find(world, life)))
    assert world.requests[method] - sent == 1
    act(life)
    assert proof(find(world, life))
