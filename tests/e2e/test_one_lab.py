"""One lab's whole life on a real guest, in the order of a real life."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyVim.task import WaitForTask
from pyVmomi import vim

from tests.e2e.conftest import (
    LAB,
    PROJECT,
    Installation,
    containers_of,
    docker,
    find_container,
    find_vms,
)

PLAYBOOKS = PROJECT / "playbooks"
VM = f"{LAB}-workbench"
WAITS = {"": "true", "mlflow": "curl -fsS http://127.0.0.1:5000/health"}
BROKEN = yaml.safe_load((PROJECT / "tests" / "roles" / "broken.yml").read_text())


def play(lab: Installation, tmp_path: Path) -> dict[str, int]:
    """Run ansible-playbook by hand with the printed inventory; return the recap's counts."""
    inventory = tmp_path / "lab.yml"
    inventory.write_text(lab.must("inventory", LAB))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, "converge.yml"],
        cwd=PLAYBOOKS,
        env={**os.environ, "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    recap = re.search(r"^workbench .*: (.*)$", done.stdout, re.MULTILINE)
    assert recap, done.stdout[-2000:]
    return {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", recap[1])}


def test_first_converge_does_the_work(lab: Installation) -> None:
    rows = lab.must_json("logs", LAB, "--step", "converge")
    recap = next(row["text"] for row in rows if row["text"].startswith("recap"))
    changed = int(re.search(r"(\d+) changed", recap)[1])  # type: ignore[index]
    assert changed >= 20, recap


def test_provisioning_what_stands_changes_nothing(lab: Installation) -> None:
    before = lab.must_json("logs", LAB)
    output = lab.provision()
    assert "nothing was changed" in output
    assert lab.must_json("logs", LAB) == before


def test_the_guest_is_a_whole_machine(lab: Installation) -> None:
    assert lab.ssh("cat /proc/1/comm").stdout.strip() == "systemd"
    assert lab.ssh("systemctl is-system-running").stdout.strip() == "running"


HIRES_WORK = {
    "c++": """
        cat > /tmp/t.cpp <<'E'
#include <iostream>
int main() { std::cout << "six times seven is " << 6 * 7 << std::endl; }
E
        g++ -O2 -static -o /tmp/t /tmp/t.cpp && /tmp/t | grep 'is 42' && rm /tmp/t.cpp""",
    "container": """
        mkdir -p /tmp/c && cp /tmp/t /tmp/c/t
        printf 'FROM scratch\\nCOPY t /t\\nCMD ["/t"]\\n' > /tmp/c/Dockerfile
        docker build -q -t hires-own /tmp/c && docker run --rm hires-own | grep 'is 42'
        status=$?; docker image rm -f hires-own; rm -r /tmp/c; exit $status""",
    "mlflow": """
        eval "$(lab-credentials --shell)"
        /opt/mlflow/bin/python - <<'E'
import mlflow
mlflow.set_experiment("kept-by-ana")
with mlflow.start_run():
    mlflow.log_metric("auc", 0.93)
    mlflow.log_text("kept", "note.txt")
E
        """,
}


@pytest.mark.parametrize("work", HIRES_WORK)
def test_the_hire_works_with_her_own_key(lab: Installation, work: str) -> None:
    done = lab.ssh("bash -s", stdin=HIRES_WORK[work])
    assert done.returncode == 0, done.stdout + done.stderr


def test_verify_with_trials_passes_and_cleans_up(lab: Installation) -> None:
    report = lab.must_json("verify", LAB, "--trials")
    assert len(report["results"]) >= 10
    assert {result["kind"] for result in report["results"]} == {"check", "trial"}
    assert all(result["passed"] for result in report["results"])
    assert lab.admin("ls -A /run/labctl/keys 2>/dev/null | wc -l").strip() == "0"
    assert lab.ssh("docker ps -aq; docker images -q").stdout == ""


def test_a_second_converge_by_hand_changes_nothing(lab: Installation, tmp_path: Path) -> None:
    assert play(lab, tmp_path)["changed"] == 0
    path = "/etc/docker/daemon.json"
    lab.admin(f"sed -i 's/{{/{{ /' {path}")
    recap = play(lab, tmp_path)
    assert recap["changed"] <= 2, "the file, and at most its handler"
    assert recap["changed"] >= 1
    assert play(lab, tmp_path)["changed"] == 0


def test_the_handover_is_safe_and_works_when_unpacked(lab: Installation, tmp_path: Path) -> None:
    lab.must("handover", LAB, "--out", str(tmp_path))
    with tarfile.open(tmp_path / f"{LAB}.tar.gz") as archive:
        names = sorted(archive.getnames())
        archive.extractall(tmp_path / "unpacked", filter="data")
    assert [Path(name).name for name in names] == ["README.md", "known_hosts", "ssh_config"]
    texts = "".join(path.read_text() for path in (tmp_path / "unpacked").rglob("*.*"))
    assert "PRIVATE KEY" not in texts
    assert "password" in texts, "it says where passwords are"


def test_every_check_has_a_way_to_break_it(lab: Installation) -> None:
    report = lab.must_json("verify", LAB, "--trials")
    assert {result["name"] for result in report["results"]} == set(BROKEN)


@pytest.mark.parametrize("check", BROKEN)
def test_each_check_fails_when_its_thing_is_broken(lab: Installation, check: str) -> None:
    case = BROKEN[check]
    lab.admin(case["break"])
    try:
        done = lab.labctl("verify", LAB, "--json", "--check", check)
        (result,) = json.loads(done.stdout)["results"]
        assert result["passed"] is False
        assert result["saw"]
        assert done.returncode == 4
    finally:
        lab.admin(case["mend"])
        until = WAITS[case.get("wait", "")]
        lab.admin(f"for i in $(seq 60); do ({until}) && exit 0; sleep 1; done; exit 1")


def test_all_checks_pass_again_after_mending(lab: Installation) -> None:
    lab.must("verify", LAB)


def test_a_power_cycle_keeps_address_and_data(lab: Installation, vcenter: Any) -> None:
    (vm,) = find_vms(vcenter, VM)
    address = vm.guest.ipAddress
    WaitForTask(vm.PowerOffVM_Task())
    WaitForTask(vm.PowerOnVM_Task())
    deadline_s = time.monotonic() + 180
    while lab.labctl("verify", LAB).returncode != 0:
        assert time.monotonic() < deadline_s, lab.transcripts[-1]
    assert vm.guest.ipAddress == address
    done = lab.ssh(
        'eval "$(lab-credentials --shell)"; /opt/mlflow/bin/python -c "'
        "import mlflow; runs = mlflow.search_runs(experiment_names=['kept-by-ana']); "
        "print(runs['metrics.auc'][0], "
        "mlflow.artifacts.load_text(runs['artifact_uri'][0] + '/note.txt'))\""
    )
    assert done.stdout.split() == ["0.93", "kept"], done.stderr


def test_another_host_key_is_refused_by_ssh_and_verify(lab: Installation) -> None:
    swap = (
        "cd /etc/ssh && mkdir -p /root/kept && cp -p ssh_host_ed25519_key* /root/kept/ && "
        "rm ssh_host_ed25519_key* && ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && "
        "systemctl restart ssh"
    )
    container = find_container(lab)
    lab.admin(swap)
    try:
        refused = lab.ssh("true")
        assert refused.returncode == 255
        assert "host key verification failed" in refused.stderr.lower()
        done = lab.labctl("verify", LAB)
        assert done.returncode == 4, done.stdout + done.stderr
        assert "host key" in done.stderr
    finally:
        back = "cp -p /root/kept/* /etc/ssh/ && systemctl restart ssh"
        docker("exec", container, "bash", "-c", back)
    lab.must("verify", LAB)


@pytest.fixture(scope="module")
def planted() -> dict[str, Any]:
    """Morefs of what stands beside the lab, kept between the tests of this module."""
    return {}


def test_residue_a_foreign_disk_stops_the_teardown(
    lab: Installation, vcenter: Any, planted: dict[str, Any]
) -> None:
    (vm,) = find_vms(vcenter, VM)
    folder, pool = vm.parent, vm.resourcePool
    template = vcenter.content.searchIndex.FindByInventoryPath("/DC0/vm/templates/debian-13")
    relocate = vim.vm.RelocateSpec(pool=pool)
    alike = WaitForTask_result(
        template.CloneVM_Task(
            folder=folder, name=f"{VM}-2", spec=vim.vm.CloneSpec(location=relocate, powerOn=False)
        )
    )
    copy = WaitForTask_result(
        vm.CloneVM_Task(
            folder=folder,
            name=f"copy-of-{VM}",
            spec=vim.vm.CloneSpec(location=relocate, powerOn=False),
        )
    )
    marks = {option.key: option.value for option in copy.config.extraConfig}
    assert "labctl.mark" in marks, "the copy carries the mark"
    disk = vim.vm.device.VirtualDisk(
        controllerKey=next(
            device.key
            for device in vm.config.hardware.device
            if isinstance(device, vim.vm.device.VirtualSCSIController)
        ),
        unitNumber=5,
        key=-1,
        capacityInKB=1024 * 1024,
        backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            diskMode="persistent", thinProvisioned=True
        ),
    )
    change = vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk)
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
    planted |= {"alike": alike._moId, "copy": copy._moId}
    done = lab.labctl("teardown", LAB, "--yes")
    assert done.returncode == 6, done.stdout + done.stderr
    assert "disk" in done.stdout + done.stderr
    (vm,) = find_vms(vcenter, VM)
    disks = [d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)]
    assert len(disks) == 2
    assert vm.runtime.powerState == "poweredOn"
    assert lab.must_json("list")[0]["state"] == "residue"


