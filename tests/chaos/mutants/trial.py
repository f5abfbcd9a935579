"""A copy of the project in which mutations are tried, one at a time."""

from __future__ import annotations

import importlib.util
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.chaos.mutants.mutation import Mutation

PROJECT = Path(__file__).parents[3]
PARTS = ("provisioner", "tests", "labs", "playbooks", "inventory", "pyproject.toml")
TIMEOUT_S = 60.0
CHECK_S = 900.0
SIDE_BY_SIDE = 2


class Verdict(StrEnum):
    """What the tests said about a mutation."""

    KILLED = "killed"
    HUNG = "hung"  # ended by the timeout: seen, too
    SURVIVED = "survived"


@dataclass(frozen=True)
class Outcome:
    """A verdict, and the end of what pytest printed."""

    mutation: Mutation
    verdict: Verdict
    output: str


class Copy:
    """One copy of the project; what runs in it imports nothing of the original."""

    def __init__(self, folder: Path, project: Path = PROJECT) -> None:
        self.root = folder / "project"
        self.root.mkdir(parents=True)
        for part in PARTS:
            source = project / part
            if source.is_dir():
                leave = shutil.ignore_patterns("__pycache__", ".ansible")
                shutil.copytree(source, self.root / part, ignore=leave)
            else:
                shutil.copy(source, self.root / part)

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Have the fault in the copy for a while. Raises StaleMutationError."""
        path = self.root / mutation.file
        text = path.read_text()
        changed = mutation.mutate(text)
        # Python's cache looks at size and whole seconds only: it would not see the change.
        cached = Path(importlib.util.cache_from_source(str(path)))
        try:
            cached.unlink(missing_ok=True)
            path.write_text(changed)
            yield
        finally:
            path.write_text(text)
            cached.unlink(missing_ok=True)

    def run(
        self, tests: Iterable[str], timeout_s: float = TIMEOUT_S, *, to_the_end: bool = False
    ) -> tuple[Verdict, str]:
        """Run tests until the first that fails. Raises RuntimeError when pytest runs none."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "--no-header", "--hypothesis-seed=0"),
                *("-p", "no:cacheprovider", f"--basetemp={self.root.parent / 'tmp'}"),
                *(() if to_the_end else ("-x",)),
                *tests,
            ],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return Verdict.HUNG, output
        return _read_status(process.returncode, output), output

    def check(self, tests: Iterable[str]) -> None:
        """Check that tests pass when nothing was mutated; one that fails gets a second try.

        Raises RuntimeError: then no verdict would count.
        """
        verdict, output = self.run(tests, CHECK_S, to_the_end=True)
        if failed := re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE):
            verdict, output = self.run(failed, CHECK_S)
        if verdict is not Verdict.SURVIVED:
            raise RuntimeError(f"the tests fail without a mutation:\n{output}")

    def try_out(self, mutation: Mutation, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Say whether the tests of a mutation see it."""
        with self.mutated(mutation):
            verdict, output = self.run(mutation.tests, timeout_s)
        return Outcome(mutation, verdict, output)


def _read_status(status: int, output: str) -> Verdict:
    """Read pytest's exit status: 1 = a test failed, 2 = a module could not even be imported."""
    if status in (1, 2):
        return Verdict.KILLED
    if status == 0:
        return Verdict.SURVIVED
    raise RuntimeError(f"pytest ran no test (status {status}):\n{output}")


def try_all(mutations: Iterable[Mutation], folder: Path) -> tuple[Outcome, ...]:
    """Try mutations side by side, each in a copy of its own.

    Raises RuntimeError when their tests fail without any mutation: then no verdict would count.
    """
    wanted = tuple(mutations)
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for number in range(SIDE_BY_SIDE):
        copies.put(Copy(folder / str(number)))

    @contextmanager
    def borrowed() -> Iterator[Copy]:
        copy = copies.get()
        try:
            yield copy
        finally:
            copies.put(copy)

    def check(tests: Iterable[str]) -> None:
        with borrowed() as copy:
            copy.check(tests)

    def try_out(mutation: Mutation) -> Outcome:
        with borrowed() as copy:
            return copy.try_out(mutation)

    every = sorted({test for mutation in wanted for test in mutation.tests})
    parts = [part for at in range(SIDE_BY_SIDE) if (part := every[at::SIDE_BY_SIDE])]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        tuple(pool.map(check, parts))
        return tuple(pool.map(try_out, wanted))


def find_faults(
    outcomes: Iterable[Outcome], explained: dict[str, str], *, killed_at_least: float
) -> tuple[str, ...]:
    """Say what is wrong: too few were killed, a survivor without a word, a word too many."""
    verdicts = {outcome.mutation.name: outcome for outcome in outcomes}
    survived = {name for name, one in verdicts.items() if one.verdict is Verdict.SURVIVED}
    words = explained.keys()
    share = 1 - len(survived) / len(verdicts)
    return (
        *(f"survived, unexplained: {verdicts[name].mutation}" for name in sorted(survived - words)),
        *(f"explained, but killed: {name}" for name in sorted(words & verdicts.keys() - survived)),
        *(f"explained, but never tried: {name}" for name in sorted(words - verdicts.keys())),
        *([f"only {share:.0%} were killed"] if share < killed_at_least else []),
    )
