"""One installation with one simulator and one real lab, shared by every test of this folder.

labctl is run as IT runs it: as a command. What proves that something is there, left or untouched
asks the simulator by a plain pyVmomi client or Docker itself, never labctl.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

from provisioner.app.worker_process import find_worker
from provisioner.credentials import get_installation
from tests.e2e.canary import ProcessScan

PROJECT = Path(__file__).parents[2]
ANA = "ana@example.com"
LAB = "ana-mlops"


@dataclass
class Installation:
    """A state folder, and labctl run on it as a command."""

    state: Path
    key_file: Path
    transcripts: list[str] = field(default_factory=list)
    scan: ProcessScan | None = None
    simulator_id: str = ""

    @property
    def secret_homes(self) -> dict[str, Path]:
        """The one home of each secret that exists before a lab does."""
        return {
            "vCenter's password": Path(self.endpoint["password_file"]),
            "the installation's key": self.state / "installation.json",
        }

    @property
    def secrets(self) -> dict[str, bytes]:
        homes = self.secret_homes
        installation = get_installation(self.state)
        return {
            "vCenter's password": homes["vCenter's password"].read_bytes().strip(),
            "the installation's key": installation.key,
        }

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "LABCTL_STATE": str(self.state)}

    def labctl(
        self, *words: str, project: Path = PROJECT, timeout_s: float = 600
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "provisioner.cli.main", *words],
            env={
                **self.environ,
                "PYTHONPATH": str(PROJECT),
                "LABCTL_PROJECT": str(project),
            },
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        self.transcripts.append(done.stdout + done.stderr)
        return done

    def must(self, *words: str, project: Path = PROJECT, timeout_s: float = 600) -> str:
        done = self.labctl(*words, project=project, timeout_s=timeout_s)
        assert done.returncode == 0, f"labctl {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def must_json(self, *words: str, project: Path = PROJECT) -> Any:
        return json.loads(self.must(*words, "--json", project=project))

    def provision(self) -> str:
        words = ("provision", "mlops-onboarding", "--hire", ANA, "--key", f"{self.key_file}.pub")
        return self.must(*words, "--days", "7", timeout_s=900)

    @property
    def endpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "simulator" / "endpoint.json").read_text())
        return found

    def ssh(
        self, command: str, *, stdin: str = "", timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the hire does: her key, the handover's ssh_config, another folder."""
        config = self.state / "handover" / LAB / "ssh_config"
        words = ["ssh", "-F", str(config), "-i", str(self.key_file), "-o", "BatchMode=yes"]
        return subprocess.run(
            [*words, "workbench", command],
            cwd="/",
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def admin(self, command: str) -> str:
        """Run a command as root on the guest, by labctl's own key and the printed inventory."""
        host = self.must_json("inventory", LAB)["all"]["hosts"]["workbench"]
        words = [
            "ssh",
            "-F",
            "none",
            "-i",
            host["ansible_ssh_private_key_file"],
            *host["ansible_ssh_common_args"].split(),
            f"{host['ansible_user']}@{host['ansible_host']}",
            "sudo -n bash -s",
        ]
        done = subprocess.run(
            words, input=command, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def make_project(folder: Path, blueprint: str, *slots: str) -> Path:
    """Make a project with a blueprint of small guests beside the real roles."""
    size = {"vm_template": "debian-13", "cpus": 1, "memory_mib": 1024, "networks": ["lab"]}
    guest = {**size, "roles": ["linux_baseline", "hire_account"]}
    lab = {
        "blueprint": blueprint,
        "title": "Small guests",
        "short": blueprint,
        "lease": {"default_days": 1, "max_days": 2, "grace_days": 0},
        "guests": [{"slot": slot, **guest} for slot in slots],
    }
    (folder / "labs" / blueprint).mkdir(parents=True)
    (folder / "labs" / blueprint / "lab.yml").write_text(json.dumps(lab))
    shutil.copy(PROJECT / "labs" / "stack.yml", folder / "labs")
    (folder / "playbooks").symlink_to(PROJECT / "playbooks")
    return folder


def docker(*words: str) -> list[str]:
    """Ask Docker itself; return its lines."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


def find_simulator_id(lab: Installation) -> str:
    """Find the label of what the simulator made: its guests' folders are mounted from its state."""
    show = '{{index .Config.Labels "labctl.sim"}} {{range .Mounts}}{{.Source}} {{end}}'
    ids = docker("ps", "-aq", "--filter", "label=labctl.sim")
    rows = [line.split() for line in docker("inspect", "-f", show, *ids)]
    (found,) = {row[0] for row in rows if any(str(lab.state) in mount for mount in row[1:])}
    return found


def containers_of(lab: Installation) -> set[str]:
    """Return the VMs (morefs) that this installation's simulator has containers or volumes of."""
    of_ours = ("--filter", f"label=labctl.sim={lab.simulator_id}", "--format")
    names = (
        *docker("ps", "-a", *of_ours, "{{.Names}}"),
        *docker("volume", "ls", *of_ours, "{{.Name}}"),
    )
    return {found for name in names for found in re.findall(r"vm-\d+", name)}


def find_container(lab: Installation) -> str:
    """Find the container behind the workbench by its address."""
    address = lab.must_json("inventory", LAB)["all"]["hosts"]["workbench"]["ansible_host"]
    show = "{{.ID}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    rows = [line.split() for line in docker("inspect", "-f", show, *docker("ps", "-q"))]
    (found,) = [row[0] for row in rows if address in row[1:]]
    return found


def find_vms(vcenter: Any, name: str) -> list[Any]:
    content = vcenter.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    try:
        return [vm for vm in view.view if vm.name == name]
    finally:
        view.Destroy()


def end_worker(lab: Installation) -> None:
    """End the worker that a verb has started, as its idle time would."""
    worker = find_worker(lab.state)
    if worker is None:
        return
    os.kill(worker, signal.SIGTERM)
    deadline_s = time.monotonic() + 120
    while find_worker(lab.state) == worker:
        assert time.monotonic() < deadline_s, (lab.state / "worker.log").read_text()[-4000:]
        threading.Event().wait(0.1)


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A fresh installation with a running simulator; nothing of it is left afterwards."""
    root = tmp_path_factory.mktemp("e2e")
    key_file = root / "ana"
    keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ana", "-f", str(key_file)]
    subprocess.run(keygen, check=True)
    made = Installation(root / "state", key_file)
    made.must("sim", "up", timeout_s=900)
    made.simulator_id = find_simulator_id(made)
    ours = f"label=labctl.sim={made.simulator_id}"
    assert docker("network", "ls", "-q", "--filter", ours), "negative control: there is something"
    try:
        yield made
    finally:
        made.must("sim", "down", "--yes")
        end_worker(made)
    assert docker("ps", "-aq", "--filter", ours) == []
    for kind in ("volume", "network", "image"):
        assert docker(kind, "ls", "-q", "--filter", ours) == [], f"a {kind} is left"
    assert not (made.state / "simulator" / "endpoint.json").exists()


@pytest.fixture(scope="session")
def lab(installation: Installation) -> Installation:
    """The installation with Ana's lab, provisioned by the command line under a secret scan."""
    with ProcessScan(installation.secrets) as scan:
        installation.provision()
    installation.scan = scan
    return installation


@pytest.fixture
def vcenter(installation: Installation) -> Iterator[Any]:
    """A plain pyVmomi client of the simulator's vCenter."""
    endpoint = installation.endpoint
    service = SmartConnect(
        host=endpoint["host"],
        port=endpoint["port"],
        user=endpoint["username"],
        pwd=Path(endpoint["password_file"]).read_text().strip(),
        disableSslCertValidation=True,
    )
    try:
        yield service
    finally:
        Disconnect(service)
