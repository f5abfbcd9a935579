"""Fault rules: what a client meets when one fires, and what is true in the inventory afterwards."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from provisioner.simulator.fault_rules import RuleError
from provisioner.simulator.restore import remember
from tests.simulator.conftest import Client

CUT = (OSError, http.client.HTTPException)
DEADLINE_S = 10.0
CURRENT_TIME = (
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<CurrentTime xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance</_this>'
    b"</CurrentTime></soapenv:Body></soapenv:Envelope>"
)


@pytest.fixture(name="client")
def _client(start: Callable[..., Client]) -> Client:
    return start()


def add(client: Client, method: str, what: str, **rule: Any) -> None:
    client.simulator.world.faults.add({"method": method, "what": what, **rule})


def start_clone(client: Client, name: str) -> Any:
    return client.template.CloneVM_Task(client.labs, name, client.linked_spec())


def names(client: Client) -> set[str]:
    """What is in the folder of the labs by the memory of the simulator."""
    world = client.simulator.world
    vms = world.of_type(vim.VirtualMachine)
    return {vm.config.name for vm in vms if vm.props["parent"]._moId == "group-v2"}


def wait_for_names(client: Client, wanted: set[str]) -> None:
    world, deadline = client.simulator.world, time.monotonic() + DEADLINE_S
    with world.changed:
        while names(client) != wanted:
            assert world.changed.wait(deadline - time.monotonic()), names(client)


def test_a_fault_answers_the_call_once(client: Client) -> None:
    add(client, "CloneVM_Task", "vim.fault.TaskInProgress")
    with pytest.raises(vim.fault.TaskInProgress):
        start_clone(client, "one")
    assert names(client) == set()
    client.do(start_clone(client, "two"))
    assert names(client) == {"two"}
    (rule,) = client.simulator.world.faults.list_rules()
    assert (rule["seen"], rule["fired"]) == (2, 1)


def test_a_fault_after_the_effect(client: Client) -> None:
    add(client, "CloneVM_Task", "vmodl.fault.HostCommunication", when="after")
    with pytest.raises(vmodl.fault.HostCommunication):
        start_clone(client, "made")
    wait_for_names(client, {"made"})


@pytest.mark.parametrize(
    ("rule", "fired"),
    [
        ({}, [1]),
        ({"nth": 3}, [3]),
        ({"nth": 2, "times": 2}, [2, 3]),
        ({"every": 2, "times": 9}, [2, 4, 6]),
    ],
    ids=["first", "third", "twice", "each second"],
)
def test_at_which_calls_a_rule_fires(
    client: Client, rule: dict[str, int], fired: list[int]
) -> None:
    add(client, "CurrentTime", "vmodl.fault.SystemError", **rule)
    met = []
    for number in range(1, 7):
        client.content.searchIndex.FindByInventoryPath("DC0")  # another method does not count
        try:
            client.si.CurrentTime()
        except vmodl.fault.SystemError:
            met.append(number)
    assert met == fired


def test_a_rule_for_every_method(client: Client) -> None:
    add(client, "*", "vmodl.fault.SystemError", nth=2)
    client.si.CurrentTime()
    with pytest.raises(vmodl.fault.SystemError):
        client.content.searchIndex.FindByInventoryPath("DC0")


@pytest.mark.parametrize("what", ["lost", "reset"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer(client: Client, what: str, when: str) -> None:
    add(client, "CloneVM_Task", what, when=when)
    with pytest.raises(CUT):
        start_clone(client, "lost")
    client.do(start_clone(client, "next"))
    wait_for_names(client, {"next"} | ({"lost"} if when == "after" else set()))
    assert client.simulator.world.requests["CloneVM_Task"] == 2


@pytest.mark.parametrize("what", ["lost", "reset"])
def test_how_the_connection_of_a_lost_answer_ends(client: Client, what: str) -> None:
    """Below TLS: Python's own TLS tells a reset from an end no more."""
    add(client, "CurrentTime", what)
    simulator = client.simulator
    plain = socket.create_connection((simulator.host, simulator.port), DEADLINE_S)
    with simulator.tls.wrap_socket(plain, server_hostname=simulator.host) as connection:
        head = f"POST /sdk HTTP/1.1\r\nContent-Length: {len(CURRENT_TIME)}\r\n\r\n"
        connection.sendall(head.encode() + CURRENT_TIME)
        try:
            while socket.socket.recv(connection, 4096):
                """What TLS itself still had to say."""
            ending = "lost"
        except ConnectionResetError:
            ending = "reset"
    assert ending == what


