"""Configurator on ansible-runner."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provisioner.converge.job_process import Outcome, run_job
from provisioner.converge.run_folder import MARK, SHARED_MEMORY, RunFolder, RunFolders, translated
from provisioner.errors import (
    ConvergeError,
    GuestUnreachableError,
    HostKeyError,
    LabctlError,
    PlayFailedError,
    StoppedError,
)
from provisioner.model.observed import PlayProgress, PlayRecap
from provisioner.ports import PlayOrder
from provisioner.rules.plain_text import build_plain_line, build_plain_text

LIMIT_S = 3600.0
# Of a long text the beginning names the fault, the end its cause.
HEAD_CHARS, TAIL_CHARS = 400, 600
# ssh binds `<folder>/<10 hexadecimal digits>.<16 characters>`; a UNIX socket's path ends at 107.
_CONTROL_PATH_CHARS = 107 - 28
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WRONG_KEY = re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed")
_BY_HAND = "to see all of it: labctl inventory LAB > hosts.yml; ansible-playbook -i hosts.yml"


class RunnerConfigurator:
    """Runs playbooks; each run is a child process with an environment of its own.

    Of a run nothing stays: its private folder is in memory where that is possible, and removed
    at its end, or before the next run when it was killed. Two runs of one lab never overlap.
    `ansible-playbook` is the one beside the running Python.

    Args:
        playbooks_dir: the folder with playbooks, roles and ansible.cfg.
        run_root: where run folders go when there is no shared memory.
        limit_s: how long one run may take, in seconds.
        shared_memory: a tmpfs for run folders, or None.
    """

    def __init__(
        self,
        playbooks_dir: Path,
        run_root: Path,
        *,
        limit_s: float = LIMIT_S,
        shared_memory: Path | None = SHARED_MEMORY,
    ) -> None:
        self._playbooks_dir = playbooks_dir.absolute()
        self._folders = RunFolders(run_root, shared_memory)
        self._limit_s = limit_s

    def run_play(
        self,
        order: PlayOrder,
        on_event: Callable[[PlayProgress], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[PlayRecap, ...]:
        """Run a playbook to its end and return the recap of every guest of the inventory.

        `is_cancelled` is asked about once a second. Raises PlayFailedError or
        GuestUnreachableError naming guest and play task, HostKeyError when a guest's host key is
        not the pinned one, StoppedError when it was cancelled, BusyError when another run of the
        lab does not end, ConvergeError when Ansible could not work at all. In every case nothing
        that the run started is left on this machine.
        """
        config = self._playbooks_dir / "ansible.cfg"
        for path in (config, self._playbooks_dir / order.playbook, _get_ansible_playbook()):
            if not path.is_file():
                raise ConvergeError(f"there is no {path}", hint="labctl is not installed whole")
        self._folders.sweep()
        with self._folders.taking(order.lab_id, is_cancelled) as folder:
            self._write_order(folder, order)
            outcome = run_job(
                folder,
                build_env(folder.path, config),
                lambda fields: on_event(build_progress(fields)),
                is_cancelled,
                self._limit_s,
            )
        _raise_for(outcome, order, self._limit_s)
        return build_recaps(outcome.recap or {}, order.inventory)

    def _write_order(self, folder: RunFolder, order: PlayOrder) -> None:
        inventory = folder.path / "hosts.json"
        job = {
            "parent": os.getpid(),
            "lab_id": order.lab_id,
            "playbooks_dir": str(self._playbooks_dir),
            "playbook": order.playbook,
            "inventory": str(inventory),
        }
        with translated(f"write into {folder.path}"):
            inventory.write_text(json.dumps(order.inventory))
            (folder.path / "order.json").write_text(json.dumps(job))
            (folder.path / "tmp").mkdir(mode=0o700)


def _get_ansible_playbook() -> Path:
    return Path(sys.executable).parent / "ansible-playbook"


def build_env(run_folder: Path, config: Path) -> dict[str, str]:
    """Build the whole environment of a job: nothing of ours is handed on."""
    control = run_folder / "ssh"
    env = {
        "PATH": f"{Path(sys.executable).parent}:{_PATH}",
        "HOME": str(run_folder),
        "TMPDIR": str(run_folder / "tmp"),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        MARK: str(run_folder),
        "ANSIBLE_CONFIG": str(config),
        "ANSIBLE_LOCAL_TEMP": str(run_folder / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(control),
        # ansible-runner switches this off where the environment does not say otherwise, and the
        # environment wins over ansible.cfg.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_NOCOLOR": "1",
    }
    if len(str(control)) > _CONTROL_PATH_CHARS:
        env["ANSIBLE_SSH_CONTROL_PATH"] = "none"
    return env


def build_progress(fields: dict[str, str]) -> PlayProgress:
    """Build the port's event from a job's message."""
    return PlayProgress(
        slot=fields["host"],
        role=fields["role"],
        play_task=build_plain_text(fields["task"]),
        status=fields["status"],
        text=_build_line(fields["text"]),
    )


def build_recaps(
    recap: dict[str, dict[str, int]], inventory: dict[str, Any]
) -> tuple[PlayRecap, ...]:
    """Build the recap of every guest, in the inventory's order; zeros where no play ran."""
    hosts = (inventory.get("all") or {}).get("hosts") or {}
    names = ("ok", "changed", "failed", "unreachable", "skipped")
    return tuple(
        PlayRecap(slot=host, **{name: recap.get(host, {}).get(name, 0) for name in names})
        for host in dict.fromkeys((*hosts, *recap))
    )