def WaitForTask_result(task: Any) -> Any:  # noqa: N802 - reads like pyVim's own
    WaitForTask(task)
    return task.info.result


def test_teardown_needs_a_yes(lab: Installation) -> None:
    done = lab.labctl("teardown", LAB)
    assert done.returncode == 3
    assert "--yes" in done.stderr


def test_teardown_leaves_nothing_and_proves_it(
    lab: Installation, vcenter: Any, planted: dict[str, Any]
) -> None:
    (vm,) = find_vms(vcenter, VM)
    uuid, moref = vm.config.instanceUuid, vm._moId
    disk = [d for d in vm.config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)][-1]
    detach = vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk)
    WaitForTask(vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[detach])))
    receipt = lab.must_json("teardown", LAB, "--yes")
    assert all(row["gone"] for row in receipt["evidence"])
    assert uuid in json.dumps(receipt)
    assert find_vms(vcenter, VM) == []
    assert vcenter.content.searchIndex.FindByUuid(None, uuid, True, True) is None
    for name in (f"{VM}-2", f"copy-of-{VM}"):
        (kept,) = find_vms(vcenter, name)
        assert kept._moId in planted.values()
    assert moref not in containers_of(lab)
    text = lab.must("teardown", LAB, "--yes")
    assert "already" in text or uuid in text, "repeating is free and shows the receipt"


def test_nothing_of_the_lab_is_left_on_this_machine(lab: Installation, vcenter: Any) -> None:
    for name in (f"{VM}-2", f"copy-of-{VM}"):
        (kept,) = find_vms(vcenter, name)
        WaitForTask(kept.Destroy_Task())
    assert containers_of(lab) <= {"vm-1", "vm-2"}, "the two templates at most"
    assert not list((lab.state / "keys").rglob("*ana*"))
