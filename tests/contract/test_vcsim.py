"""The third vCenter: what it lacks is really lacking, and what it can be told to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from pyVmomi import vim

from provisioner.errors import LoginRefusedError, PrivilegeError
from tests.contract.conftest import wait_until
from tests.contract.guests import OURS, clone, make_identity, make_order
from tests.contract.lacks import LACKS
from tests.contract.vcenters import simulated
from tests.contract.vcsims import OnVcsim, vcsim

StartVcsim = Callable[..., AbstractContextManager[OnVcsim]]
NO_PERMISSION = 2  # govmomi's number of the fault, with the object that it is about


@pytest.fixture
def start(vcsim_program: Path, tmp_path: Path) -> StartVcsim:
    return partial(vcsim, vcsim_program, tmp_path)


# -- what it lacks -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LACKS)
def test_what_vcsim_lacks_is_in_our_simulator_and_not_in_it(
    start: StartVcsim, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    with simulated(tmp_path_factory.mktemp("ours")) as ours:
        assert LACKS[name].is_there(ours), "the probe sees nothing"
    with start() as hand:
        assert not LACKS[name].is_there(hand), f"vcsim learned it: {LACKS[name].instead}, once"


def test_every_lack_keeps_a_case_from_vcsim() -> None:
    cases = (path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))
    text = "".join(path.read_text() for path in cases)
    assert set(re.findall(r'mark\.needs\("([^"]+)"\)', text)) == set(LACKS)


# -- what it can be told -------------------------------------------------------------------------


def test_it_ends_with_its_input(start: StartVcsim, tmp_path: Path) -> None:
    with start() as hand:
        assert hand.vcsim.process.poll() is None
    assert hand.vcsim.process.returncode == 0
    assert any(tmp_path.iterdir()), "what it wrote lies in the folder of its test"


def test_only_its_account_logs_in(start: StartVcsim) -> None:
    with start() as hand:
        hand.vcsim.password = "another"
        with pytest.raises(LoginRefusedError):
            hand.connect(OURS).find_vm(make_identity())


def test_calls_are_delayed_by_their_method(start: StartVcsim) -> None:
    with start(CallDelays={"FindByUuid": 300}) as hand:
        hypervisor = hand.connect(OURS)
        hypervisor.read_clock()
        began_s = time.monotonic()
        assert hypervisor.find_vm(make_identity()) is None
        assert time.monotonic() - began_s >= 0.3


def test_delayed_clones_run_side_by_side(start: StartVcsim) -> None:
    delay_s, count = 2.0, 8
    with start(TaskDelays={"CloneVm": int(delay_s * 1000)}) as hand, ThreadPoolExecutor(8) as pool:
        hypervisor = hand.connect(OURS)
        began_s = time.monotonic()
        guests = list(
            pool.map(lambda at: clone(hypervisor, make_identity(f"node{at}")), range(count))
        )
        took_s = time.monotonic() - began_s
    assert len({guest.vm.moref for guest in guests}) == count
    assert delay_s <= took_s < delay_s * count


def test_an_idle_session_expires_and_is_opened_anew(start: StartVcsim) -> None:
    with start() as hand:
        content = hand.client.content
        timeout = vim.option.OptionValue(key="config.vmacore.soap.sessionTimeout", value="1s")
        content.setting.UpdateOptions([timeout])
        hypervisor = hand.connect(OURS)
        guest = clone(hypervisor)
        hypervisor._waiter.close()  # its waits and keepalives would hold the session
        login = hypervisor._session.login
        ask = partial(content.sessionManager.SessionIsActive, login.key, login.userName)
        wait_until(lambda: not ask())
        assert hypervisor.find_vm(guest.identity) == guest.vm
        assert hypervisor._session.login.key != login.key


def test_a_session_that_somebody_ends_while_a_clone_runs_costs_nothing(start: StartVcsim) -> None:
    with start(TaskDelays={"CloneVm": 2000}) as hand:
        hypervisor = hand.connect(OURS)
        order = make_order(hypervisor, make_identity())
        key = hypervisor._session.login.key
        tasks = list[str]()

        def end_session(task: str) -> None:
            tasks.append(task)
            hand.client.content.sessionManager.TerminateSession([key])

        assert hypervisor.ensure_clone(order, end_session).identity == order.identity
        assert hypervisor._session.login.key != key
        assert (len(tasks), hand.list_names()) == (1, {order.vm_name})


def test_a_clone_that_was_refused_without_effect_is_asked_for_again(start: StartVcsim) -> None:
    with start() as hand:
        hypervisor = hand.connect(OURS)
        order = make_order(hypervisor, make_identity())
        hand.vcsim.set_faults(
            {"FaultName": "ConcurrentAccess", "MethodName": "CloneVM_Task", "MaxCount": 1}
        )
        tasks = list[str]()
        assert hypervisor.ensure_clone(order, tasks.append).identity == order.identity
        assert (len(tasks), hand.list_names()) == (1, {order.vm_name})


def test_a_fault_that_holds_is_told_until_it_is_lifted(start: StartVcsim) -> None:
    with start() as hand:
        hypervisor = hand.connect(OURS)
        order = make_order(hypervisor, make_identity())
        hand.vcsim.set_faults({"FaultType": NO_PERMISSION, "MethodName": "CloneVM_Task"})
        with pytest.raises(PrivilegeError):
            hypervisor.ensure_clone(order, lambda _: None)
        assert hand.list_names() == set()
        hand.vcsim.set_faults()
        assert hypervisor.ensure_clone(order, lambda _: None).identity == order.identity
