"""What labctl shows: Rich on a terminal, plain lines in a pipe, or one JSON document."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

from provisioner.errors import LabctlError
from provisioner.model.lab import Progress, StepStatus
from provisioner.model.spec import Site

OnRow = Callable[[Progress], None]


def to_plain(value: Any) -> Any:
    """Turn our frozen types into what JSON knows."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def show_error(error: LabctlError, *, as_json: bool) -> None:
    """Show an error: its text on stderr, or one JSON document on stdout."""
    if as_json:
        document = {
            "kind": type(error).__name__,
            "what": error.what,
            "hint": error.hint,
            "exit_code": error.exit_code,
            "retryable": error.retryable,
        }
        print(json.dumps({"error": document}, indent=2))  # noqa: T201 - the one place that prints
    else:
        print(f"labctl: {error}", file=sys.stderr)  # noqa: T201 - the one place that prints


class Output:
    """Where a verb's words go. Answers on stdout; banner and progress on stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, soft_wrap=True)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def banner(self, site: Site) -> None:
        """Name the vCenter that this verb acts on."""
        if not self.as_json:
            where = f"{site.vcenter.host}:{site.vcenter.port}"
            self.errors.print(
                f"site {site.site} - vCenter {where} ({site.title})", style="dim", markup=False
            )

    def say(self, text: str) -> None:
        """Show a text for a person; nothing in JSON mode."""
        if not self.as_json:
            self.console.print(text, markup=False)

    def document(self, value: Any) -> None:
        """Print the one JSON document of a verb; nothing for a person."""
        if self.as_json:
            print(json.dumps(to_plain(value), indent=2))  # noqa: T201 - the one place that prints

    def table(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows under titles, cut to nothing: a pipe gets every word."""
        if self.as_json:
            return
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        for row in (titles, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.console.print("  ".join(cells).rstrip(), markup=False)

    @contextmanager
    def progress(self, usual_s: Callable[[str, str], float | None]) -> Iterator[OnRow]:
        """Show a lab's log while it grows: live on a terminal, else a plain line for each row."""
        if self.as_json:
            yield lambda _row: None
        elif self.errors.is_terminal:
            board = _Board(self.errors, usual_s)
            with Live(board, console=self.errors, refresh_per_second=8, transient=True):
                yield board.add
        else:
            yield lambda row: self.errors.print(describe_row(row), markup=False)


def describe_row(row: Progress) -> str:
    """Say one row of a lab's log in a line."""
    where = f"{row.step} {row.slot}".strip()
    took = f" ({describe_s(row.elapsed_s)})" if row.elapsed_s is not None else ""
    text = f"  {row.text}" if row.text else ""
    return f"{row.at:%H:%M:%S} {row.status.value:<7} {where}{took}{text}"


def describe_s(seconds: float) -> str:
    """Say a duration in the unit that fits."""
    if seconds < 10:  # noqa: PLR2004 - one digit more below ten seconds
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class _Board:
    """Finished steps scroll by; those under way stay at the bottom with their time."""

    def __init__(self, console: Console, usual_s: Callable[[str, str], float | None]) -> None:
        self.console = console
        self.usual_s = usual_s
        self.open: dict[tuple[str, str], tuple[float, str, Spinner]] = {}
        self.notes: dict[tuple[str, str], str] = {}

    def add(self, row: Progress) -> None:
        """Take in one row."""
        key = (row.step, row.slot)
        if row.status is StepStatus.STARTED:
            usual = self.usual_s(row.workflow, row.step)
            text = f", usually {describe_s(usual)}" if usual else ""
            self.open[key] = (time.monotonic(), text, Spinner("dots"))
        elif row.status is StepStatus.WAITING:
            self.notes[key] = f"waiting: {row.text}"
        elif row.status is StepStatus.NOTE:
            self.notes[row.step, ""] = row.text
            if row.text.startswith(("pass", "FAIL", "recap")):
                self.console.print(f"    {row.slot} {row.text}", style="dim", markup=False)
        else:
            self.open.pop(key, None)
            mark = "[green]ok[/]  " if row.status is StepStatus.OK else "[red]FAIL[/]"
            took = describe_s(row.elapsed_s or 0)
            self.console.print(
                f"{mark} {row.step:<10} {row.slot:<12} {took:>11}  {escape(row.text)}"
            )

    def __rich__(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for (step, slot), (since_s, usual, spinner) in self.open.items():
            elapsed = describe_s(time.monotonic() - since_s)
            note = self.notes.get((step, slot)) or self.notes.get((step, ""), "")
            grid.add_row(spinner, step, slot, f"{elapsed}{usual}", escape(note))
        return grid
