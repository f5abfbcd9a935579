"""No secret outside its one home: processes during a provision, files and vCenter after it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from pyVmomi import vim

from provisioner.converge.run_folder import SHARED_MEMORY, RunFolders
from tests.e2e.canary import ProcessScan, find_in_files, spell
from tests.e2e.conftest import LAB, Installation


def born_on_the_guest(lab: Installation) -> dict[str, bytes]:
    """Every password that was born on the guest, read there by root."""
    shown = lab.ssh("lab-credentials --shell").stdout
    (line,) = [line for line in shown.splitlines() if "PASSWORD" in line]
    return {"Ana's MLflow password": line.split("=", 1)[1].strip("'\"").encode()}


def private_key(lab: Installation) -> tuple[Path, dict[str, bytes]]:
    path = Path(
        lab.must_json("inventory", LAB)["all"]["hosts"]["workbench"]["ansible_ssh_private_key_file"]
    )
    return path, {"the lab's private key": path.read_bytes().splitlines()[2]}


def test_no_process_carried_a_secret(lab: Installation) -> None:
    assert lab.scan is not None
    assert lab.scan.processes_read > 1000, "the scan really looked"
    assert lab.scan.hits == set()


def test_the_scan_would_see_one() -> None:
    secret = "a-planted-secret-4711"
    with ProcessScan({"planted": secret.encode()}) as scan:
        subprocess.run(["sleep", "0.3"], env={"PLANTED": secret}, check=True)
    assert scan.hits


def test_no_file_of_the_state_holds_one(lab: Installation) -> None:
    key_file, key = private_key(lab)
    secrets = {**lab.secrets, **born_on_the_guest(lab), **key}
    homes = {*lab.secret_homes.values(), key_file}
    for home in homes:
        assert home.stat().st_mode & 0o077 == 0, f"{home} is 0600"
    assert find_in_files(lab.state, secrets, homes) == []
    assert find_in_files(lab.state, secrets, set()), "negative control: the homes do hold them"


def test_no_run_folder_is_left(lab: Installation) -> None:
    runs = lab.state / "runs"
    assert not list(runs.glob("*"))
    assert not list(SHARED_MEMORY.glob(f"{RunFolders(runs)._prefix}*"))


def test_vcenter_shows_none(lab: Installation, vcenter: Any) -> None:
    secrets = spell({**lab.secrets, **born_on_the_guest(lab), **private_key(lab)[1]})
    content = vcenter.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    texts = [
        f"{option.key}={option.value}".encode()
        for vm in view.view
        for option in vm.config.extraConfig
    ]
    assert any(text.startswith(b"labctl.mark=") for text in texts)
    assert [name for name, secret in secrets for text in texts if secret in text] == []


def test_no_output_of_labctl_shows_one(lab: Installation) -> None:
    secrets = spell({**lab.secrets, **born_on_the_guest(lab), **private_key(lab)[1]})
    lab.must("logs", LAB)
    lab.must("status", LAB)
    lab.must("list", "--all")
    texts = [transcript.encode() for transcript in lab.transcripts]
    assert [name for name, secret in secrets for text in texts if secret in text] == []
