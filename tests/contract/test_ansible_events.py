"""What an Ansible run tells while it runs, and why one cannot start."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import paramiko
import pytest

from provisioner.credentials import FileCredentials
from provisioner.errors import (
    ConvergeError,
    HostKeyError,
    PlayFailedError,
)
from provisioner.model.observed import PlayProgress
from tests.contract.conftest import Ansible, run
from tests.contract.ssh_server import SshServer, serving

PROJECT = Path(__file__).parents[2]
LOCAL = {"ansible_connection": "local"}


# -- events ----------------------------------------------------------------------------------------


def test_a_slow_listener_holds_nothing_up(ansible: Ansible) -> None:
    """ansible-runner's own read loop would give up after a second."""
    events: list[PlayProgress] = []
    pause = threading.Event()

    def listen(event: PlayProgress) -> None:
        if not events:
            pause.wait(5)
        events.append(event)

    tasks = [{"name": f"Say {n}", "debug": {"msg": "x"}} for n in range(30)]
    (recap,) = ansible.configurator.run_play(ansible.order(tasks), listen, lambda: False)
    assert recap.ok == 30
    assert len([event for event in events if event.status == "ok"]) == 30


def test_roles_ignored_and_rescued_failures(ansible: Ansible) -> None:
    role = ansible.playbooks / "roles" / "linux_baseline" / "tasks"
    role.mkdir(parents=True)
    (role / "main.yml").write_text(json.dumps([{"name": "Look", "command": "true"}]))
    tasks: list[dict[str, Any]] = [
        {"name": "In a role", "import_role": {"name": "linux_baseline"}},
        {"name": "Allowed", "command": "false", "ignore_errors": True},
        {
            "name": "Rescue",
            "block": [{"name": "Rescued", "fail": {"msg": "this one was rescued"}}],
            "rescue": [{"name": "Mend", "debug": {"msg": "mended"}}],
        },
    ]
    events = run(ansible, tasks)
    assert [event.status for event in events if event.role == "linux_baseline"] == [
        "started",
        "changed",
    ]
    assert [e.status for e in events if e.play_task == "Allowed"] == ["started", "ok"]
    with pytest.raises(PlayFailedError, match="the real one"):
        run(ansible, [*tasks, {"name": "Break", "fail": {"msg": "the real one"}}])


def test_the_failed_item_of_a_loop_is_told(ansible: Ansible) -> None:
    tasks = [{"name": "Loop", "command": "test {{ item }} = 1", "loop": [1, 2]}]
    with pytest.raises(PlayFailedError, match="non-zero return code"):
        run(ansible, tasks)


def test_two_runs_at_once_do_not_mix(ansible: Ansible) -> None:
    seen: dict[str, list[str]] = {}

    def converge(lab: str) -> None:
        order = ansible.order(
            [{"name": "Say {{ inventory_hostname }}", "command": "sleep 1"}], {lab: LOCAL}, lab
        )
        events: list[PlayProgress] = []
        ansible.configurator.run_play(order, events.append, lambda: False)
        seen[lab] = [event.slot for event in events]

    threads = [threading.Thread(target=converge, args=(lab,)) for lab in ("ana-mlops", "ben-mlops")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert seen == {lab: [lab, lab] for lab in ("ana-mlops", "ben-mlops")}


# -- what cannot start -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- hosts: all\n  tasks: {", "YAML"),
        ("- hosts: all\n  roles: [nowhere]\n", "the role 'nowhere' was not found"),
        ("- hosts: all\n  task: []\n", "'task' is not a valid attribute"),
    ],
)
def test_a_playbook_that_cannot_start_says_why(ansible: Ansible, text: str, reason: str) -> None:
    with pytest.raises(ConvergeError, match=reason):
        ansible.configurator.run_play(ansible.order_text(text), lambda _event: None, lambda: False)


@pytest.mark.parametrize("missing", ["ansible.cfg", "ana-mlops.yml"])
def test_without_settings_or_playbook_nothing_is_started(ansible: Ansible, missing: str) -> None:
    order = ansible.order([{"name": "Look", "command": "true"}])
    (ansible.playbooks / missing).unlink()
    with pytest.raises(ConvergeError, match=f"there is no .*{missing}"):
        ansible.configurator.run_play(order, lambda _event: None, lambda: False)


# -- over SSH --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", ["right", "swapped"])
def test_the_pinned_host_key_decides(ansible: Ansible, tmp_path: Path, pinned: str) -> None:
    """ansible-runner switches host key checking off unless it is told not to."""
    key = FileCredentials(tmp_path).ensure_lab_key("ana-mlops", 1)
    server = SshServer(
        paramiko.ECDSAKey.generate(bits=256), authorized={"labctl": {key.public_key}}
    )
    known_hosts = tmp_path / "known_hosts"
    with serving(server):
        shown = server.host_key if pinned == "right" else paramiko.ECDSAKey.generate(bits=256)
        known_hosts.write_text(f"ana-workbench {shown.get_name()} {shown.get_base64()}\n")
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": server.port,
            "ansible_user": "labctl",
            "ansible_ssh_private_key_file": key.private_file,
            "ansible_ssh_transfer_method": "piped",
            "ansible_ssh_use_tty": False,
            "ansible_remote_tmp": str(tmp_path / "remote"),
            "ansible_ssh_common_args": (
                f"-o HostKeyAlias=ana-workbench -o UserKnownHostsFile={known_hosts} "
                "-o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
            ),
        }
        if pinned == "right":
            events = run(ansible, [{"name": "Ping", "ping": {}}], workbench=host)
            assert events[-1].status == "ok"
        else:
            with pytest.raises(HostKeyError, match="guest workbench answers with another"):
                run(ansible, [{"name": "Ping", "ping": {}}], workbench=host)
            assert server.attempts == []
    assert ansible.run_folders() == []
