"""One thread waits for everything, whatever happens to session, connection or task meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyVmomi import vim

from provisioner.errors import (
    GuestUnreachableError,
    StoppedError,
    TaskFailedError,
    VsphereUnavailableError,
)
from provisioner.vsphere import VsphereHypervisor, waiter
from provisioner.vsphere.waiter import Waiter
from tests.contract.hands import RealClock
from tests.contract.vcenters import Simulated
from tests.vsphere.conftest import Meddler
from tests.vsphere.test_session import end_other_sessions

Count = Callable[[], dict[str, int]]
KEY = "guestinfo.said"
SAID = f'config.extraConfig["{KEY}"]'
WAIT_S = 15.0


@pytest.fixture
def waiting(hypervisor: VsphereHypervisor) -> Iterator[Waiter]:
    made = Waiter(hypervisor._session, RealClock())
    yield made
    made.close()


def hear(option: Any) -> str | None:
    return str(option.value) if option is not None else None


def owners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "waiter"]


def test_many_waits_share_one_thread_and_few_requests(
    vcenter: Simulated, hypervisor: VsphereHypervisor, waiting: Waiter, count: Count
) -> None:
    hypervisor.observe_site()
    morefs = [vcenter.plant(f"vm{number}") for number in range(20)]
    vms = [vcenter.refer(moref) for moref in morefs]
    vcenter.client.simulator.world.settings.method_delays_s = {"PowerOnVM_Task": 0.2}
    with ThreadPoolExecutor(20) as pool:
        before = len(owners())
        tasks = [vm.PowerOnVM_Task() for vm in vms]
        count()
        list(pool.map(lambda task: waiting.wait_for_task(task, WAIT_S, "power on"), tasks))
        assert len(owners()) == before + 1
    assert all(vcenter.is_on(moref) for moref in morefs)
    spent = count()
    assert spent["WaitForUpdatesEx"] + spent["ModifyListView"] < 2 * len(tasks)
    assert spent["CreatePropertyCollector"] == spent["CreateListView"] == spent["CreateFilter"] == 1


def test_a_wait_survives_the_end_of_the_session(
    vcenter: Simulated, hypervisor: VsphereHypervisor, waiting: Waiter, count: Count
) -> None:
    hypervisor.observe_site()
    moref = vcenter.plant("vm")
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(waiting.wait_for, vcenter.refer(moref), SAID, hear, WAIT_S, "hear")
        seen = 0
        while not seen:
            seen = count().get("WaitForUpdatesEx", 0)
        end_other_sessions(vcenter)
        vcenter.set_option(moref, KEY, "hello")
        assert heard.result() == "hello"
    assert count()["Login"] == 1


@pytest.mark.parametrize(
    "method", ["WaitForUpdatesEx", "ModifyListView", "CreateFilter", "RetrievePropertiesEx"]
)
def test_a_wait_survives_a_lost_answer(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    waiting: Waiter,
    meddler: Meddler,
    method: str,
) -> None:
    hypervisor.observe_site()
    moref = vcenter.plant("vm")
    meddler.lose(method)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(waiting.wait_for, vcenter.refer(moref), SAID, hear, WAIT_S, "hear")
        vcenter.set_option(moref, KEY, "hello")
        assert heard.result() == "hello"
    assert method not in meddler.lost


def test_a_new_wait_does_not_sit_out_a_long_one(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    waiting: Waiter,
    monkeypatch: pytest.MonkeyPatch,
    count: Count,
) -> None:
    monkeypatch.setattr(waiter, "YOUNG_S", 0.0)
    hypervisor.observe_site()
    vms = [vcenter.refer(vcenter.plant(name)) for name in ("slow", "quick")]
    with ThreadPoolExecutor(1) as pool:
        never = pool.submit(waiting.wait_for, vms[0], SAID, hear, WAIT_S, "hear")
        while not waiting._parked:
            assert not never.done()
        started_s = time.monotonic()
        off = waiting.wait_for(vms[1], "runtime.powerState", str, WAIT_S, "look")
        assert off == "poweredOff"
        # What is followed already, and will not change, is looked at once all the same.
        known = waiting.wait_for(vms[0], SAID, lambda option: option is None, WAIT_S, "look")
        assert known is True
        assert time.monotonic() - started_s < waiter.OLD_WAIT_S / 2
        waiting.close()
        assert isinstance(never.exception(), StoppedError)
    assert count()["CancelWaitForUpdates"] >= 1


def test_closing_stops_who_waits_and_the_thread(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    made = Waiter(hypervisor._session, RealClock())
    before = len(owners())
    vm = vcenter.refer(vcenter.plant("vm"))
    with ThreadPoolExecutor(1) as pool:
        never = pool.submit(made.wait_for, vm, SAID, hear, WAIT_S, "hear")
        while len(owners()) == before:
            assert not never.done()
        made.close()
        assert isinstance(never.exception(), StoppedError)
    assert len(owners()) == before
    with pytest.raises(StoppedError):
        made.wait_for(vm, SAID, hear, WAIT_S, "hear")


def test_the_deadline_is_kept_while_vcenter_is_away(
    vcenter: Simulated, hypervisor: VsphereHypervisor, waiting: Waiter
) -> None:
    hypervisor.observe_site()
    vm = vcenter.refer(vcenter.plant("vm"))
    hypervisor._session._stub.DropConnections()
    hypervisor._session._stub.port = 1  # nothing listens there
    started_s = time.monotonic()
    with pytest.raises(VsphereUnavailableError, match="nothing listens there"):
        waiting.wait_for(vm, SAID, hear, 1.0, "hear")
    assert time.monotonic() - started_s < 3


@pytest.mark.parametrize("answers", [True, False])
def test_a_deadline_says_who_does_not_answer(
    vcenter: Simulated,
    hypervisor: VsphereHypervisor,
    waiting: Waiter,
    monkeypatch: pytest.MonkeyPatch,
    answers: bool,  # noqa: FBT001 - a case
) -> None:
    monkeypatch.setattr(waiter, "SILENT_S", 1.5)
    hypervisor.observe_site()
    vm = vcenter.refer(vcenter.plant("vm"))
    if not answers:
        rule = {"method": "WaitForUpdatesEx", "what": "delay", "seconds": 5.0}
        vcenter.client.simulator.world.faults.add(rule)
    kind = GuestUnreachableError if answers else VsphereUnavailableError
    with pytest.raises(kind, match="not within 2 s"):
        waiting.wait_for(vm, SAID, hear, 2.0, "hear", late=GuestUnreachableError)


def test_a_fault_of_an_unknown_type_harms_nobody_else(
    vcenter: Simulated, hypervisor: VsphereHypervisor, waiting: Waiter, meddler: Meddler
) -> None:
    hypervisor.observe_site()
    first, second = (vcenter.refer(vcenter.plant(name)) for name in ("one", "two"))
    meddler.rewrite("RetrievePropertiesEx", b'"InvalidPowerState"', b'"SystemErrorFault"')
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(waiting.wait_for, second, SAID, hear, WAIT_S, "hear")
        with pytest.raises(TaskFailedError, match="does not know"):
            waiting.wait_for_task(first.PowerOffVM_Task(), WAIT_S, "power off")
        vcenter.set_option(second._moId, KEY, "hello")
        assert other.result() == "hello"
    assert not meddler.rewritten


def test_a_forgotten_task_means_unknown(hypervisor: VsphereHypervisor, waiting: Waiter) -> None:
    hypervisor.observe_site()
    with pytest.raises(VsphereUnavailableError, match="forgotten the task"):
        waiting.wait_for_task(vim.Task("task-99999"), WAIT_S, "clone")


def test_a_decision_may_raise(
    vcenter: Simulated, hypervisor: VsphereHypervisor, waiting: Waiter
) -> None:
    hypervisor.observe_site()

    def refuse(_value: Any) -> None:
        raise TaskFailedError("not like this")

    vm = vcenter.refer(vcenter.plant("vm"))
    with pytest.raises(TaskFailedError, match="not like this"):
        waiting.wait_for(vm, "runtime.powerState", refuse, WAIT_S, "look")
    assert waiting.wait_for(vm, "runtime.powerState", str, WAIT_S, "look") == "poweredOff"
