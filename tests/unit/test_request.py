"""A blueprint against a site, and all the files of one request together."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.errors import FileProblemsError, InputError
from provisioner.files.blueprint import check_fit, load_blueprint
from provisioner.files.request import load_request
from provisioner.files.site import load_site
from provisioner.files.stack import load_stack
from provisioner.model.spec import Blueprint, Site
from tests.unit.project import Project, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return made


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def load(project: Project) -> tuple[Site, Blueprint]:
    name = "two-guests"
    return load_request((project.sites,), "plant", project.labs, project.playbooks, name)


def test_sound_files_give_site_and_blueprint(project: Project) -> None:
    site, blueprint = load(project)
    assert (site.site, blueprint.blueprint) == ("plant", "two-guests")


def test_a_blueprint_that_does_not_fit_points_at_its_own_lines(project: Project) -> None:
    spoil(project.path_of("site"), "  sealed: /DC0", "  closed: /DC0")
    spoil(project.path_of("site"), "  debian-13:\n", "  debian-12:\n")
    site = load_site((project.sites,), "plant")
    with pytest.raises(FileProblemsError) as caught:
        check_fit(project.labs, "two-guests", site)
    network = "unknown network of site plant; there are: closed, lab"
    template = "vm_template: unknown VM template of site plant (did you mean debian-12?)"
    assert [str(problem) for problem in caught.value.problems] == [
        f"labs/two-guests/lab.yml:10:5 guests[0].{template}; there are: debian-12",
        f"labs/two-guests/lab.yml:16:5 guests[1].{template}; there are: debian-12",
        f"labs/two-guests/lab.yml:19:21 guests[1].networks[1]: {network}",
    ]


def test_problems_of_every_file_come_at_once(project: Project) -> None:
    spoil(project.path_of("site"), "port: 443", "port: 0")
    spoil(project.path_of("blueprint"), "cpus: 2", "cpus: 0")
    spoil(project.path_of("stack"), "stack: mlops", "stck: mlops")
    with pytest.raises(FileProblemsError) as caught:
        load(project)
    assert [problem.key for problem in caught.value.problems] == [
        "vcenter.port",
        "stack",
        "stck",
        "guests[0].cpus",
    ]


def test_checks_and_fit_are_read_too(project: Project) -> None:
    spoil(project.path_of("checks"), "timeout_s: 30", "timeout_s: 0")
    spoil(project.path_of("site"), "  sealed: /DC0", "  closed: /DC0")
    with pytest.raises(FileProblemsError) as caught:
        load(project)
    assert [problem.key for problem in caught.value.problems] == [
        "guests[1].networks[1]",
        "checks[0].timeout_s",
    ]


def test_a_blueprint_with_faults_is_held_against_the_site_all_the_same(project: Project) -> None:
    spoil(project.path_of("blueprint"), "cpus: 2", "cpus: 0")
    spoil(project.path_of("blueprint"), "networks: [lab]", "networks: [labb, Lab]")
    with pytest.raises(FileProblemsError) as caught:
        load(project)
    assert [(problem.key, problem.text.split("; ")[0]) for problem in caught.value.problems] == [
        ("guests[0].cpus", "too small"),
        ("guests[0].networks[0]", "unknown network of site plant (did you mean lab?)"),
        ("guests[0].networks[1]", "wrong form"),
    ]


def test_a_file_that_is_no_yaml_is_reported_once(project: Project) -> None:
    project.path_of("blueprint").write_text("a: [")
    with pytest.raises(FileProblemsError) as caught:
        load(project)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ["../two-guests", "", ".", "nowhere", "two-guests/lab.yml", "a\n"])
def test_a_blueprint_that_is_not_there(project: Project, name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_blueprint(project.labs, name)
    assert caught.value.what == f"there is no blueprint {name!a} in {project.labs}"
    assert caught.value.hint == "there are: two-guests"


def test_without_any_blueprint(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_blueprint(tmp_path, "x")
    assert caught.value.hint == "there are: none yet"


def test_the_projects_own_files_are_sound() -> None:
    root = Path(__file__).parents[2]
    load_stack(root / "labs")
    site = load_site((root / "inventory" / "sites",), "example")
    for path in (root / "labs").glob("*/lab.yml"):
        load_blueprint(root / "labs", path.parent.name)
        check_fit(root / "labs", path.parent.name, site)
