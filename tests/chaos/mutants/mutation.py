"""A mutation: one small fault in one file of the package, and the tests that should see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
KEYS = {"name", "rule", "file", "old", "new", "tests"}


class StaleMutationError(Exception):
    """The text that a mutation changes is not there, or not exactly once."""


@dataclass(frozen=True)
class Mutation:
    """`old` stands exactly once in `file`; `tests` are paths or node ids that pytest takes."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    at: int | None = None

    def mutate(self, text: str) -> str:
        """Put the fault into a file's text. Raises StaleMutationError."""
        at = text.find(self.old) if self.at is None else self.at
        alone = self.at is not None or text.count(self.old) == 1
        if not (alone and text.startswith(self.old, at)):
            raise StaleMutationError(
                f"{self.name}: {self.file} has its old text {text.count(self.old)} times: it went"
                " stale; write it anew for the code as it is now"
            )
        return text[:at] + self.new + text[at + len(self.old) :]

    def __str__(self) -> str:
        return f"{self.name}\n    - {_one_line(self.old)}\n    + {_one_line(self.new)}"


def load_by_hand() -> tuple[Mutation, ...]:
    """Read the mutations against the rules of safety."""
    files = sorted(HERE.glob("by_hand*.yml"))
    return tuple(_read(row) for file in files for row in yaml.safe_load(file.read_text()))


def _read(row: dict[str, Any]) -> Mutation:
    if set(row) != KEYS:
        raise ValueError(f"{row.get('name')}: its keys are not {sorted(KEYS)}")
    own = {key: row[key] for key in ("name", "file", "old", "new")}
    return Mutation(**own, tests=tuple(row["tests"]))


def load_suites() -> dict[str, tuple[str, ...]]:
    """Read which tests belong to which module or folder of the package."""
    suites = yaml.safe_load((HERE / "suites.yml").read_text())
    return {module: tuple(tests) for module, tests in suites.items()}


def load_survivors() -> dict[str, str]:
    """Read why some mutations may survive, by their names."""
    return dict(yaml.safe_load((HERE / "survivors.yml").read_text()) or {})


def _one_line(text: str) -> str:
    return " ".join(text.split())
