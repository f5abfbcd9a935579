"""The PropertyCollector: versions, truncation, cancel, list views, pages."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from pyVmomi import vim, vmodl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulator.conftest import Client

Query = vmodl.query.PropertyCollector


@pytest.fixture(name="pool")
def _pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def annotate(client: Client, vm: Any, text: str) -> None:
    client.do(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation=text)))


def changes(update: Any) -> list[tuple[str, Any, str, Any]]:
    return [
        (found.kind, found.obj, change.name, change.val)
        for one in update.filterSet
        for found in one.objectSet
        for change in found.changeSet
    ]


def test_first_everything_then_only_what_changed(client: Client) -> None:
    vm = client.clone("watched", annotation="one")
    client.filter([vm], ["config.annotation", "runtime.powerState", "guest.ipAddress"])
    first = client.wait()
    assert changes(first) == [
        ("enter", vm, "config.annotation", "one"),
        ("enter", vm, "runtime.powerState", "poweredOff"),
    ]
    assert client.wait(first.version, 0) is None
    annotate(client, vm, "two")
    second = client.wait(first.version)
    assert changes(second) == [("modify", vm, "config.annotation", "two")]
    assert client.collector.CheckForUpdates(second.version) is None
    assert changes(client.wait(first.version)) == changes(second), (
        "a lost answer can be asked again"
    )


def test_unset_again_is_a_change_without_a_value(client: Client) -> None:
    vm = client.clone("unset-again")
    client.do(vm.PowerOnVM_Task())
    client.wait_until(vm, "guest.ipAddress", bool)
    client.filter([vm], ["guest.ipAddress"])
    first = client.wait()
    client.do(vm.PowerOffVM_Task())
    assert changes(client.wait(first.version)) == [("modify", vm, "guest.ipAddress", None)]


def test_a_destroyed_object_leaves(client: Client) -> None:
    vm = client.clone("leaver")
    client.filter([vm], ["name"])
    first = client.wait()
    client.do(vm.Destroy_Task())
    update = client.wait(first.version)
    assert [(one.kind, one.obj) for one in update.filterSet[0].objectSet] == [("leave", vm)]
    assert client.wait(update.version, 0) is None


def test_truncated_updates_go_on_and_end(client: Client) -> None:
    vms = [client.clone(f"many-{number}") for number in range(5)]
    client.filter(vms, ["name"])
    seen, flags, version = [], [], ""
    while (update := client.wait(version, 0, limit=2)) is not None:
        assert len(update.filterSet[0].objectSet) <= 2
        seen += [found[1] for found in changes(update)]
        flags.append(bool(update.truncated))
        version = update.version
    assert sorted(map(str, seen)) == sorted(map(str, vms))
    assert flags == [True, True, False]


def test_invalid_and_outdated_versions(client: Client) -> None:
    vm = client.clone("versions")
    client.filter([vm], ["config.annotation"])
    versions = [client.wait().version]
    for text in ("a", "b"):
        annotate(client, vm, text)
        versions.append(client.wait(versions[-1]).version)
    for version in ("nonsense", versions[0]):
        with pytest.raises(vmodl.query.InvalidCollectorVersion):
            client.wait(version, 0)


def test_cancel_ends_the_wait_and_only_that(client: Client, pool: ThreadPoolExecutor) -> None:
    client.filter([client.template], ["name"])
    version = client.wait().version
    client.collector.CancelWaitForUpdates()
    waiting = pool.submit(client.wait, version, 30)
    while not waiting.done():
        client.collector.CancelWaitForUpdates()
    with pytest.raises(vmodl.fault.RequestCanceled):
        waiting.result()
    assert client.wait(version, 0) is None


def test_modify_list_view_wakes_a_wait(client: Client, pool: ThreadPoolExecutor) -> None:
    vms = [client.clone(f"listed-{number}") for number in range(2)]
    view = client.content.viewManager.CreateListView([vms[0]])
    query_spec = Query.FilterSpec(
        objectSet=[
            Query.ObjectSpec(
                obj=view,
                skip=True,
                selectSet=[Query.TraversalSpec(type=vim.view.ListView, path="view", skip=False)],
            )
        ],
        propSet=[Query.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
    )
    client.collector.CreateFilter(query_spec, True)
    first = client.wait()
    assert changes(first) == [("enter", vms[0], "name", "listed-0")]
    waiting = pool.submit(client.wait, first.version, 30)
    unknown = vim.VirtualMachine("vm-unknown", client.si._stub)
    assert view.ModifyListView(add=[vms[1], unknown], remove=None) == [unknown]
    update = waiting.result(10)
    assert changes(update) == [("enter", vms[1], "name", "listed-1")]
    view.ModifyListView(add=None, remove=[vms[0]])
    gone = client.wait(update.version)
    assert [(one.kind, one.obj) for one in gone.filterSet[0].objectSet] == [("leave", vms[0])]
    assert view.ResetListView([]) == []
    view.DestroyView()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        view.ResetListView([])


def test_a_new_filter_wakes_a_wait(client: Client, pool: ThreadPoolExecutor) -> None:
    client.filter([client.template], ["name"])
    version = client.wait().version
    waiting = pool.submit(client.wait, version, 30)
    late = client.filter([client.labs], ["name"])
    update = waiting.result(10)
    assert [one.filter for one in update.filterSet] == [late]
    late.DestroyPropertyFilter()
    assert client.wait(update.version, 0) is None


def test_tasks_are_followed_with_progress_and_state(client: Client) -> None:
    vm = client.clone("followed")
    task = vm.PowerOnVM_Task()
    assert client.wait_until(task, "info.state", lambda it: it == "success") == "success"
    assert task.info.progress == 100
    assert task.info.entity == vm
    assert task.info.name.info.name == "PowerOn"
    assert task in vm.recentTask
    assert task in client.content.taskManager.recentTask


def test_indexed_paths_and_what_is_missing(client: Client) -> None:
    option = vim.option.OptionValue(key="labctl.mark", value='it\'s "me"')
    vm = client.clone("indexed", extraConfig=[option])
    spec = Query.FilterSpec(
        objectSet=[Query.ObjectSpec(obj=vm)],
        propSet=[
            Query.PropertySpec(
                type=vim.VirtualMachine,
                pathSet=[
                    'config.extraConfig["labctl.mark"]',
                    'config.extraConfig["labctl.mark"].value',
                    'config.extraConfig["other"].value',
                    "config.hardware.device[4000].macAddress",
                    "config.hardware.device[2000].macAddress",
                    "guest.ipAddress",
                ],
            )
        ],
    )
    (content,) = client.collector.RetrieveProperties([spec])
    values = {prop.name: prop.val for prop in content.propSet}
    assert set(values) == {
        'config.extraConfig["labctl.mark"]',
        'config.extraConfig["labctl.mark"].value',
        "config.hardware.device[4000].macAddress",
    }
    assert values['config.extraConfig["labctl.mark"].value'] == option.value
    (missing,) = content.missingSet
    assert missing.path == "config.hardware.device[2000].macAddress"
    assert isinstance(missing.fault, vmodl.query.InvalidProperty)


@pytest.mark.parametrize(
    "path", ["nothing", "config.nothing", "config..name", "config.hardware.device.key", "name[1]"]
)
def test_paths_that_no_vm_has_are_refused(client: Client, path: str) -> None:
    with pytest.raises(vmodl.query.InvalidProperty):
        client.filter([client.template], [path])


def test_a_sweep_by_pages(client: Client) -> None:
    vms = [client.clone(f"swept-{number}") for number in range(5)]
    view = client.content.viewManager.CreateContainerView(client.labs, [vim.VirtualMachine], True)
    traversal = Query.TraversalSpec(type=vim.view.ContainerView, path="view", skip=False)
    spec = Query.FilterSpec(
        objectSet=[Query.ObjectSpec(obj=view, skip=True, selectSet=[traversal])],
        propSet=[Query.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
    )
    page = client.collector.RetrievePropertiesEx([spec], Query.RetrieveOptions(maxObjects=2))
    assert len(page.objects) == 2
    found, tokens = list(page.objects), [page.token]
    while page.token:
        page = client.collector.ContinueRetrievePropertiesEx(page.token)
        found += page.objects
        tokens.append(page.token)
    assert {f"swept-{number}" for number in range(5)} <= {item.propSet[0].val for item in found}
    assert {item.obj for item in found} >= set(vms)
    for used in (tokens[0], "page-unknown"):
        with pytest.raises(vmodl.fault.InvalidArgument):
            client.collector.ContinueRetrievePropertiesEx(used)
    page = client.collector.RetrievePropertiesEx([spec], Query.RetrieveOptions(maxObjects=1))
    client.collector.CancelRetrievePropertiesEx(page.token)
    with pytest.raises(vmodl.fault.InvalidArgument):
        client.collector.ContinueRetrievePropertiesEx(page.token)


def test_recursive_selection_by_name(client: Client) -> None:
    again = Query.SelectionSpec(name="folders")
    folders = Query.TraversalSpec(
        name="folders", type=vim.Folder, path="childEntity", skip=False, selectSet=[again]
    )
    down = Query.TraversalSpec(type=vim.Datacenter, path="vmFolder", skip=False, selectSet=[again])
    folders.selectSet = [again, down]
    spec = Query.FilterSpec(
        objectSet=[Query.ObjectSpec(obj=client.content.rootFolder, selectSet=[folders])],
        propSet=[
            Query.PropertySpec(type=vim.ManagedEntity, pathSet=["name"]),
            Query.PropertySpec(type=vim.VirtualMachine, pathSet=["config.template"]),
        ],
    )
    contents = client.collector.RetrieveProperties([spec])
    props = {item.obj: {prop.name: prop.val for prop in item.propSet} for item in contents}
    assert props[client.labs] == {"name": "labs"}
    assert props[client.template] == {"name": "debian-13", "config.template": False}
    unknown = Query.TraversalSpec(
        type=vim.Folder, path="childEntity", selectSet=[Query.SelectionSpec(name="nobody")]
    )
    spec.objectSet[0].selectSet = [unknown]
    with pytest.raises(vmodl.fault.InvalidArgument):
        client.collector.RetrieveProperties([spec])


def test_a_private_collector_is_independent(client: Client) -> None:
    private = client.collector.CreatePropertyCollector()
    spec = Query.FilterSpec(
        objectSet=[Query.ObjectSpec(obj=client.labs)],
        propSet=[Query.PropertySpec(type=vim.Folder, pathSet=["name"])],
    )
    one = private.CreateFilter(spec, False)
    assert private.filter == [one]
    assert client.collector.filter == []
    assert changes(private.WaitForUpdates("")) == [("enter", client.labs, "name", "labs")]
    private.DestroyPropertyCollector()
    for call in (lambda: private.WaitForUpdates(""), one.DestroyPropertyFilter):
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            call()


def test_many_waiters_miss_nothing(client: Client) -> None:
    """Sixteen clones end while one wait goes on: each end is reported exactly once."""
    tasks = [
        client.template.CloneVM_Task(client.labs, f"burst-{number}", client.linked_spec())
        for number in range(16)
    ]
    client.filter(tasks, ["info.state"])
    done: list[Any] = []
    version: str | None = ""
    stop = threading.Timer(20, client.collector.CancelWaitForUpdates)
    stop.start()
    while len(done) < len(tasks):
        update = client.wait(version, 10)
        version = update.version
        done += [ref for _, ref, _, state in changes(update) if state == "success"]
    stop.cancel()
    assert sorted(map(str, done)) == sorted(map(str, tasks))
