"""The locks: every package pinned with its hashes, no word about where it comes from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LOCKS = sorted((PROJECT / "requirements").glob("*.lock"))
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ]+)", re.MULTILINE)


def read_pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((PROJECT / "requirements" / name).read_text()))


def read_wanted() -> dict[str, list[str]]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    groups = {**project["dependency-groups"], "runtime": project["project"]["dependencies"]}
    return {
        group: [re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in lines]
        for group, lines in groups.items()
    }


def test_there_are_three() -> None:
    assert [path.name for path in LOCKS] == ["dev.lock", "foreign.lock", "runtime.lock"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_it_names_no_host(lock: Path) -> None:
    words = ("://", "index-url", "find-links", "trusted-host", "file:", " @ ")
    assert [line for line in lock.read_text().splitlines() if any(w in line for w in words)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_has_hashes(lock: Path) -> None:
    blocks = re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PIN.findall(lock.read_text())) > 10
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize(
    ("lock", "groups"),
    [
        ("runtime.lock", ("runtime", "build")),
        ("dev.lock", ("runtime", "build", "dev")),
        ("foreign.lock", ("foreign",)),
    ],
)
def test_it_holds_what_the_project_asks_for(lock: str, groups: tuple[str, ...]) -> None:
    wanted = {package for group in groups for package in read_wanted()[group]}
    assert wanted - set(read_pins(lock)) == set()


def test_development_runs_on_the_versions_of_the_runtime() -> None:
    dev = read_pins("dev.lock")
    assert {k: v for k, v in read_pins("runtime.lock").items() if dev.get(k) != v} == {}
