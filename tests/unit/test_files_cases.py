"""Every way to get a file wrong, and the exact words that IT reads then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provisioner.errors import FileProblemsError
from provisioner.files.blueprint import load_blueprint
from provisioner.files.checks import load_checks
from provisioner.files.site import load_site
from provisioner.files.stack import load_stack
from tests.cases.harness import apply_changes, build_cases, load_cases
from tests.unit.project import ROLES, Project, make_project, read_base

LOADERS: dict[str, Any] = {
    "blueprint": lambda project: load_blueprint(project.labs, "two-guests"),
    "stack": lambda project: load_stack(project.labs),
    "site": lambda project: load_site((project.sites,), "plant"),
    "checks": lambda project: load_checks(project.playbooks, ROLES),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return made


def cases(kind: str) -> list[Any]:
    return load_cases(f"files/{kind}.yml", needed={"changes"}, allowed={"text", "problems"})


def check(kind: str, project: Project, case: dict[str, Any]) -> None:
    path = project.path_of(kind)
    path.write_text(case.get("text") or apply_changes(read_base(kind), case["changes"]))
    file = str(path.relative_to(project.root))
    assert find_problems(kind, project) == [f"{file}:{text}" for text in case.get("problems", [])]


def find_problems(kind: str, project: Project) -> list[str]:
    """Load a file as labctl does; return what IT would read, line by line."""
    try:
        LOADERS[kind](project)
    except FileProblemsError as error:
        return str(error).split("\n")
    return []


@pytest.mark.parametrize("case", cases("blueprint"))
def test_blueprint(project: Project, case: dict[str, Any]) -> None:
    check("blueprint", project, case)


@pytest.mark.parametrize("case", cases("site"))
def test_site(project: Project, case: dict[str, Any]) -> None:
    check("site", project, case)


@pytest.mark.parametrize("case", cases("stack"))
def test_stack(project: Project, case: dict[str, Any]) -> None:
    check("stack", project, case)


@pytest.mark.parametrize("case", cases("checks"))
def test_checks(project: Project, case: dict[str, Any]) -> None:
    check("checks", project, case)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- {why: a, changes: [], problem: x}", "no test reads"),
        ("- {why: a}", "is missing"),
        ("- {why: a, changes: []}\n- {why: a, changes: []}", "is there twice"),
    ],
)
def test_a_table_with_keys_that_nobody_reads_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        build_cases("table", text, {"why", "changes"}, {"problems"})
