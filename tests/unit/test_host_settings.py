from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import InputError
from provisioner.files.host_settings import (
    HostSettings,
    build_simulator_site,
    parse_deb822,
    parse_one_line,
    read_host_settings,
    write_site,
)
from provisioner.files.site import load_site
from tests.cases.harness import load_cases
from tests.unit.project import make_project

LOCAL_CAS = "usr/local/share/ca-certificates"


def read(tmp_path: Path, files: Mapping[str, str], environ: Mapping[str, str]) -> HostSettings:
    """Read the settings of a machine that has only these files."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environ = {key: value.replace("ROOT", str(tmp_path)) for key, value in environ.items()}
    return read_host_settings(environ, tmp_path)


CASES = load_cases(
    "host_settings.yml", needed=set(), allowed={"files", "environ", "settings", "refused"}
)


@pytest.mark.parametrize("case", [case for case in CASES if "refused" not in case.values[0]])
def test_what_a_machine_gives_to_guests(tmp_path: Path, case: dict[str, Any]) -> None:
    found = read(tmp_path, case.get("files", {}), case.get("environ", {}))
    expected: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in case.get("settings", {}).items()
    }
    assert found == HostSettings(**expected)


@pytest.mark.parametrize("case", [case for case in CASES if "refused" in case.values[0]])
def test_what_cannot_be_given_to_guests(tmp_path: Path, case: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, case.get("files", {}), case.get("environ", {}))
    prefix = "this machine's settings cannot be given to guests: "
    assert caught.value.what == prefix + case["refused"]
    assert "hunter2" not in str(caught.value)


def test_certificates_that_are_some(tmp_path: Path) -> None:
    pem = (make_project(tmp_path / "p").sites / "ca.pem").read_text()
    files = {
        f"{LOCAL_CAS}/b.crt": pem,
        f"{LOCAL_CAS}/company/a.crt": pem,
        f"{LOCAL_CAS}/broken.crt": "nonsense",
        f"{LOCAL_CAS}/ignored.pem": pem,
    }
    found = read(tmp_path, files, {}).ca_certificates
    assert found == tuple(str(tmp_path / LOCAL_CAS / name) for name in ("b.crt", "company/a.crt"))


FULL = HostSettings(
    apt_debian="http://mirror.example.com/debian",
    apt_security="http://mirror.example.com/debian-security",
    pip_index_url="https://pypi.example.com/simple",
    http_proxy="http://proxy.example.com:3128",
    https_proxy="http://proxy.example.com:3128",
    no_proxy=("localhost", ".example.com", "10.0.0.0/8", "*"),
    dns=("10.0.0.53", "fd00::53"),
    dns_search=("example.com",),
)


@pytest.mark.parametrize("settings", [FULL, HostSettings()])
def test_the_simulators_site_is_a_valid_site(tmp_path: Path, settings: HostSettings) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    password.chmod(0o600)
    endpoint = {
        "url": "https://127.0.0.1:4443/sdk",
        "host": "127.0.0.1",
        "port": 4443,
        "pid": 1,
        "username": "administrator@vsphere.local",
        "password_file": str(password),
        "thumbprint_sha256": "ab" * 32,
    }
    path = tmp_path / "state" / "sites" / "sim.yml"
    for _ in range(2):
        write_site(path, build_simulator_site(settings, endpoint))
    assert [file.name for file in path.parent.iterdir()] == ["sim.yml"]
    site = load_site((path.parent,))
    assert site.vcenter.thumbprint_sha256 == ":".join(["AB"] * 32)
    assert site.vcenter.password_file == password
    guests = site.guests
    assert guests.pip_index_url == (settings.pip_index_url or None)
    assert tuple(map(str, guests.dns)) == settings.dns
    assert guests.proxy.no_proxy == settings.no_proxy
    assert (guests.apt.security if guests.apt else None) == (settings.apt_security or None)


@given(st.text("debURIsSuites:Types \n#[]=http://trixiemain-", max_size=200) | st.text())
def test_any_text_can_be_read_as_apt_sources(text: str) -> None:
    for source in (*parse_one_line(text), *parse_deb822(text)):
        assert source.uri
        assert source.suite
