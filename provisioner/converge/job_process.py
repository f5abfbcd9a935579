"""The parent's side of one job: start it, hear it, and never leave it behind."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from provisioner.converge.processes import end_processes, list_marked
from provisioner.converge.run_folder import MARK, RunFolder, translated

POLL_S = 1.0
# The job's own 10 s for Ansible, 10 s for what outlives it, 5 s for what is killed; and a margin.
STOP_S = 40.0
_CHUNK_BYTES = 64 * 1024
_PACKAGES = Path(__file__).parents[2]


@dataclass
class Outcome:
    """How a job ended. `rc` is None when it did not say; `left` are processes that still live."""

    rc: int | None = None
    left: tuple[int, ...] = ()
    recap: dict[str, dict[str, int]] | None = None
    said: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    cancelled: bool = False
    too_late: bool = False
    log: str = ""


def run_job(
    folder: RunFolder,
    env: Mapping[str, str],
    on_task: Callable[[dict[str, str]], None],
    is_cancelled: Callable[[], bool],
    limit_s: float,
) -> Outcome:
    """Run the job of a run folder to its end, or stop it when cancelled or after `limit_s`.

    When this returns or raises, the job and everything it started have ended.
    """
    log = folder.path / "job.log"
    with translated("start Ansible's process"), log.open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "provisioner.converge.job", str(folder.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            env=dict(env),
            cwd=_PACKAGES,
            pass_fds=(folder.lock,),
            start_new_session=True,
        )
    outcome = Outcome()
    try:
        _follow(process, outcome, on_task, is_cancelled, monotonic() + limit_s)
    finally:
        _end(process)
        mark = f"{MARK}={env[MARK]}"  # a job that was killed could not end what it had started
        outcome.left += end_processes(lambda: list_marked(mark), grace_s=1.0, kill_s=5.0)
    outcome.log = log.read_text(errors="replace").strip()
    return outcome


def _follow(
    process: subprocess.Popen[bytes],
    outcome: Outcome,
    on_task: Callable[[dict[str, str]], None],
    is_cancelled: Callable[[], bool],
    limit_ends_s: float,
) -> None:
    stop_ends_s: float | None = None
    asked_s = 0.0
    for message in _list_messages(process):
        if message is not None:
            _note(message, outcome, on_task)
        now_s = monotonic()
        if stop_ends_s is not None:
            if now_s > stop_ends_s:
                return
        elif now_s - asked_s >= POLL_S:
            asked_s = now_s
            outcome.too_late = now_s > limit_ends_s
            outcome.cancelled = is_cancelled()
            if outcome.cancelled or outcome.too_late:
                _ask_to_end(process)
                stop_ends_s = now_s + STOP_S


def _note(
    message: dict[str, Any], outcome: Outcome, on_task: Callable[[dict[str, str]], None]
) -> None:
    match message:
        case {"kind": "task", **fields}:
            if fields["status"] in ("failed", "unreachable"):
                outcome.failures.append(fields)
            on_task(fields)
        case {"kind": "recap", "hosts": hosts}:
            outcome.recap = hosts
        case {"kind": "said", "text": text}:
            outcome.said.append(text)
        case {"kind": "end", "rc": rc, "left": left}:
            outcome.rc, outcome.left = rc, tuple(left)


def _list_messages(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
    """Yield what the job says until it ends, and None at least every `POLL_S`."""
    assert process.stdout  # noqa: S101 - it was opened as a pipe
    pipe, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(POLL_S):
                yield None
                continue
            data = os.read(pipe, _CHUNK_BYTES)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield json.loads(line)


def _ask_to_end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin  # noqa: S101 - it was opened as a pipe
    with suppress(BrokenPipeError):
        process.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the job to end and wait for it; kill it when it does not."""
    assert process.stdout  # noqa: S101 - it was opened as a pipe
    _ask_to_end(process)
    process.stdout.close()  # nobody hears it any more: it must not wait for us
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
