"""Events and tasks of the past, by query and by the collectors that page through them."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.simulator.conftest import Client
from tests.simulator.test_permissions import below, grant

ByEntity = vim.event.EventFilterSpec.ByEntity


def kinds_of(events: Any) -> list[str]:
    return [type(event).__name__.rpartition(".")[2] for event in events]


def about(ref: Any, recursion: str = "all", **more: Any) -> Any:
    entity = ByEntity(entity=ref, recursion=recursion)
    return vim.event.EventFilterSpec(entity=entity, **more)


@pytest.fixture(name="told")
def _told(start: Callable[..., Client]) -> tuple[Client, Any]:
    """A VM that was cloned, powered on and off, in a simulator of its own."""
    client = start()
    vm = client.clone("told")
    client.do(vm.PowerOnVM_Task())
    client.do(vm.PowerOffVM_Task())
    return client, vm


STORY = ["VmClonedEvent", "VmPoweredOnEvent", "VmPoweredOffEvent"]


@pytest.mark.parametrize(
    ("path", "recursion", "wanted"),
    [
        ("DC0/vm/labs/told", "self", STORY),
        ("DC0/vm/labs/told", "children", []),
        ("DC0/vm/labs", "self", []),
        ("DC0/vm/labs", "children", STORY),
        ("DC0/vm/labs", "all", STORY),
        ("DC0/host/cluster-0/Resources", "all", STORY),
        ("DC0/vm/templates", "all", []),
        ("/", "all", ["UserLoginSessionEvent", *STORY]),
    ],
)
def test_events_by_the_objects_that_they_are_about(
    told: tuple[Client, Any], path: str, recursion: str, wanted: list[str]
) -> None:
    client, _ = told
    ref = client.content.rootFolder if path == "/" else client.find(path)
    events = client.content.eventManager.QueryEvents(about(ref, recursion))
    assert kinds_of(events) == wanted


def test_events_by_the_names_of_their_types(told: tuple[Client, Any]) -> None:
    client, vm = told
    names = ["VmPoweredOnEvent", "vim.event.VmPoweredOffEvent"]
    query = client.content.eventManager.QueryEvents
    assert kinds_of(query(about(vm, eventTypeId=names))) == STORY[1:]
    info = {one.key: one.category for one in client.content.eventManager.description.eventInfo}
    assert info[vim.event.VmPoweredOnEvent] == "info"


def test_a_filter_is_honoured_or_refused(told: tuple[Client, Any]) -> None:
    client, vm = told
    by_user = vim.event.EventFilterSpec.ByUsername(systemUser=False, userList=["x"])
    manager = client.content.eventManager
    for ask in (manager.QueryEvents, manager.CreateCollectorForEvents):
        with pytest.raises(vmodl.fault.NotSupported):
            ask(about(vm, userName=by_user))


def test_a_collector_reads_on_from_where_it_was(told: tuple[Client, Any]) -> None:
    client, vm = told
    collector = client.content.eventManager.CreateCollectorForEvents(about(vm))
    assert kinds_of(collector.ReadNextEvents(2)) == STORY[:2]
    assert kinds_of(collector.ReadNextEvents(2)) == STORY[2:]
    assert not collector.ReadNextEvents(2)
    client.do(vm.PowerOnVM_Task())
    assert kinds_of(collector.ReadNextEvents(2)) == ["VmPoweredOnEvent"]
    collector.RewindCollector()
    assert len(collector.ReadNextEvents(10)) == 4
    for ask in (collector.ReadNextEvents, collector.SetCollectorPageSize):
        with pytest.raises(vmodl.fault.InvalidArgument):
            ask(0)
    collector.DestroyCollector()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        collector.ReadNextEvents(1)


def test_the_latest_page_follows_what_happens(told: tuple[Client, Any]) -> None:
    client, vm = told
    collector = client.content.eventManager.CreateCollectorForEvents(about(vm))
    assert kinds_of(collector.latestPage) == STORY[::-1]
    collector.SetCollectorPageSize(2)
    assert kinds_of(collector.latestPage) == STORY[:0:-1]
    client.do(vm.PowerOnVM_Task())
    client.wait_until(
        collector, "latestPage", lambda page: kinds_of(page) == [*STORY[1:2], *STORY[2:]]
    )


def test_tasks_are_collected(told: tuple[Client, Any]) -> None:
    client, vm = told
    with pytest.raises(vim.fault.InvalidPowerState):
        client.do(vm.PowerOffVM_Task())
    now, kind = client.si.CurrentTime(), vim.TaskFilterSpec
    started = kind.ByTime(timeType="startedTime", beginTime=now.replace(year=now.year - 1))
    entity = kind.ByEntity(entity=client.labs, recursion="all")
    collect = client.content.taskManager.CreateCollectorForTasks
    collector = collect(kind(entity=entity, time=started))
    tasks = [(one.descriptionId, one.state) for one in collector.ReadNextTasks(10)]
    off = "VirtualMachine.powerOff"
    assert tasks == [("VirtualMachine.powerOn", "success"), (off, "success"), (off, "error")]
    assert collector.latestPage[0].error.existingState == "poweredOff"
    failed = collect(kind(entity=entity, state=["error"]))
    assert [one.descriptionId for one in failed.ReadNextTasks(10)] == [off]
    later = kind.ByTime(timeType="completedTime", beginTime=now.replace(year=now.year + 1))
    assert not collect(kind(time=later)).ReadNextTasks(10)
    client.do(vm.PowerOnVM_Task())
    client.wait_until(collector, "latestPage", lambda page: len(page) == 4)


def test_what_a_user_cannot_see_did_not_happen(client: Client) -> None:
    client.do(client.clone("unseen").PowerOnVM_Task())
    ana = grant(client, below("DC0/vm/templates"))
    root = client.content.rootFolder
    for one, expected in ((client, True), (ana, False)):
        spec = vim.TaskFilterSpec()
        tasks = one.content.taskManager.CreateCollectorForTasks(spec).ReadNextTasks(1000)
        collector = one.content.eventManager.CreateCollectorForEvents(about(root))
        events = [event.vm.name for event in collector.ReadNextEvents(1000) if event.vm]
        assert ("unseen" in [one.entityName for one in tasks]) is expected
        assert ("unseen" in events) is expected
