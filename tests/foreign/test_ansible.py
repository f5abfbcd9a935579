"""Ansible's own collection for VMware against the simulator; a plain client sees what it did."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from provisioner.simulator.state_dir import USERNAME
from tests.simulator.conftest import Client, Simulator

pytestmark = pytest.mark.foreign
BIN = Path(__file__).parents[2] / "build" / "foreign" / "bin"
PLACE = {"datacenter": "DC0", "folder": "/DC0/vm/labs"}
NAME = "by-ansible"


class Ansible:
    """ansible-playbook of the collection's own environment."""

    def __init__(self, folder: Path, simulator: Simulator) -> None:
        self._folder = folder
        self._environ = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "SSL_CERT_FILE": str(simulator.ca_file),
            "VMWARE_HOST": simulator.host,
            "VMWARE_PORT": str(simulator.port),
            "VMWARE_USER": USERNAME,
            "VMWARE_PASSWORD": simulator.password,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PYTHON_INTERPRETER": str(BIN / "python"),
        }

    def run(self, *tasks: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Run tasks, each a module and its arguments; return what each one answered."""
        listed = [{f"community.vmware.{name}": arguments} for name, arguments in tasks]
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False}
        playbook = self._folder / "play.yml"
        playbook.write_text(json.dumps([{**play, "tasks": listed}]))
        done = subprocess.run(
            [BIN / "ansible-playbook", "--inventory", "localhost,", playbook],
            env=self._environ,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.stdout, done.stderr
        (told,) = json.loads(done.stdout)["plays"]
        answers = [task["hosts"]["localhost"] for task in told["tasks"]]
        assert done.returncode == 0, answers[-1]["msg"]
        return answers

    def run_twice(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Run a task two times: the first changes something, the second finds it done."""
        task = (name, {**PLACE, "name": NAME, **arguments})
        first, second = self.run(task, task)
        assert (first["changed"], second["changed"]) == (True, False)
        return second


@pytest.fixture(scope="module", name="ansible")
def _ansible(tmp_path_factory: pytest.TempPathFactory, client: Client) -> Ansible:
    assert BIN.exists(), "the collection has an environment of its own: use `make foreign`"
    return Ansible(tmp_path_factory.mktemp("ansible"), client.simulator)


def test_it_asks_what_there_is(ansible: Ansible, client: Client) -> None:
    template = {"datacenter": "DC0", "name": "debian-13", "folder": "/DC0/vm/templates"}
    about, vms, guest, stores, folders, disks, snapshots = ansible.run(
        ("vmware_about_info", {}),
        ("vmware_vm_info", {"folder": "/DC0/vm/templates"}),
        ("vmware_guest_info", template),
        ("vmware_datastore_info", {"datacenter": "DC0"}),
        ("vmware_folder_info", {"datacenter": "DC0"}),
        ("vmware_guest_disk_info", template),
        ("vmware_guest_snapshot_info", template),
    )
    assert about["about_info"]["instance_uuid"] == client.content.about.instanceUuid
    found = {one["guest_name"]: one["uuid"] for one in vms["virtual_machines"]}
    listed = client.find("DC0/vm/templates").childEntity
    assert found == {one.name: one.config.uuid for one in listed}
    assert guest["instance"]["instance_uuid"] == client.template.config.instanceUuid
    assert guest["instance"]["customvalues"] == {}
    names = {one["name"] for one in stores["datastores"]}
    assert names == {one.name for one in client.find("DC0/datastore").childEntity}
    assert "labs" in json.dumps(folders["flat_folder_info"])
    assert disks["guest_disk_info"]["0"]["capacity_in_kb"] == 33554432
    assert snapshots["guest_snapshots"]["current_snapshot"]["name"] == "labctl-base"


def test_a_wrong_password_fails(ansible: Ansible) -> None:
    with pytest.raises(AssertionError, match="incorrect user name or password"):
        ansible.run(("vmware_about_info", {"password": "wrong"}))


def test_a_guest_has_a_life(ansible: Ansible, client: Client) -> None:
    where = {"cluster": "cluster-0", "template": "debian-13"}
    size = {"num_cpus": 3, "memory_mb": 1024}
    given = {"hardware": size, "annotation": "by Ansible"}
    ansible.run_twice("vmware_guest", state="poweredoff", **where, **given)
    vm = client.find(f"{PLACE['folder']}/{NAME}")
    hardware = vm.config.hardware
    assert (hardware.numCPU, hardware.memoryMB, vm.config.annotation) == (3, 1024, "by Ansible")
    assert vm.runtime.powerState == "poweredOff"

    on = ansible.run_twice("vmware_guest", state="poweredon", wait_for_ip_address=True)
    assert vm.runtime.powerState == "poweredOn"
    assert on["instance"]["ipv4"] == vm.guest.ipAddress is not None

    attributes = [{"name": "owner", "value": "ana"}]
    ansible.run_twice("vmware_guest_custom_attributes", state="present", attributes=attributes)
    assert [one.value for one in vm.customValue] == ["ana"]

    ansible.run_twice("vmware_guest_snapshot", state="present", snapshot_name="first")
    assert [one.name for one in vm.snapshot.rootSnapshotList] == ["first"]
    renamed = {"snapshot_name": "first", "new_snapshot_name": "renamed"}
    ansible.run(("vmware_guest_snapshot", {**PLACE, "name": NAME, "state": "present", **renamed}))
    assert [one.name for one in vm.snapshot.rootSnapshotList] == ["renamed"]
    ansible.run_twice("vmware_guest_snapshot", state="absent", snapshot_name="renamed")
    assert vm.snapshot is None

    ansible.run_twice("vmware_guest", state="absent", force=True)
    assert client.content.searchIndex.FindByInventoryPath(f"{PLACE['folder']}/{NAME}") is None
