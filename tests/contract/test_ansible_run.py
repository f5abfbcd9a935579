"""One Ansible run leaves no process, no file and no secret, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioner.converge import RunnerConfigurator, run_folder
from provisioner.converge.configurator import build_env
from provisioner.converge.processes import list_descendants, list_marked, read_command
from provisioner.errors import (
    BusyError,
    ConvergeError,
    GuestUnreachableError,
    PlayFailedError,
    StoppedError,
)
from provisioner.model.observed import PlayProgress
from tests.contract.conftest import Ansible, run, wait_until

PROJECT = Path(__file__).parents[2]
LOCAL = {"ansible_connection": "local"}


@pytest.fixture
def sleeps(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """Play tasks that start processes with a time of their own, and leave one of them behind."""
    number = f"{os.getpid()}{abs(hash(request.node.name)) % 10_000}"
    left = f"setsid sleep 300.1{number} >/dev/null 2>&1 </dev/null & sleep 300.2{number}"
    yield [{"name": "Sleep", "shell": left}]
    for pid in find_sleeps(number):
        os.kill(pid, signal.SIGKILL)


def find_sleeps(number: str) -> list[int]:
    return [pid for pid in list_pids() if number.encode() in read_command(pid)]


def list_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def get_number(sleeps: list[dict[str, Any]]) -> str:
    return str(sleeps[0]["shell"]).rpartition("300.2")[2]


# -- how a run ends --------------------------------------------------------------------------------


def test_cancelling_ends_all_that_the_run_started(
    ansible: Ansible, sleeps: list[dict[str, Any]]
) -> None:
    number = get_number(sleeps)
    seen: list[int] = []
    asked_s: list[float] = []

    def is_cancelled() -> bool:
        seen[:] = find_sleeps(number) or seen
        asked_s.append(time.monotonic() if len(seen) >= 2 else 0.0)
        return len(seen) >= 2

    with pytest.raises(StoppedError):
        ansible.configurator.run_play(ansible.order(sleeps), lambda _event: None, is_cancelled)
    assert time.monotonic() - asked_s[-1] < 15, "Ansible ended on being asked, nobody killed it"
    assert len(seen) >= 2, "negative control: they did run"
    assert find_sleeps(number) == []
    assert ansible.run_folders() == []


def test_what_a_good_run_leaves_behind_is_ended_too(ansible: Ansible) -> None:
    number = f"300.3{os.getpid()}"
    run(
        ansible, [{"name": "Leave", "shell": f"setsid sleep {number} >/dev/null 2>&1 </dev/null &"}]
    )
    assert find_sleeps(number) == []


def test_a_run_that_takes_too_long_is_stopped(
    ansible: Ansible, sleeps: list[dict[str, Any]]
) -> None:
    ansible.configurator._limit_s = 4
    with pytest.raises(GuestUnreachableError, match="did not end within 4 s"):
        ansible.configurator.run_play(ansible.order(sleeps), lambda _event: None, lambda: False)
    assert find_sleeps(get_number(sleeps)) == []


def test_a_killed_job_leaves_nothing(ansible: Ansible, sleeps: list[dict[str, Any]]) -> None:
    number = get_number(sleeps)
    killed: list[int] = []

    def is_cancelled() -> bool:
        jobs = [
            pid
            for pid in list_descendants(os.getpid())
            if b"provisioner.converge.job" in read_command(pid)
        ]
        if find_sleeps(number) and jobs and not killed:
            os.kill(jobs[0], signal.SIGKILL)
            killed.append(jobs[0])
        return False

    with pytest.raises(ConvergeError, match="failed without a play task"):
        ansible.configurator.run_play(ansible.order(sleeps), lambda _event: None, is_cancelled)
    assert killed
    assert find_sleeps(number) == []
    assert ansible.run_folders() == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_the_death_of_labctl_ends_the_run(
    ansible: Ansible, sleeps: list[dict[str, Any]], signum: signal.Signals
) -> None:
    number = get_number(sleeps)
    order = ansible.order(sleeps)
    program = textwrap.dedent(f"""
        from pathlib import Path
        from provisioner.converge import RunnerConfigurator
        from provisioner.ports import PlayOrder
        order = PlayOrder({order.lab_id!r}, {order.playbook!r}, {order.inventory!r})
        folders = Path({str(ansible.playbooks)!r}), Path({str(ansible.run_root)!r})
        RunnerConfigurator(*folders).run_play(order, lambda event: None, lambda: False)
    """)
    labctl = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT)
    wait_until(lambda: len(find_sleeps(number)) >= 2)
    labctl.send_signal(signum)
    labctl.wait(timeout=20)
    wait_until(lambda: not find_sleeps(number), deadline_s=30)
    (left,) = ansible.run_folders()
    wait_until(lambda: not list_marked(f"ANSIBLE_HOME={left}"), deadline_s=30)
    run(ansible, [{"name": "Look", "command": "true"}])
    assert ansible.run_folders() == [], "the next start removes what a killed one left"


NESTED = """
import os, signal, sys, threading
from provisioner.converge.job import Stop
stop = {stop}
told = 0
def tell(frame, event, _arg):
    global told
    if told < 50 and frame.f_code.co_name in ("ask", "set", "notify_all", "notify"):
        told += 1
        os.kill(os.getpid(), signal.SIGTERM)
    return tell
