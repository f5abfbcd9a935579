"""Users who see and do only what they are granted; the administrator is the negative control."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.simulator.conftest import Client
from tests.simulator.test_control import ask
from tests.simulator.test_refusals import disk, nic_on

LABS = "DC0/vm/labs"
NAME, PASSWORD = "ana@vsphere.local", "a word"
CLONE: dict[str, list[str]] = {
    "DC0/vm/templates": ["VirtualMachine.Provisioning.Clone"],
    LABS: [
        "VirtualMachine.Inventory.CreateFromExisting",
        "VirtualMachine.Config.CPUCount",
        "VirtualMachine.Config.AddRemoveDevice",
    ],
    "DC0/host/cluster-0/Resources": ["Resource.AssignVMToPool"],
    "DC0/datastore/datastore-0": ["Datastore.AllocateSpace"],
    "DC0/network/lab": ["Network.Assign"],
}


def grant(client: Client, *grants: Any, **by_path: list[str]) -> Client:
    """Make the user anew with these grants, and log in."""
    told = [*grants, *({"path": path, "privileges": one} for path, one in by_path.items())]
    user = {"name": NAME, "password": PASSWORD, "grants": told}
    assert ask(client.simulator, "POST", "users", [user]) == (200, [NAME])
    return Client(client.simulator, NAME, PASSWORD)


def below(path: str, *privileges: str, propagate: bool = True) -> dict[str, Any]:
    return {"path": path, "privileges": ["System.Read", *privileges], "propagate": propagate}


def view(client: Client) -> set[str]:
    root = client.content.rootFolder
    found = client.content.viewManager.CreateContainerView(root, [vim.ManagedEntity], True)
    return {ref.name for ref in found.view}


def read(client: Client, ref: Any, path: str) -> tuple[Any, Any]:
    """Return a property by the collector, or the fault in its place."""
    query = vmodl.query.PropertyCollector
    spec = query.FilterSpec(
        objectSet=[query.ObjectSpec(obj=ref)],
        propSet=[query.PropertySpec(type=type(ref), pathSet=[path])],
    )
    (found,) = client.content.propertyCollector.RetrieveProperties([spec])
    values, faults = [one.val for one in found.propSet], [one.fault for one in found.missingSet]
    return next(iter(values), None), next(iter(faults), None)


def test_what_is_not_granted_is_not_there(client: Client) -> None:
    hidden = client.clone("hidden")
    ana = grant(client, below("DC0/vm/templates"))
    search = ana.content.searchIndex
    assert view(ana) == {"DC0", "vm", "templates", "debian-13", "debian-13-marked"}
    assert view(ana) < view(client)
    assert search.FindByInventoryPath(f"{LABS}/hidden") is None
    assert search.FindByUuid(None, hidden.config.instanceUuid, True, True) is None
    assert search.FindByUuid(None, ana.template.config.instanceUuid, True, True) == ana.template
    assert [ref.name for ref in ana.find("DC0/vm").childEntity] == ["templates"]
    events = ana.content.eventManager.QueryEvents(vim.event.EventFilterSpec())
    assert "hidden" not in {event.vm.name for event in events if event.vm}
    unseen = vim.VirtualMachine(hidden._moId, ana.si._stub)
    with pytest.raises(vim.fault.NoPermission) as caught:
        _ = unseen.name
    assert (caught.value.object, caught.value.privilegeId) == (unseen, "System.View")
    assert isinstance(read(ana, unseen, "name")[1], vim.fault.NoPermission)
    assert read(client, hidden, "name") == ("hidden", None)


def test_what_is_on_the_way_is_seen_and_not_read(client: Client) -> None:
    ana = grant(client, below(LABS))
    above = ana.find("DC0/vm")
    assert read(ana, above, "name") == ("vm", None)
    fault = read(ana, above, "permission")[1]
    assert (fault.object, fault.privilegeId) == (above, "System.Read")
    assert read(ana, ana.labs, "permission") == (None, None)


def test_a_grant_that_does_not_propagate_and_one_that_takes_away(client: Client) -> None:
    client.clone("child")
    ana = grant(client, below(LABS, propagate=False))
    assert ana.labs.childEntity == []
    nothing = [{"path": path, "privileges": []} for path in (LABS, "DC0/host/cluster-0/Resources")]
    ana = grant(client, below("DC0"), *nothing)
    assert {"templates", "cluster-0", "datastore-1"} <= view(ana)
    assert not {"labs", "child"} & view(ana)
    assert {"labs", "child"} <= view(grant(client, below("DC0")))


def test_a_vm_stands_below_its_pool_too(client: Client) -> None:
    client.clone("pooled")
    ana = grant(client, below("DC0/host/cluster-0/Resources", "VirtualMachine.Interact.PowerOn"))
    (vm,) = [one for one in ana.pool.vm if one.name == "pooled"]
    ana.do(vm.PowerOnVM_Task())
    with pytest.raises(vim.fault.NoPermission):
        vm.PowerOffVM_Task()


def test_a_filter_shows_what_a_new_grant_allows(client: Client) -> None:
    ana = grant(client, below(LABS))
    ana.filter([vim.VirtualMachine(client.template._moId, ana.si._stub)], ["name"])
    first = ana.wait()
    assert not first.filterSet[0].objectSet[0].changeSet
    grant(client, below(LABS), below("DC0/vm/templates"))
    change = ana.wait(first.version).filterSet[0].objectSet[0].changeSet
    assert [one.val for one in change] == ["debian-13"]


@pytest.mark.parametrize("path", [None, *CLONE])
def test_what_a_clone_needs(client: Client, path: str | None) -> None:
    """With all of it the clone is made; without any one of it, it is refused."""
    grants = {**CLONE, **({path: ["System.Read"]} if path else {})}
    ana = grant(client, **grants)
    spec = ana.linked_spec(numCPUs=1)
    spec.location.datastore = ana.find("DC0/datastore/datastore-0")
    spec.config.deviceChange = nic_on("lab").deviceChange
    if path is None:
        vm = ana.clone("by-ana", spec)
        task = [one for one in client.content.taskManager.recentTask if one.info.result == vm]
        assert task[0].info.reason.userName == NAME
        assert client.content.eventManager.latestEvent.userName == NAME
        return
    with pytest.raises(vim.fault.NoPermission) as caught:
        ana.template.CloneVM_Task(ana.labs, "refused", spec)
    lacking = caught.value
    assert lacking.privilegeId in CLONE[path]
    assert lacking.missingPrivileges[0].privilegeIds == [lacking.privilegeId]
    assert client.content.searchIndex.FindByInventoryPath(f"{LABS}/refused") is None


OTHERS: dict[str, Any] = {
    "VirtualMachine.Inventory.Delete": lambda _, vm: vm.Destroy_Task(),
    "VirtualMachine.Inventory.Move": lambda it, vm: it.labs.MoveIntoFolder_Task([vm]),
    "VirtualMachine.Inventory.Unregister": lambda _, vm: vm.UnregisterVM(),
    "VirtualMachine.Config.Rename": lambda _, vm: vm.Rename_Task("x"),
    "VirtualMachine.Config.Memory": lambda _, vm: vm.ReconfigVM_Task(
        vim.vm.ConfigSpec(memoryMB=1024)
    ),
    "VirtualMachine.Config.Settings": lambda _, vm: vm.ReconfigVM_Task(
        vim.vm.ConfigSpec(guestId="otherLinux64Guest")
    ),
    "VirtualMachine.Config.AddNewDisk": lambda _, vm: vm.ReconfigVM_Task(disk()),
    "VirtualMachine.State.CreateSnapshot": lambda _, vm: vm.CreateSnapshot_Task(
        "s", "", False, False
    ),
    "Folder.Create": lambda it, _: it.labs.CreateFolder("new"),
    "Datastore.Browse": lambda it, _: it.find(
        "DC0/datastore/datastore-0"
    ).browser.SearchDatastore_Task("[datastore-0]"),
}


@pytest.mark.parametrize("privilege", OTHERS)
def test_what_other_calls_need(client: Client, privilege: str) -> None:
    act, vm = OTHERS[privilege], client.clone(f"for {privilege}")
    others = [one for one in OTHERS if one != privilege]
    for granted, is_allowed in ((others, False), ([privilege], True)):
        ana = grant(client, below("/", *granted))
        own = vim.VirtualMachine(vm._moId, ana.si._stub)
        if is_allowed:
            act(ana, own)
        else:
            with pytest.raises(vim.fault.NoPermission) as caught:
                act(ana, own)
            assert caught.value.privilegeId == privilege


def test_privileges_are_told_by_user_and_object(client: Client) -> None:
    ana = grant(client, below(LABS, "VirtualMachine.Interact.PowerOn"))
    manager, wanted = ana.content.authorizationManager, ["VirtualMachine.Interact.PowerOn"]
    told = manager.HasUserPrivilegeOnEntities([ana.labs, ana.find("DC0/vm")], NAME, wanted)
    assert [one.privAvailability[0].isGranted for one in told] == [True, False]
    session = ana.content.sessionManager.currentSession
    assert session.userName == NAME
    (told,) = manager.HasPrivilegeOnEntities(
        [ana.labs], session.key, ["System.Read", "Folder.Create"]
    )
    assert [one.isGranted for one in told.privAvailability] == [True, False]
    (told,) = manager.FetchUserPrivilegeOnEntities([ana.labs], NAME)
    assert told.privileges == ["System.Anonymous", "System.Read", "System.View", *wanted]
    root = client.content.authorizationManager
    (told,) = root.HasUserPrivilegeOnEntities([client.labs], client.simulator.world.caller, wanted)
    assert told.privAvailability[0].isGranted
    with pytest.raises(vim.fault.NoPermission):
        _ = ana.content.sessionManager.sessionList
    assert client.content.sessionManager.sessionList


@pytest.mark.parametrize(("name", "password"), [(NAME, "wrong"), (NAME, ""), ("bob", PASSWORD)])
def test_a_wrong_login(client: Client, name: str, password: str) -> None:
    grant(client, below(LABS))
    with pytest.raises(vim.fault.InvalidLogin):
        client.content.sessionManager.Login(name, password)


@pytest.mark.parametrize(
    ("users", "text"),
    [
        ({"name": "x"}, "give a list of users"),
        ([{"name": "x", "grants": []}], "a user has a name"),
        ([{"name": "Administrator@vsphere.local", "password": "x", "grants": []}], "a user has"),
        ([{"name": "x", "password": "x", "grants": [], "role": 1}], "some of name, password"),
        ([{"name": "x", "password": "x", "grants": [{"path": "DC9"}]}], "a path that exists"),
        ([{"name": "x", "password": "x", "grants": [{"path": "/"}]}], "a list of privileges"),
    ],
)
def test_users_that_make_no_sense_are_refused(client: Client, users: Any, text: str) -> None:
    before = dict(client.simulator.world.users)
    status, answer = ask(client.simulator, "POST", "users", users)
    assert (status, text in answer["error"]) == (400, True), answer
    assert client.simulator.world.users == before
