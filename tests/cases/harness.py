"""Tables of cases in YAML: `tests/cases/**/<table>.yml` is a list of mappings with known keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

CASES = Path(__file__).parent


def load_cases(
    table: str, *, needed: set[str], allowed: frozenset[str] | set[str] = frozenset()
) -> list[Any]:
    """Return a table as pytest parameters, named by each case's `why`.

    A key that no test reads, one that is missing, or a `why` used twice is an error: a case must
    never say something that nobody checks.
    """
    return build_cases(table, (CASES / table).read_text("utf-8"), needed | {"why"}, set(allowed))


def build_cases(table: str, text: str, needed: set[str], allowed: set[str]) -> list[Any]:
    cases = yaml.safe_load(text)
    seen: set[str] = set()
    for case in cases:
        keys = set(case)
        if unknown := keys - needed - allowed:
            raise ValueError(f"{table}: {case.get('why')}: no test reads {sorted(unknown)}")
        if missing := needed - keys:
            raise ValueError(f"{table}: {case.get('why')}: {sorted(missing)} is missing")
        if case["why"] in seen:
            raise ValueError(f"{table}: {case['why']}: is there twice")
        seen.add(case["why"])
    return [pytest.param(case, id=case["why"]) for case in cases]


def apply_changes(text: str, changes: list[dict[str, str]]) -> str:
    """Apply a case's `changes` to a valid file: each `old` must stand there exactly once."""
    for change in changes:
        assert text.count(change["old"]) == 1, f"{change['old']!r} is not there exactly once"
        text = text.replace(change["old"], change["new"])
    return text
