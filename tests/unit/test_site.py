from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from provisioner.errors import FileProblemsError, InputError
from provisioner.files.site import (
    MAX_CA_BYTES,
    MAX_PASSWORD_BYTES,
    _choose_state_dir,
    find_ca_fault,
    find_sites,
    load_site,
    project_dir,
    read_password,
    state_dir,
)
from provisioner.model.spec import Site
from tests.fakes.samples import make_site
from tests.unit.project import Project, make_project, read_base


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("LABCTL_STATE", "LABCTL_SITE", "LABCTL_PROJECT", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(key, raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


def add_site(folder: Path, name: str) -> None:
    text = read_base("site").replace("site: plant", f"site: {name}")
    folder.mkdir(exist_ok=True)
    lines = [line for line in text.split("\n") if ".pem" not in line and "password" not in line]
    (folder / f"{name}.yml").write_text("\n".join(lines))


# -- which site -------------------------------------------------------------------------------


def test_the_only_site_is_taken_and_the_example_does_not_count(project: Project) -> None:
    add_site(project.sites, "example")
    assert load_site((project.sites,)).site == "plant"


def test_the_shipped_example_is_valid() -> None:
    folder = Path(__file__).parents[2] / "inventory" / "sites"
    assert load_site((folder,), "example").placement.reserve_gib > 0


def test_without_a_site_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_site((tmp_path, tmp_path / "nowhere"))
    assert "labctl sim up" in caught.value.hint


def test_several_sites_are_listed(project: Project, tmp_path: Path) -> None:
    add_site(tmp_path / "state", "sim")
    dirs = (project.sites, tmp_path / "state")
    with pytest.raises(InputError, match="several sites: plant, sim"):
        load_site(dirs)
    assert load_site(dirs, "sim").site == "sim"


def test_the_environment_names_one_and_the_option_wins(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_site(tmp_path / "state", "sim")
    dirs = (project.sites, tmp_path / "state")
    monkeypatch.setenv("LABCTL_SITE", "sim")
    assert load_site(dirs).site == "sim"
    assert load_site(dirs, "plant").site == "plant"


def test_the_first_folder_wins(project: Project, tmp_path: Path) -> None:
    add_site(tmp_path / "state", "plant")
    assert find_sites((project.sites, tmp_path / "state")) == {"plant": project.path_of("site")}


@pytest.mark.parametrize("name", ["../plant", "/etc/passwd", "plant.yml", "plant\n", "nowhere"])
def test_a_name_never_becomes_a_path(project: Project, name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_site((project.sites,), name)
    assert caught.value.what == f"there is no site {name!a}"
    assert caught.value.hint == "there are: plant"


def test_files_are_found_from_anywhere(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    site = load_site((Path("inventory/sites"),), "plant")
    monkeypatch.chdir("/")
    assert site.vcenter.ca_file == project.sites / "ca.pem"
    assert site.guests.ca_certificates == (project.sites / "ca.pem", project.sites / "chain.pem")
    assert read_password(site) == "secret"


# -- certificates -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no certificate that can be read"),
        (b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "no certificate"),
        (b"\xff\xfe", "no certificate that can be read"),
        (b"#" * (MAX_CA_BYTES + 1), "too large"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "holds a private key"),
    ],
)
def test_what_is_no_ca_certificate(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    assert fault in find_ca_fault(tmp_path / "ca.pem")


def test_a_file_name_with_a_nul() -> None:
    assert find_ca_fault(Path("a\0b")).startswith("cannot be read: no file can have this name")


# -- the password -----------------------------------------------------------------------------


def with_source(**source: object) -> Site:
    account = {"host": "vcenter.example.com", "username": "labctl@vsphere.local"}
    return make_site(vcenter={**account, **source})


def with_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> Site:
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return with_source(password_file=path)


def test_without_a_source_a_person_is_asked() -> None:
    assert read_password(with_source()) is None


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"pass word", "pass word"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b" s \n", " s "),
        ("päss".encode(), "päss"),
    ],
)
def test_a_password_file(tmp_path: Path, content: bytes, password: str) -> None:
    assert read_password(with_file(tmp_path, content)) == password


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hunter2\n\n", b"hunter2\nx", b"hunter2\xff", b"\0hunter2"]
)
def test_a_password_that_is_none_is_never_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_password(with_file(tmp_path, content))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(InputError, match="needed is one line"):
        read_password(with_file(tmp_path, b"x" * (MAX_PASSWORD_BYTES + 1)))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_an_open_password_file_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InputError, match="other users can read it; do: chmod 600"):
        read_password(with_file(tmp_path, b"secret", mode))