signal.signal(signal.SIGTERM, {handler})
sys.settrace(tell)
os.kill(os.getpid(), signal.SIGTERM)
sys.settrace(None)
print(told > 0 and {asked})
"""


def run_nested(**words: str) -> str:
    program = NESTED.format(**words)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout


def test_a_stop_may_be_asked_for_while_it_is_asked_for() -> None:
    assert run_nested(stop="Stop()", handler="stop.ask", asked="stop.asked") == "True\n"


def test_an_event_would_wait_for_itself() -> None:
    handler = "lambda *_: stop.set()"
    with pytest.raises(subprocess.TimeoutExpired):
        run_nested(stop="threading.Event()", handler=handler, asked="stop.is_set()")


DEAF = """
import fcntl, os, signal, sys, threading
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = Path(os.environ["ANSIBLE_HOME"])
folder.mkdir(mode=0o700)
fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
(folder / "order.json").write_text('{"parent": ' + sys.argv[1] + "}")
print("deaf", flush=True)
threading.Event().wait()
"""
NOBODY = 4_194_305  # greater than any process id of Linux


@pytest.mark.parametrize("parent", [NOBODY, os.getpid()], ids=["dead", "living"])
def test_only_the_deaf_job_of_a_dead_labctl_is_killed(
    ansible: Ansible, monkeypatch: pytest.MonkeyPatch, parent: int
) -> None:
    monkeypatch.setattr(run_folder, "ORPHAN_S", 0.5)
    monkeypatch.setattr(run_folder, "BUSY_S", 10.0 if parent == NOBODY else 2.0)
    with ansible.configurator._folders.taking("ana-mlops", lambda: False) as folder:
        path = folder.path
    job = subprocess.Popen(
        [sys.executable, "-c", DEAF, str(parent)],
        env={**os.environ, "ANSIBLE_HOME": str(path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert job.stdout is not None
        assert job.stdout.readline() == "deaf\n"
        if parent == NOBODY:
            run(ansible, [{"name": "Look", "command": "true"}])
            assert job.wait(10) == -signal.SIGKILL
        else:
            with pytest.raises(BusyError):
                run(ansible, [{"name": "Look", "command": "true"}])
            assert job.poll() is None
    finally:
        job.kill()
        job.communicate()
        shutil.rmtree(path, ignore_errors=True)


# -- folders ---------------------------------------------------------------------------------------


def test_a_leftover_of_another_lab_is_swept_with_its_processes(ansible: Ansible) -> None:
    left = Path("/dev/shm") / f"{ansible.configurator._folders._prefix}0123456789ab"  # noqa: S108
    left.mkdir(mode=0o700)
    (left / "hosts.json").write_text("{}")
    orphan = subprocess.Popen(["sleep", "300"], env={"ANSIBLE_HOME": str(left)})
    bystander = subprocess.Popen(["sleep", "300"], env={"ANSIBLE_HOME": f"{left}x"})
    try:
        run(ansible, [{"name": "Look", "command": "true"}])
        assert orphan.wait(timeout=10) == -signal.SIGTERM
        assert bystander.poll() is None
        assert ansible.run_folders() == []
    finally:
        for process in (orphan, bystander):
            process.kill()
            process.wait()


def test_a_leftover_that_does_not_go_stops_only_its_own_lab(
    ansible: Ansible, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ansible.configurator._folders
    left = Path("/dev/shm") / f"{folders._prefix}0123456789ab"  # noqa: S108
    left.mkdir(mode=0o700)
    monkeypatch.setattr(run_folder, "end_processes", lambda *_args, **_limits: (4711,))
    folders.sweep()
    assert left.exists()
    with (
        pytest.raises(ConvergeError, match="do not end: 4711"),
        folders.taking("ana-mlops", lambda: False),
    ):
        pass
    monkeypatch.undo()
    folders.sweep()
    assert not left.exists()


def test_a_folder_in_use_is_waited_for_and_not_touched(
    ansible: Ansible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "BUSY_S", 1.0)
    folders = ansible.configurator._folders
    with folders.taking("ana-mlops", lambda: False) as folder:
        (folder.path / "mine").touch()
        assert folder.path.stat().st_mode & 0o777 == 0o700
        with pytest.raises(BusyError, match="another Ansible run of lab ana-mlops"):
            run(ansible, [{"name": "Look", "command": "true"}])
        with (
            pytest.raises(StoppedError),
            folders.taking("ana-mlops", lambda: True),
        ):
            pass
        assert (folder.path / "mine").exists()
    assert ansible.run_folders() == []


@pytest.mark.parametrize("shared", ["none", "open", "symlink"])
def test_without_safe_shared_memory_the_disk_serves(
    ansible: Ansible, tmp_path: Path, shared: str
) -> None:
    memory = tmp_path / "shm"
    configurator = RunnerConfigurator(ansible.playbooks, ansible.run_root, shared_memory=memory)
    if shared != "none":
        with configurator._folders.taking("ana-mlops", lambda: False) as folder:
            name = folder.path.name
        memory.mkdir()
        if shared == "open":
            (memory / name).mkdir(mode=0o755)
        else:
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            (memory / name).symlink_to(tmp_path / "elsewhere")
    with configurator._folders.taking("ana-mlops", lambda: False) as folder:
        assert folder.path.parent == ansible.run_root
    assert not list(ansible.run_root.iterdir())


def test_a_long_path_gets_no_ssh_socket_that_would_not_fit(tmp_path: Path) -> None:
    config = tmp_path / "ansible.cfg"
    assert build_env(Path("/x" * 60), config)["ANSIBLE_SSH_CONTROL_PATH"] == "none"
    assert "ANSIBLE_SSH_CONTROL_PATH" not in build_env(Path("/dev/shm/labctl"), config)  # noqa: S108


# -- secrets ---------------------------------------------------------------------------------------


def test_no_secret_of_ours_reaches_the_run(
    ansible: Ansible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither our environment nor what play tasks say is in argv, environ or a run's files."""
    canary = "canary-of-our-environment"
    printed = "canary-that-a-task-printed"
    plain = "a-plain-inventory-value"
    monkeypatch.setenv("LABCTL_CANARY", canary)
    texts: list[bytes] = []
    files: dict[str, bytes] = {}

    def look(event: PlayProgress) -> None:
        if (event.play_task, event.status) != ("Look", "started"):
            return
        for pid in list_descendants(os.getpid()):
            process = Path("/proc") / str(pid)
            texts.extend(((process / "cmdline").read_bytes(), (process / "environ").read_bytes()))
        for folder in ansible.run_folders():
            files.update({str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()})

    tasks: list[dict[str, Any]] = [
        {"name": "Say", "debug": {"msg": f"{printed} {{{{ value }}}}"}},
        {"name": "Look", "command": "sleep 1"},
    ]
    order = ansible.order(tasks, {"workbench": {**LOCAL, "value": plain}})
    ansible.configurator.run_play(order, look, lambda: False)
    assert any(b"ansible-playbook" in text for text in texts), "the scan saw the playbook"
    assert any(b"ANSIBLE_HOME=" in text for text in texts), "and environments"
    for word in (canary, printed, plain):
        assert not [text for text in texts if word.encode() in text]
    holders = {
        word: [path for path, data in files.items() if word.encode() in data]
        for word in (canary, printed, plain)
    }
    assert holders[canary] == holders[printed] == []
    assert [Path(path).name for path in holders[plain]] == ["hosts.json"], "negative control"


@pytest.mark.parametrize("loop", [False, True])
def test_a_secret_task_that_fails_says_nothing(ansible: Ansible, *, loop: bool) -> None:
    tasks: list[dict[str, Any]] = [
        {"name": "Set", "fail": {"msg": "password canary4711"}, "no_log": True}
    ]
    if loop:
        tasks[0]["loop"] = [1, 2]
    with pytest.raises(PlayFailedError, match="hidden") as caught:
        run(ansible, tasks)
    assert "canary4711" not in str(caught.value)
    with pytest.raises(PlayFailedError, match="canary4711"):
        run(ansible, [{**tasks[0], "no_log": False}])


def test_what_ansible_says_is_short_and_harmless(ansible: Ansible) -> None:
    with pytest.raises(PlayFailedError) as caught:
        run(ansible, [{"name": "Red", "fail": {"msg": "\x1b[31mred\x07 " + "x" * 9000}}])
    assert "red xxx" in caught.value.what
    assert "\x1b" not in caught.value.what
    assert len(caught.value.what) < 1500