def test_a_late_answer(client: Client) -> None:
    add(client, "CurrentTime", "delay", seconds=0.3)
    began = time.monotonic()
    assert client.si.CurrentTime()
    late_s = time.monotonic() - began
    began = time.monotonic()
    assert client.si.CurrentTime()
    assert late_s >= 0.3 > time.monotonic() - began


def test_an_outage_cuts_everybody_and_ends(client: Client) -> None:
    other, cut = Client(client.simulator), threading.Event()
    one = other.filter([other.labs], ["name"])
    version = other.wait().version

    def wait() -> None:
        try:
            other.wait(version, 60)
        except CUT:
            cut.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    client.simulator.world.settings.method_delays_s = {"CloneVM_Task": 0.1}
    start_clone(client, "begun")
    add(client, "CurrentTime", "outage", seconds=60)
    with pytest.raises(CUT):
        client.si.CurrentTime()
    assert cut.wait(DEADLINE_S), "a call that waits is cut too"
    waiting.join()
    with pytest.raises(CUT):
        client.si.CurrentTime()
    wait_for_names(client, {"begun"})
    client.simulator.world.faults.clear()
    assert client.si.CurrentTime(), "the session outlived it"
    one.Destroy()


def test_an_outage_ends_by_itself(client: Client) -> None:
    add(client, "CurrentTime", "outage", seconds=0.2)
    with pytest.raises(CUT):
        client.si.CurrentTime()
    deadline, answer = time.monotonic() + DEADLINE_S, None
    while answer is None and time.monotonic() < deadline:
        with suppress(*CUT):
            answer = client.si.CurrentTime()
    assert answer is not None, "it never came back"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_session_that_dies(client: Client, when: str) -> None:
    other = Client(client.simulator)
    add(client, "CreateContainerView", "expire", when=when)
    with pytest.raises(vim.fault.NotAuthenticated):
        client.content.viewManager.CreateContainerView(client.content.rootFolder, [], True)
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = client.labs
    assert other.labs.name == "labs"


def test_a_restart(client: Client) -> None:
    vm = client.clone("kept")
    client.do(vm.CreateSnapshot_Task("before", "", False, False))
    client.do(vm.PowerOnVM_Task())
    view = client.content.viewManager.CreateContainerView(client.content.rootFolder, [], True)
    uuid, key = vm.config.instanceUuid, client.content.eventManager.latestEvent.key
    client.simulator.world.settings.method_delays_s = {"CloneVM_Task": 0.1}
    task = start_clone(client, "under way")
    add(client, "CurrentTime", "restart")
    with pytest.raises(CUT):
        client.si.CurrentTime()
    with pytest.raises(vim.fault.NotAuthenticated):
        _ = client.labs
    again = Client(client.simulator)
    wait_for_names(again, {"kept", "under way"})
    found = again.content.searchIndex.FindByUuid(None, uuid, True, True)
    assert found._moId != vm._moId
    assert (found.name, found.runtime.powerState) == ("kept", "poweredOn")
    assert found.snapshot.currentSnapshot.vm == found
    assert again.content.eventManager.latestEvent.key > key
    for gone, name in ((vm, "name"), (view, "view"), (task, "info")):
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            getattr(type(gone)(gone._moId, again.si._stub), name)
    again.do(found.PowerOffVM_Task())
    again.do(found.Destroy_Task())
    assert not [path for path in again.simulator.world.files if "/kept" in path]


