"""README, CHANGELOG and docs agree with what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provisioner import errors
from provisioner.cli.main import VERBS
from tests.ground.project import PROJECT, list_files

MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
PAGES = list_files("*.md")
RUNBOOK = (PROJECT / "docs" / "runbook.md").read_text()


def test_every_target_says_what_it_does() -> None:
    assert {"help", "setup", "demo", "test", "check", "format", "bench", "lock"} <= TARGETS
    for target in TARGETS:
        assert re.search(rf"^{target}:.*## \w", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_make_targets_and_verbs_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    code = " ".join(re.findall(r"`[^`]+`", text)) + "\n".join(re.findall(r"^ {4}.*", text, re.M))
    code += "\n".join(re.findall(r"```.*?```", text, re.DOTALL))
    assert set(re.findall(r"\bmake ([a-z]+)", code)) - TARGETS == set()
    assert set(re.findall(r"\blabctl ([a-z]+)", code)) - set(VERBS) == set()


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


def test_decisions_are_numbered_and_have_their_parts() -> None:
    pages = sorted((PROJECT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text()
        for part in ("## Why", "## What was turned down", "## What follows"):
            assert part in text, f"{page.name} lacks {part!r}"


def test_each_word_of_the_glossary_has_one_row() -> None:
    text = (PROJECT / "docs" / "glossary.md").read_text()
    words = [
        word.strip()
        for row in re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
        for word in row.split(",")
        if word.strip() not in ("word", "---")
    ]
    assert len(words) > 20
    assert sorted(words) == sorted(set(words))
