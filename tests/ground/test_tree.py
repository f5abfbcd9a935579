"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.ground.project import PROJECT, count_lines, list_files

CODE = [path for kind in ("*.py", "*.sh", "*.yml", "*.j2") for path in list_files(kind)]
LONGEST = 400
VAGUE = {"util", "utils", "helper", "helpers", "common", "manager", "misc", "stuff"}
# Homes of build machines: nobody's path may slip into the project. labctl's is on the guests.
FOREIGN_PATH = re.compile(
    rf"/home/(?!labctl/)[a-z]+/[\w.-]+/|/Users/|/\.pyenv/|{re.escape(str(PROJECT))}/"
)


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def test_the_list_of_files_is_real() -> None:
    assert PROJECT / "provisioner" / "errors.py" in CODE
    assert len(CODE) > 100
    assert not [path for path in CODE if ".venv" in path.parts]


def test_no_file_is_longer_than_it_may_be() -> None:
    assert [name(path) for path in CODE if count_lines(path) > LONGEST] == []


def test_every_name_says_what_is_inside() -> None:
    vague = [path for path in list_files() if VAGUE & set(re.split(r"[_\-.]", path.name.lower()))]
    assert [name(path) for path in vague] == []


def test_no_path_of_a_build_machine() -> None:
    texts = [path for path in list_files() if path.suffix != ".lock" and path != Path(__file__)]
    found = [name(path) for path in texts if FOREIGN_PATH.search(path.read_text())]
    assert found == []


@pytest.mark.parametrize("text", ["/home/ben/labctl/x", "/Users/ana/x", str(PROJECT)])
def test_a_path_of_a_build_machine_would_be_seen(text: str) -> None:
    assert FOREIGN_PATH.search(f"see {text}/y")


def test_the_simulator_is_the_smaller_part() -> None:
    package = PROJECT / "provisioner"
    lines = {path: count_lines(path) for path in list_files("*.py") if package in path.parents}
    simulator = sum(count for path, count in lines.items() if package / "simulator" in path.parents)
    assert simulator < 0.3 * sum(lines.values())


def test_scripts_can_be_run() -> None:
    scripts = [
        path for path in list_files() if path.suffix == "" and path.read_text().startswith("#!")
    ]
    assert PROJECT / "bootstrap" / "setup" in scripts
    assert [name(path) for path in scripts if not path.stat().st_mode & 0o111] == []