def test_a_rollback(client: Client) -> None:
    old = client.clone("old")
    doomed = client.clone("doomed")
    remember(client.simulator.world, "monday")
    key = client.content.eventManager.latestEvent.key
    client.do(old.PowerOnVM_Task())
    client.do(doomed.Destroy_Task())
    new = client.clone("new")
    assert client.content.eventManager.latestEvent.key > key
    add(client, "CurrentTime", "rollback", to="monday")
    with pytest.raises(CUT):
        client.si.CurrentTime()
    again = Client(client.simulator)
    assert names(again) == {"old", "doomed"}
    events = again.content.eventManager.QueryEvents(vim.event.EventFilterSpec())
    assert [event.key for event in events][-2:] == [key, key + 1]
    assert isinstance(events[-1], vim.event.UserLoginSessionEvent)
    assert any("/new.vmdk" in path for path in again.simulator.world.files)
    assert again.find("DC0/vm/labs/old").runtime.powerState == "poweredOn"
    assert again.find("DC0/vm/labs/old").runtime.connectionState == "connected"
    assert again.find("DC0/vm/labs/doomed").runtime.connectionState == "orphaned"
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        _ = vim.VirtualMachine(new._moId, again.si._stub).name


def test_a_rollback_to_a_state_nobody_remembers_changes_nothing(client: Client) -> None:
    client.clone("kept")
    add(client, "CurrentTime", "rollback", to="never")
    with pytest.raises(vmodl.fault.SystemError, match="never"):
        client.si.CurrentTime()
    assert names(client) == {"kept"}
    assert client.labs.name == "labs"


def test_a_task_that_works_and_ends_in_error(client: Client) -> None:
    add(client, "CloneVM_Task", "task-error", fault="vmodl.fault.HostNotConnected")
    task = start_clone(client, "made")
    with pytest.raises(vmodl.fault.HostNotConnected):
        client.do(task)
    assert (task.info.state, names(client)) == ("error", {"made"})


def test_a_task_that_fails_before_it_works(client: Client) -> None:
    add(client, "*", "task-error", when="before")
    with pytest.raises(vmodl.fault.SystemError):
        client.do(start_clone(client, "never"))
    assert names(client) == set()


@pytest.mark.parametrize("method", ["CloneVM_Task", "CancelTask"])
def test_a_cancel_that_is_ignored(client: Client, method: str) -> None:
    client.simulator.world.settings.method_delays_s = {"CloneVM_Task": 0.2}
    add(client, method, "cancel-ignored")
    first = start_clone(client, "first")
    first.CancelTask()
    client.do(first)
    second = start_clone(client, "second")
    second.CancelTask()
    with pytest.raises(vmodl.fault.RequestCanceled):
        client.do(second)
    assert names(client) == {"first"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no what": ({"method": "CloneVM_Task"}, "at least method and what"),
    "method": ({"method": "CloneVM", "what": "lost"}, "no method 'CloneVM'"),
    "what": ({"method": "*", "what": "loss"}, "'loss' is neither a fault nor one of"),
    "no fault": ({"method": "*", "what": "vim.VirtualMachine"}, "neither a fault"),
    "key": ({"method": "*", "what": "lost", "often": 3}, "no rule has 'often'"),
    "type": ({"method": "*", "what": "lost", "nth": "3"}, "nth cannot be '3'"),
    "truth": ({"method": "*", "what": "lost", "nth": True}, "nth cannot be True"),
    "when": ({"method": "*", "what": "lost", "when": "now"}, "before or after"),
    "never": ({"method": "*", "what": "lost", "times": 0}, "count from 1"),
    "nth": ({"method": "*", "what": "lost", "nth": 0}, "count from 1"),
    "both": ({"method": "*", "what": "lost", "nth": 2, "every": 2}, "not both"),
    "no delay": ({"method": "*", "what": "delay"}, "delay needs seconds"),
    "seconds": ({"method": "*", "what": "lost", "seconds": 1}, "takes no seconds"),
    "past": ({"method": "*", "what": "restart", "seconds": -1}, "not negative"),
    "no task": ({"method": "Login", "what": "task-error"}, "starts a task"),
    "cancel": ({"method": "CancelTask", "what": "task-error"}, "starts a task"),
    "task fault": ({"method": "*", "what": "task-error", "fault": "x"}, "'x' is neither"),
}


@pytest.mark.parametrize("case", BAD)
def test_rules_that_make_no_sense_are_refused_and_change_nothing(client: Client, case: str) -> None:
    plain, text = BAD[case]
    good = {"method": "CurrentTime", "what": "lost"}
    with pytest.raises(RuleError, match=text) as caught:
        client.simulator.world.faults.add(good, plain)
    assert str(caught.value).startswith("rule 1: ")
    assert client.simulator.world.faults.list_rules() == []
    assert client.si.CurrentTime()