def test_a_password_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"password_file .*: cannot be read: No such file"):
        read_password(with_source(password_file=tmp_path / "nowhere"))
    with pytest.raises(InputError, match="not a file"):
        read_password(with_source(password_file="/dev/null"))


def test_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = with_source(password_credential="vcenter")
    with pytest.raises(InputError, match="no systemd credentials"):
        read_password(site)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(InputError, match="password_credential vcenter: cannot be read"):
        read_password(site)
    (tmp_path / "vcenter").write_text("secret")
    (tmp_path / "vcenter").chmod(0o400)
    assert read_password(site) == "secret"


def test_a_password_command_runs_without_a_shell() -> None:
    command = [sys.executable, "-c", "import sys; print(sys.argv[1])", "$(id) ; `id`"]
    assert read_password(with_source(password_command=command)) == "$(id) ; `id`"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("print('hunter2'); raise SystemExit(3)", "ended with status 3"),
        ("", "needed is one line"),
        ("print('hunter2\\nhunter2')", "needed is one line"),
        ("import sys; print(sys.stdin.read() + 'hunter2\\n')", "needed is one line"),
    ],
)
def test_a_password_command_that_fails(code: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        read_password(with_source(password_command=[sys.executable, "-c", code]))
    assert "hunter2" not in str(caught.value)


def test_a_password_command_that_is_not_there_or_never_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="cannot be run: FileNotFoundError"):
        read_password(with_source(password_command=["/nowhere/pass"]))
    monkeypatch.setattr("provisioner.files.site.PASSWORD_COMMAND_S", 0.2)
    with pytest.raises(InputError, match="no answer within"):
        read_password(with_source(password_command=["sleep", "60"]))


# -- folders ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "is_root", "expected"),
    [
        ({"LABCTL_STATE": "/x/y"}, True, "/x/y"),
        ({"LABCTL_STATE": "", "XDG_STATE_HOME": "/s"}, True, "/var/lib/labctl"),
        ({"XDG_STATE_HOME": "/s"}, False, "/s/labctl"),
        ({"XDG_STATE_HOME": "s"}, False, f"{Path.home()}/.local/state/labctl"),
        ({}, False, f"{Path.home()}/.local/state/labctl"),
    ],
)
def test_where_the_state_is(environ: dict[str, str], is_root: bool, expected: str) -> None:  # noqa: FBT001 - a table's column
    assert _choose_state_dir(environ, is_root=is_root) == Path(expected)


def test_a_relative_state_folder_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABCTL_STATE", "deep/state")
    old = os.umask(0)
    try:
        assert state_dir() == tmp_path / "deep/state"
    finally:
        os.umask(old)
    assert (tmp_path / "deep/state").stat().st_mode & 0o777 == 0o700


def test_an_open_state_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o750)
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path))
    with pytest.raises(InputError) as caught:
        state_dir()
    assert caught.value.hint == f"chmod 700 {tmp_path}"


def test_a_state_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LABCTL_STATE", str(tmp_path / "file" / "state"))
    with pytest.raises(InputError, match="cannot be made: Not a directory"):
        state_dir()


def test_the_project_is_the_one_that_is_named(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (project_dir() / "provisioner").is_dir(), "without a word: where labctl lies"
    monkeypatch.setenv("LABCTL_PROJECT", str(project.root))
    assert project_dir() == project.root
    monkeypatch.setenv("LABCTL_PROJECT", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no labs and playbooks in"):
        project_dir()


def test_site_problems_name_the_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    (project.sites / "ca.pem").unlink()
    with pytest.raises(FileProblemsError) as caught:
        load_site((project.sites,), "plant")
    assert {problem.file for problem in caught.value.problems} == {"inventory/sites/plant.yml"}
