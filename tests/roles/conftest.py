"""What the tests of the roles read: every role as its files say it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HOUSE = Path(__file__).resolve().parents[2]
PLAYBOOKS = HOUSE / "playbooks"


@dataclass(frozen=True)
class Role:
    """One role: its folder, and its options by entry point."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def read(self, file: str) -> Any:
        path = self.path / file
        return yaml.safe_load(path.read_text()) if path.exists() else None

    def options(self) -> dict[str, dict[str, dict[str, Any]]]:
        specs = self.read("meta/argument_specs.yml")["argument_specs"]
        return {entry: spec.get("options", {}) for entry, spec in specs.items()}

    def known(self) -> set[str]:
        return {name for options in self.options().values() for name in options}


ROLES = tuple(Role(path) for path in sorted((PLAYBOOKS / "roles").iterdir()) if path.is_dir())


def list_checks() -> list[tuple[Role, dict[str, Any]]]:
    """List every check with its role."""
    return [
        (role, check)
        for role in ROLES
        for check in (role.read("checks/checks.yml") or {"checks": []})["checks"]
    ]
