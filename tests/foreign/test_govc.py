"""govc, the command line of VMware, against the simulator; a plain client sees what it did."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.foreign.conftest import Govc
from tests.simulator.conftest import Client

LABS = "/DC0/vm/labs"
SOURCE = ("-vm", "debian-13", "-folder", "labs", "-on=false")


@pytest.fixture(scope="module", name="fresh")
def _fresh(govc: Govc, client: Client) -> Any:
    """Make VMs by govc: linked clones that are off."""

    def clone(name: str) -> Any:
        govc.must("vm.clone", *SOURCE, "-link", "-snapshot", "labctl-base", name)
        return client.find(f"{LABS}/{name}")

    return clone


def disk_of(config: Any) -> Any:
    kind: Any = vim.vm.device.VirtualDisk
    (disk,) = [one for one in config.hardware.device if isinstance(one, kind)]
    return disk


def options_of(vm: Any) -> dict[str, str]:
    return {item.key: item.value for item in vm.config.extraConfig}


def names_of(tree: Any) -> Any:
    return {one["name"]: names_of(one["childSnapshotList"] or []) for one in tree}


def test_about(govc: Govc, client: Client) -> None:
    about = govc.ask("about")["about"]
    own = client.content.about
    assert (about["instanceUuid"], about["apiVersion"]) == (own.instanceUuid, own.apiVersion)
    assert about["apiType"] == "VirtualCenter"


def test_who_gives_another_password_is_not_let_in(program: Any, client: Client) -> None:
    other = Govc(program, client.simulator)
    other._environ["GOVC_PASSWORD"] = "wrong"
    done = other.run("about")
    assert done.returncode == 1
    assert "incorrect user name or password" in done.stderr


def test_ls_and_find(govc: Govc, client: Client) -> None:
    folders = [f"/DC0/{name}" for name in ("vm", "host", "datastore", "network")]
    assert govc.must("ls").split() == folders
    assert set(govc.must("ls", "network").split()) == {
        f"/DC0/network/{one.name}" for one in client.find("DC0/network").childEntity
    }
    templates = {
        f"/DC0/vm/templates/{one.name}" for one in client.find("DC0/vm/templates").childEntity
    }
    assert set(govc.must("find", "/DC0/vm/templates", "-type", "m").split()) == templates
    assert govc.must("find", "/", "-type", "m", "-config.template", "true").split() == [
        "/DC0/vm/templates/debian-13-marked"
    ]
    assert govc.must("ls", "vm/nothing") == ""


def test_a_full_clone(govc: Govc, client: Client) -> None:
    govc.must("vm.clone", *SOURCE, "-c", "3", "-m", "1024", "-annotation", "by govc", "full")
    vm = client.find(f"{LABS}/full")
    assert (vm.config.hardware.numCPU, vm.config.hardware.memoryMB) == (3, 1024)
    assert (vm.config.annotation, vm.runtime.powerState) == ("by govc", "poweredOff")
    assert disk_of(vm.config).backing.parent is None
    (told,) = govc.ask("vm.info", "full")["virtualMachines"]
    assert told["config"]["instanceUuid"] == vm.config.instanceUuid
    assert told["summary"]["config"]["numCpu"] == 3
    assert told["snapshot"] is None


def test_a_linked_clone(fresh: Any, client: Client) -> None:
    parent = disk_of(fresh("linked").config).backing.parent
    base = disk_of(client.template.snapshot.currentSnapshot.config)
    assert parent.fileName == base.backing.fileName


def test_a_name_that_is_taken(govc: Govc, fresh: Any, client: Client) -> None:
    vm = fresh("taken")
    assert govc.fault("vm.clone", *SOURCE, "-force", "taken") == "DuplicateName"
    assert "already exists" in govc.run("vm.clone", *SOURCE, "taken").stderr, "by the files"
    assert [one for one in client.labs.childEntity if one.name == "taken"] == [vm]
    assert govc.fault("folder.create", f"{LABS}/taken") == "DuplicateName"
    assert govc.fault("object.rename", f"{LABS}/taken", "") == "InvalidName"


def test_change(govc: Govc, fresh: Any) -> None:
    vm = fresh("changed")
    pairs = ("-e", "guestinfo.one=a=b", "-e", "guestinfo.two=2")
    govc.must("vm.change", "-vm", "changed", "-c", "1", "-m", "2048", *pairs)
    assert (vm.config.hardware.numCPU, vm.config.hardware.memoryMB) == (1, 2048)
    options = options_of(vm)
    assert (options["guestinfo.one"], options["guestinfo.two"]) == ("a=b", "2")
    govc.must("vm.change", "-vm", "changed", "-e", "guestinfo.one=")
    assert "guestinfo.one" not in options_of(vm)
    told = govc.must("vm.info", "-e", "changed")
    assert "guestinfo.two" in told
    assert "guestinfo.one" not in told
    assert govc.fault("vm.change", "-vm", "changed", "-m", "2") == "InvalidArgument"


def test_power(govc: Govc, fresh: Any) -> None:
    vm = fresh("powered")
    steps = (
        ("-on", "poweredOn"),
        ("-suspend", "suspended"),
        ("-on", "poweredOn"),
        ("-reset", "poweredOn"),
        ("-off", "poweredOff"),
    )
    for flag, state in steps:
        govc.must("vm.power", flag, "powered")
        assert vm.runtime.powerState == state
    for flag in ("-off", "-suspend", "-reset", "-s", "-r"):
        assert govc.fault("vm.power", flag, "powered") == "InvalidPowerState"
    govc.must("vm.power", "-on", "powered")
    assert govc.fault("vm.power", "-on", "powered") == "InvalidPowerState"


def test_a_guest_is_asked_to_shut_down(govc: Govc, fresh: Any, client: Client) -> None:
    vm = fresh("asked")
    govc.must("vm.power", "-on", "asked")
    address = govc.must("vm.ip", "-wait", "20s", "asked").strip()
    assert address == vm.guest.ipAddress
    assert govc.must("vm.ip", "-a", "-v4", "-n", "ethernet-0", "asked").strip() == address
    assert govc.must("vm.info", "-vm.ip", address).split()[1] == "asked"
    assert govc.must("vm.info", "-vm.dns", "asked").split()[1] == "asked"
    govc.must("vm.power", "-s", "asked")
    client.wait_until(vm, "runtime.powerState", lambda state: state == "poweredOff")


def test_snapshots(govc: Govc, fresh: Any) -> None:
    vm = fresh("shot")
    assert govc.must("snapshot.tree", "-vm", "shot") == ""
    govc.must("snapshot.create", "-vm", "shot", "-d", "as it was", "first")
    govc.must("vm.change", "-vm", "shot", "-e", "guestinfo.later=1")
    govc.must("snapshot.create", "-vm", "shot", "second")
    assert names_of(govc.ask("snapshot.tree", "-vm", "shot")) == {"first": {"second": {}}}
    (root,) = vm.snapshot.rootSnapshotList
    assert (root.name, root.description) == ("first", "as it was")
    govc.must("snapshot.revert", "-vm", "shot", "first")
    assert govc.must("snapshot.tree", "-vm", "shot", "-C").strip() == "first"
    assert "guestinfo.later" not in options_of(vm)
    assert "not found" in govc.run("snapshot.remove", "-vm", "shot", "third").stderr
    govc.must("snapshot.remove", "-vm", "shot", "first/second")
    assert names_of(govc.ask("snapshot.tree", "-vm", "shot")) == {"first": {}}
    govc.must("snapshot.remove", "-vm", "shot", "*")
    assert vm.snapshot is None


def test_collect(govc: Govc, fresh: Any) -> None:
    vm = fresh("collected")
    paths = ("name", "config.instanceUuid", "guest.ipAddress", "parentVApp", "snapshot")
    rows = govc.ask("object.collect", f"{LABS}/collected", *paths)
    told = {row["name"]: row["val"] for row in rows}
    assert told == {"name": "collected", "config.instanceUuid": vm.config.instanceUuid}, "unset"
    whole = {row["name"] for row in govc.ask("object.collect", f"{LABS}/collected")}
    assert {"config", "runtime", "summary", "datastore"} <= whole
    assert {"customValue", "snapshot", "parentVApp"} & whole == set()
    assert govc.fault("object.collect", f"{LABS}/collected", "config.nothing") == "InvalidProperty"
    govc.must("vm.power", "-on", "collected")
    govc.must("object.collect", "-s", f"{LABS}/collected", "-guest.guestState", "running")
    assert govc.must("object.collect", "-s", f"{LABS}/collected", "guest.ipAddress").strip() == (
        vm.guest.ipAddress
    )


def test_folders(govc: Govc, fresh: Any, client: Client) -> None:
    vm = fresh("moved")
    govc.must("folder.create", f"{LABS}/one", f"{LABS}/one/two")
    govc.must("object.mv", f"{LABS}/moved", f"{LABS}/one/two")
    govc.must("object.rename", f"{LABS}/one", "three")
    assert client.find(f"{LABS}/three/two/moved") == vm
    assert govc.ask("folder.info", f"{LABS}/three")["folders"][0]["childEntity"]
    govc.must("vm.power", "-on", "moved")
    assert govc.fault("object.destroy", f"{LABS}/three") == "InvalidPowerState"
    govc.must("vm.power", "-off", "moved")
    govc.must("object.destroy", f"{LABS}/three")
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        assert vm.name
    assert "three" not in [one.name for one in client.labs.childEntity]


def test_templates(govc: Govc, fresh: Any, client: Client) -> None:
    vm = fresh("mould")
    govc.must("vm.markastemplate", "mould")
    assert vm.config.template
    assert vm.resourcePool is None
    assert govc.fault("vm.power", "-on", "mould") == "NotSupported"
    assert govc.fault("snapshot.create", "-vm", "mould", "x") == "NotSupported"
    govc.must("vm.markasvm", "-pool", "cluster-0/Resources", "mould")
    assert (vm.config.template, vm.resourcePool) == (False, client.pool)
    govc.must("vm.power", "-on", "mould")
    assert govc.fault("vm.markastemplate", "mould") == "InvalidPowerState"


def test_a_vm_is_destroyed_with_its_files(govc: Govc, fresh: Any) -> None:
    fresh("doomed")
    govc.must("vm.power", "-on", "doomed")
    files = govc.ask("datastore.ls", "-l", "doomed")[0]["file"]
    assert {one["path"] for one in files} == {"doomed.vmx", "doomed.vmdk"}
    assert all(one["fileSize"] > 0 for one in files)
    assert "doomed.vmdk" in govc.must("datastore.ls", "-l", "doomed")
    govc.must("vm.destroy", "doomed")
    assert govc.must("find", LABS, "-name", "doomed") == ""
    assert "was not found" in govc.run("datastore.ls", "doomed").stderr


@pytest.mark.parametrize("command", [("vm.power", "-on"), ("vm.destroy",), ("vm.markastemplate",)])
def test_what_is_not_there(govc: Govc, command: tuple[str, ...]) -> None:
    done = govc.run(*command, "nobody")
    assert (done.returncode, "vm 'nobody' not found" in done.stderr) == (1, True)


def test_tasks_and_events(govc: Govc, fresh: Any) -> None:
    vm = fresh("storied")
    govc.must("vm.power", "-on", "storied")
    govc.fault("vm.power", "-on", "storied")
    govc.must("vm.power", "-off", "storied")
    events = govc.must("events", "-l", f"{LABS}/storied")
    kinds = [line.split("[")[4].split("]")[0] for line in events.splitlines()]
    assert kinds == ["VmClonedEvent", "VmPoweredOnEvent", "VmPoweredOffEvent"]
    assert "VmPoweredOnEvent" not in govc.must("events", "-l", "-type", "VmPoweredOffEvent", LABS)
    assert govc.must("events", "/DC0/vm/templates") == ""
    for words in (("tasks", f"{LABS}/storied"), ("tasks", "-b", "1h", f"{LABS}/storied")):
        rows = [line.split() for line in govc.must(*words).splitlines()[1:]]
        assert [(row[0], row[6]) for row in rows] == [
            ("PowerOnVM", "success"),
            ("PowerOnVM", "error"),
            ("PowerOffVM", "success"),
        ]
    failed = govc.must("tasks", "-s", "error", "-r", LABS).splitlines()[1:]
    assert [line.split()[:2] for line in failed if vm.name in line] == [["PowerOnVM", "storied"]]


def test_custom_attributes(govc: Govc, fresh: Any) -> None:
    vm = fresh("attributed")
    key = int(govc.must("fields.add", "-type", "VirtualMachine", "owner"))
    govc.must("fields.set", "owner", "ana", f"{LABS}/attributed")
    assert [(one.key, one.value) for one in vm.customValue] == [(key, "ana")]
    (told,) = govc.ask("fields.info", f"{LABS}/attributed")["info"]
    assert (told["key"], told["value"]) == ("owner", "ana")
    assert "The name 'owner' already exists." in govc.run("fields.add", "owner").stderr
    assert govc.fault("fields.set", "owner", "x", LABS) == "InvalidArgument"


def test_networks(govc: Govc, fresh: Any, client: Client) -> None:
    vm = fresh("plugged")
    for name in ("switched", "sealed"):
        govc.must("vm.network.change", "-vm", "plugged", "-net", name, "ethernet-0")
        assert list(vm.network) == [client.find(f"DC0/network/{name}")]
    govc.must("vm.network.add", "-vm", "plugged", "-net", "switched")
    govc.must("vm.power", "-on", "plugged")
    client.wait_until(
        vm, "guest.net", lambda net: {"sealed", "switched"} <= {one.network for one in net}
    )
