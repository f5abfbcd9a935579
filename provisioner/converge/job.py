"""One Ansible run, as a process of its own: `python -m provisioner.converge.job RUN_FOLDER`.

It reads `order.json` in the run folder and writes JSON lines to standard output: allow-listed
fields of Ansible's events, at last the end. When standard input ends, on SIGTERM, and when its
parent dies, it stops the playbook. It returns only after everything it started has ended.

What ansible-runner does and this works around (measured on 2.4.3 with ansible-core 2.19):
its cancel kills only the process group, which Ansible's workers leave; it writes its whole
environment to a file, so the parent gives us an allow-listed one; it switches host key checking
off unless the environment says otherwise; settings beside suppressed files are dropped.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import ansible_runner

from provisioner.converge.processes import (
    end_processes,
    list_descendants,
    read_command,
    send_term,
)

GRACE_S = 10.0
KILL_S = 5.0
TEXT_CHARS = 4000
# Ansible says why it did not start in a few lines; 20 are plenty.
SAID_LINES = 20
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_HIDDEN = "what it said is hidden: the play task handles a secret"


def main(run_folder: Path) -> int:
    """Run the order of a run folder to its end; the exit status is Ansible's."""
    order = json.loads((run_folder / "order.json").read_text())
    stop = Stop()
    _tie_to_parent(order["parent"], stop)
    reporter = Reporter(os.dup(sys.stdout.fileno()))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's print is no message
    (run_folder / "env").mkdir(mode=0o700)
    settings = {"pexpect_timeout": 1, "suppress_output_file": True}
    (run_folder / "env" / "settings").write_text(json.dumps(settings))
    rc: int | None = None
    try:
        runner = ansible_runner.run(
            private_data_dir=str(run_folder),
            project_dir=order["playbooks_dir"],
            playbook=order["playbook"],
            inventory=order["inventory"],
            ident="run",
            quiet=True,
            fact_cache_type="memory",
            event_handler=Events(reporter).handle,
            cancel_callback=Stopper(stop).must_kill,
        )
        rc = runner.rc
    finally:
        left = end_processes(_list_own, grace_s=GRACE_S if stop.asked else 1.0, kill_s=KILL_S)
        reporter.say(kind="end", rc=rc, left=left)
        reporter.close()
    return rc if rc is not None else 1


class Stop:
    """Whether the run shall end. A plain flag: signals nest, and a lock would wait for itself."""

    asked = False

    def ask(self, *_signal: object) -> None:
        """Ask for the end, from a thread or a signal handler."""
        self.asked = True


def _tie_to_parent(parent: int, stop: Stop) -> None:
    """Adopt whatever our children leave behind, and stop when the parent is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_CHILD_SUBREAPER, 1), (_PR_SET_PDEATHSIG, signal.SIGTERM)):
        if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, stop.ask)
    if os.getppid() != parent:
        stop.ask()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        stop.ask()

    threading.Thread(target=watch, daemon=True).start()


def _list_own() -> tuple[int, ...]:
    """List our living descendants; those that ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return ()
    return list_descendants(os.getpid())


class Stopper:
    """Asks the playbook to end, and lets ansible-runner kill it only after `GRACE_S`.

    SIGTERM lets Ansible end its workers and their SSH connections; with a terminal on the guest
    (pipelining off) the command there ends with its connection.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._asked_s: float | None = None

    def must_kill(self) -> bool:
        """Be ansible-runner's cancel_callback: called about once a second."""
        if not self._stop.asked:
            return False
        if self._asked_s is None:
            self._asked_s = monotonic()
            for pid in list_descendants(os.getpid()):
                if b"ansible-playbook" in read_command(pid) and os.getpgid(pid) == pid:
                    send_term(pid)
        return monotonic() - self._asked_s > GRACE_S


class Reporter:
    """Writes messages from a thread, so that a slow reader never holds up ansible-runner."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def say(self, **message: Any) -> None:
        """Queue one message."""
        self._lines.put(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Return when everything is written, or nobody reads any more."""
        self._lines.put(None)
        self._thread.join()
        os.close(self._pipe)

    def _write(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                while line:
                    line = line[os.write(self._pipe, line) :]
        except BrokenPipeError:
            pass


class Events:
    """Picks the few fields of Ansible's events that labctl shows, and drops the rest."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._said = 0
        self._plays = False

    def handle(self, event: Mapping[str, Any]) -> bool:
        """Be ansible-runner's event_handler; False keeps the event off the disk."""
        kind, data = str(event.get("event", "")), event.get("event_data") or {}
        if kind == "playbook_on_play_start":
            self._plays = True
        if kind == "playbook_on_stats":
            self._reporter.say(kind="recap", hosts=build_recap(data))
        elif message := build_task_message(kind, data):
            self._reporter.say(kind="task", **message)
        else:
            self._repeat(str(event.get("stdout", "")).strip())
        return False

    def _repeat(self, text: str) -> None:
        """Pass on plain output, but only from before the first play: no task has run by then."""
        if text and not self._plays and self._said < SAID_LINES:
            self._said += 1
            self._reporter.say(kind="said", text=text[:TEXT_CHARS])


def build_task_message(kind: str, data: Mapping[str, Any]) -> dict[str, str] | None:
    """Build the message about one play task on one guest; None for other events."""
    result = data.get("res")
    result = result if isinstance(result, Mapping) else {}
    status, text = "", ""
    match kind:
        case "runner_on_start":
            status = "started"
        case "runner_on_ok":
            status = "changed" if result.get("changed") else "ok"
        case "runner_on_skipped":
            status = "skipped"
        case "runner_on_failed" if data.get("ignore_errors"):
            status, text = "ok", "it failed, and that is allowed"
        case "runner_on_failed" | "runner_on_unreachable":
            status, text = kind.removeprefix("runner_on_"), build_text(result)
        case _:
            return None
    names = {"host": data.get("host"), "role": data.get("role"), "task": data.get("task")}
    fields = {name: str(value or "")[:200] for name, value in names.items()}
    return {**fields, "status": status, "text": text[:TEXT_CHARS]}


def build_text(result: Mapping[str, Any]) -> str:
    """Say why a play task failed: of a loop, why its first failed item did."""
    if result.get("_ansible_no_log") or "censored" in result:
        return _HIDDEN
    items = result.get("results")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable")):
            return build_text(item)
    parts = (result.get("msg"), result.get("module_stderr"), result.get("stderr"))
    texts = [str(part).strip() for part in parts if part]
    return ": ".join(dict.fromkeys(texts))


def build_recap(data: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Turn `playbook_on_stats` inside out: the counts of every guest."""
    names = {
        "ok": "ok",
        "changed": "changed",
        "failures": "failed",
        "dark": "unreachable",
        "skipped": "skipped",
        "rescued": "rescued",
    }
    counts = {name: data.get(theirs) or {} for theirs, name in names.items()}
    hosts = {host for by_host in counts.values() for host in by_host}
    return {
        host: {name: int(by_host.get(host, 0)) for name, by_host in counts.items()}
        for host in sorted(hosts)
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