def _raise_for(outcome: Outcome, order: PlayOrder, limit_s: float) -> None:
    """Raise the error that a run ended with, if it did."""
    what = f"{order.playbook} on lab {order.lab_id}"
    if outcome.left:
        raise ConvergeError(
            f"{what} left processes that do not end: {', '.join(map(str, outcome.left))}",
            hint="look at them with ps, end them, then try again",
        )
    if outcome.cancelled:
        raise StoppedError(
            f"{what} was stopped before it was done",
            hint="run the same command again to continue where it stopped",
        )
    if outcome.too_late:
        raise GuestUnreachableError(
            f"{what} did not end within {limit_s:.0f} s",
            hint="look at the load of guests and mirrors, then try again",
        )
    if outcome.rc == 0 and outcome.recap is not None:
        return
    if failure := _find_cause(outcome):
        raise _build_failure(failure)
    reason = _build_line("\n".join(outcome.said) or outcome.log.rpartition("\n")[2])
    raise ConvergeError(f"{what}: Ansible failed without a play task: {reason}", hint=_BY_HAND)


def _find_cause(outcome: Outcome) -> dict[str, str] | None:
    """Find the first failure that was not rescued, on a guest that the recap calls failed."""
    skipped: dict[str, int] = {}
    for failure in outcome.failures:
        host = failure["host"]
        counts = (outcome.recap or {}).get(host, {})
        if outcome.recap and not (counts.get("failed") or counts.get("unreachable")):
            continue
        if skipped.get(host, 0) < counts.get("rescued", 0):
            skipped[host] = skipped.get(host, 0) + 1
            continue
        return failure
    return None


def _build_failure(failure: dict[str, str]) -> LabctlError:
    event = build_progress(failure)
    task = f"{event.role} : {event.play_task}" if event.role else event.play_task
    if event.status == "unreachable" and _WRONG_KEY.search(event.text):
        return HostKeyError(
            f"guest {event.slot} answers with another host key at play task {task!r}",
            hint="find out why before you trust it: another machine may answer at this address",
        )
    if event.status == "unreachable":
        return GuestUnreachableError(
            f"guest {event.slot} became unreachable at play task {task!r}: {event.text}",
            hint="see that it is powered on and shows its pinned host key, then try again",
        )
    return PlayFailedError(
        f"play task {task!r} failed on guest {event.slot}: {event.text}", hint=_BY_HAND
    )


def _build_line(text: str) -> str:
    line = build_plain_line(text)
    if len(line) <= HEAD_CHARS + TAIL_CHARS:
        return line
    return f"{line[:HEAD_CHARS]} [...] {line[-TAIL_CHARS:]}"
