"""What is read from the host: apt mirrors, routes, resolvers; what is said when it lacks them."""

from __future__ import annotations

import platform
import shutil
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import docker
import pytest

from provisioner.simulator.containers import engine, image, networks
from provisioner.simulator.guests import GuestError

if TYPE_CHECKING:
    from pathlib import Path

APT = """\
'{0}/dists/{1}/InRelease' x_InRelease 0
'{0}/dists/{1}/main/binary-amd64/Packages.xz' x 0
'{0}/dists/{1}-updates/main/binary-amd64/Packages.xz' x 0
'https://deb.nodesource.com/node_20.x/dists/nodistro/main/binary-amd64/Packages' x 0
'https://packages.example/apt/dists/cloud-sdk-{1}/main/binary-amd64/Packages' x 0
"""


@pytest.fixture
def codename(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"VERSION_CODENAME": "old"})
    return "old"


def test_the_hosts_debian_mirrors_are_used_for_trixie(codename: str) -> None:
    assert image.list_sources(APT.format("http://mirror.example/debian", codename)) == (
        "deb http://mirror.example/debian trixie main",
        "deb http://security.debian.org/debian-security trixie-security main",
        "deb http://mirror.example/debian trixie-updates main",
    )


def test_a_file_of_mirrors_is_resolved(codename: str, tmp_path: Path) -> None:
    listed = tmp_path / "debian.list"
    listed.write_text("https://one.example/debian\nhttps://two.example/debian\n")
    sources = image.list_sources(APT.format(f"mirror+file:{listed}", codename))
    assert sources[0] == "deb https://one.example/debian trixie main"


def test_without_a_debian_mirror_debians_own_is_used() -> None:
    assert image.list_sources("")[0] == "deb http://deb.debian.org/debian trixie main"


def test_the_recipe_is_the_same_every_time() -> None:
    assert image.build_argv(("deb x",)) == image.build_argv(("deb x",))
    assert image.build_argv(("deb x",)) != image.build_argv(("deb y",))


def test_missing_mmdebstrap_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "REPOSITORY", "labctl-guest-none")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    client = docker.from_env()
    with pytest.raises(GuestError, match="apt-get install mmdebstrap uidmap"):
        image.ensure_image(client)
    client.close()


def test_a_failed_build_ends_in_mmdebstraps_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        image, "list_sources", lambda _: ("deb http://127.0.0.1:9/debian trixie main",)
    )
    client = docker.from_env()
    with pytest.raises(GuestError, match=r"apt mirrors(.|\n)*127\.0\.0\.1"):
        image.ensure_image(client)
    client.close()


def test_an_engine_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(GuestError, match=r"Docker Engine does not answer.*group docker"):
        engine.connect()


def test_routes_and_mtu(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "lo\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000012C6\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0\n"
    )
    assert networks.read_routes(table) == ((IPv4Network("198.18.0.0/22"),), 65536)
    table.write_text("Iface\tDestination\n")
    assert networks.read_routes(table) == ((), 1500)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", ("192.0.2.1", "192.0.2.2")),
        ("# nameserver 192.0.2.9\nnameserver 127.0.0.1\nnameserver 192.0.2.2", ("192.0.2.2",)),
        ("nameserver 127.0.0.53\n", ("198.51.100.1",)),
        ("", ("198.51.100.1",)),
    ],
)
def test_resolvers_are_never_on_loopback(tmp_path: Path, text: str, found: tuple[str, ...]) -> None:
    resolv, upstream = tmp_path / "resolv.conf", tmp_path / "upstream"
    resolv.write_text(text)
    upstream.write_text("nameserver 198.51.100.1\n")
    assert networks.list_resolvers((resolv, upstream)) == found


def test_a_host_with_nothing_but_loopback_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\nnameserver ::1\n")
    with pytest.raises(GuestError, match=r"add a 'nameserver' line"):
        networks.list_resolvers((tmp_path / "resolv.conf", tmp_path / "missing"))
