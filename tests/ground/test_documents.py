"""README, CHANGELOG and docs agree with what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provisioner import errors
from provisioner.cli.main import VERBS
from provisioner.vsphere.privileges import NEEDED
from tests.ground.project import PROJECT, list_files

MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
PAGES = list_files("*.md")
NAME = re.compile(r"`([A-Za-z.]+)`")
RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text()


def test_every_target_says_what_it_does() -> None:
    assert {"help", "setup", "demo", "test", "check", "format", "bench", "lock"} <= TARGETS
    for target in TARGETS:
        assert re.search(rf"^{target}:.*## \w", MAKEFILE, re.MULTILINE), target


def read_commands(page: Path) -> str:
    """What a page says in code: shell blocks, indented lines, words in backticks."""
    text = page.read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = re.findall(r"^ {4}(?:make|labctl|\.venv).*", prose, re.MULTILINE)
    return "\n".join([*blocks, *lines, *re.findall(r"`([^`]+)`", prose)])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_make_targets_and_verbs_of_a_page_exist(page: Path) -> None:
    commands = read_commands(page)
    assert set(re.findall(r"\bmake ([a-z]+)", commands)) - TARGETS == set()
    assert set(re.findall(r"\blabctl ([a-z]+)", commands)) - set(VERBS) == set()


def test_pages_do_name_targets_and_verbs() -> None:
    commands = "\n".join(read_commands(page) for page in PAGES)
    assert set(re.findall(r"\blabctl ([a-z]+)", commands)) == set(VERBS)
    assert {"demo", "test", "check"} <= set(re.findall(r"\bmake ([a-z]+)", commands))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_starts_with_the_two_commands() -> None:
    readme = (PROJECT / "README.md").read_text()
    first = re.findall(r"```\w*\n(.*?)```", readme, re.DOTALL)[0]
    commands = re.findall(r"^(make \w+)", first, re.MULTILINE)
    assert commands == ["make demo", "make test"]


def test_ci_runs_the_readme_commands() -> None:
    script = (PROJECT / ".ci" / "run").read_text()
    assert re.findall(r"^make (\w+)$", script, re.MULTILINE) == ["check", "test"]


def test_the_changelog_keeps_its_form() -> None:
    lines = (PROJECT / "CHANGELOG.md").read_text().splitlines()
    assert lines[0] == "# Changelog"
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## Unreleased"
    released = r"## \d+\.\d+\.\d+ \(\d{4}-\d{2}-\d{2}\)"
    assert [line for line in versions[1:] if not re.fullmatch(released, line)] == []
    sections = {line for line in lines if line.startswith("### ")}
    assert sections <= {f"### {name}" for name in ("Added", "Changed", "Fixed", "Removed")}


def test_every_exit_code_is_in_the_runbook() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.LabctlError)}
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", RUNBOOK, re.MULTILINE)}
    assert codes | {0} <= documented


def test_the_runbook_prints_the_vsphere_role_that_the_code_asks_for() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (`[A-Z][^|]+) \|", RUNBOOK, re.MULTILINE)
    printed = {(where, what, name) for where, what, names in rows for name in NAME.findall(names)}
    asked = {(row.where, row.what_for, name) for row in NEEDED for name in row.privileges}
    assert printed == asked


def test_decisions_are_numbered_and_have_their_parts() -> None:
    pages = sorted((PROJECT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text()
        for part in ("## Why", "## What was turned down", "## What follows"):
            assert part in text, f"{page.name} lacks {part!r}"


def test_each_word_of_the_glossary_has_one_row() -> None:
    text = (PROJECT / "docs" / "glossary.md").read_text().split("\n\n")[2]
    words = [
        word.strip()
        for row in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
        for word in row.split(",")
        if word.strip() not in ("word", "---")
    ]
    assert len(words) > 20
    assert sorted(words) == sorted(set(words))
