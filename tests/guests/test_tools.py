"""The host's half of the Tools stand-in against guests that are wrong, slow or hostile."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.simulator.containers import tools
from provisioner.simulator.containers.guest.guest_tools import build_report
from provisioner.simulator.containers.tools import RequestRefusedError, ToolsServer, parse_report
from provisioner.simulator.guests import GuestNic, GuestState
from tests.guests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPORT: dict[str, Any] = {
    "hostname": "guest",
    "nics": [
        {"name": "eth0", "mac": "00:50:56:00:00:01", "addresses": ["192.0.2.7/24", "fe80::1/64"]}
    ],
}


class Vm:
    def __init__(self) -> None:
        self.info: dict[str, str] = {"guestinfo.given": "value"}
        self.states: list[GuestState] = []
        self.reboots = 0

    def info_get(self, key: str) -> str | None:
        return self.info.get(key)

    def info_set(self, key: str, value: str) -> None:
        self.info[key] = value

    def guest_state(self, state: GuestState) -> None:
        self.states.append(state)

    def reboot(self) -> None:
        self.reboots += 1


class Channel:
    """A guest's end of the socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def connect(self) -> socket.socket:
        handle = os.open(self.folder, os.O_PATH)
        try:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(20)
            connection.connect(f"/proc/self/fd/{handle}/{tools.SOCKET_NAME}")
        finally:
            os.close(handle)
        return connection

    def ask(self, request: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def vm() -> Vm:
    return Vm()


@pytest.fixture
def channel(tmp_path: Path, vm: Vm) -> Iterator[Channel]:
    folder = tmp_path / ("deep" * 40)  # longer than a socket's path may be
    folder.mkdir()
    server = ToolsServer(folder, "nic 192.0.2.7 00:50:56:00:00:01", vm, vm.reboot)
    yield Channel(folder)
    server.stop()


@pytest.mark.parametrize(
    ("request_bytes", "reply"),
    [
        (b"info-get guestinfo.given", b"1 value"),
        (b"info-get guestinfo.missing", b"0 No value found"),
        (b"info-set guestinfo.a b c", b"1 "),
        (b"info-set guestinfo.a", b"1 "),
        (b"info-set guestinfo. x", b"0 Permission denied"),
        (b"info-set guestinfo.../x y", b"0 Permission denied"),
        (b"info-set guestinfo." + b"k" * 201 + b" y", b"0 Permission denied"),
        (b"info-set labctl.mark y", b"0 Permission denied"),
        (b"info-get guestinfo.a\nb", b"0 Permission denied"),
        (b"", b"0 Unknown command"),
        (b"\xff\x00", b"0 Unknown command"),
        (b"__class__ x", b"0 Unknown command"),
        (b"tools.report {}", b"0 Bad report"),
        (b"tools.report " + b"[" * 60000, b"0 Bad report"),
        (b"info-set guestinfo.big " + b"x" * 65536, b"0 Request is too long or too slow"),
        (b"simulator.boot", b"1 nic 192.0.2.7 00:50:56:00:00:01"),
    ],
)
def test_answers(channel: Channel, request_bytes: bytes, reply: bytes) -> None:
    assert channel.ask(request_bytes) == reply


def test_values_stay_such_as_xml_can_carry(channel: Channel, vm: Vm) -> None:
    channel.ask(b"info-set guestinfo.odd a\x00b\x1b\xff\tc\xef\xbf\xbe")
    assert vm.info["guestinfo.odd"] == "a?b?\ufffd\tc?"


def test_guestinfo_is_bounded_in_all(channel: Channel, vm: Vm) -> None:
    replies = [channel.ask(b"info-set guestinfo.k%d " % n + b"x" * 60000) for n in range(20)]
    assert replies[0] == b"1 "
    assert replies[-1] == b"0 Guestinfo data is too large"
    assert sum(map(len, vm.info.values())) <= tools.GUESTINFO_MAX_BYTES
    assert channel.ask(b"info-set guestinfo.k0 small") == b"1 "  # replacing frees


def test_a_guest_that_never_finishes_only_delays_itself(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "REQUEST_DEADLINE_S", 0.3)
    with channel.connect() as slow, channel.connect() as silent, channel.connect() as gone:
        slow.sendall(b"info-get ")
        gone.close()
        started_s = time.monotonic()
        assert channel.ask(b"info-get guestinfo.given") == b"1 value"
        assert time.monotonic() - started_s < 5
        silent.close()


def test_a_flood_leaves_the_process_responsive(channel: Channel, vm: Vm) -> None:
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            channel.ask(b"info-set guestinfo.flood x")

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    used_s = time.thread_time()
    for _ in range(5):
        assert channel.ask(b"info-get guestinfo.given") == b"1 value"
    stop.set()
    for thread in threads:
        thread.join()
    assert time.thread_time() - used_s < 1
    assert vm.info["guestinfo.flood"] == "x"


def test_a_planted_symlink_is_replaced_not_followed(tmp_path: Path, vm: Vm) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / tools.SOCKET_NAME).symlink_to(precious)
    server = ToolsServer(folder, "", vm, vm.reboot)
    assert Channel(folder).ask(b"info-get guestinfo.given") == b"1 value"
    server.stop()
    assert precious.read_text() == "kept"
    assert precious.stat().st_mode & 0o777 == 0o644


def test_reports_and_reboots_reach_the_vm(channel: Channel, vm: Vm) -> None:
    assert channel.ask(b"tools.report " + json.dumps(REPORT).encode()) == b"1 "
    nic = GuestNic("00:50:56:00:00:01", "eth0", ("192.0.2.7/24", "fe80::1/64"))
    assert vm.states == [
        GuestState(powered_on=True, tools_running=True, hostname="guest", nics=(nic,))
    ]
    assert channel.ask(b"tools.reboot") == b"1 "
    assert vm.reboots == 1


def test_a_lost_heartbeat_is_reported_once(
    channel: Channel, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.ask(b"tools.report " + json.dumps(REPORT).encode())
    monkeypatch.setattr(tools, "HEARTBEAT_LOST_S", 0.2)
    wait_until(lambda: len(vm.states) > 1, deadline_s=5)
    channel.ask(b"info-get guestinfo.given")
    assert vm.states[1:] == [GuestState(powered_on=True, tools_running=False)]


@pytest.mark.parametrize(
    "change",
    [
        {"hostname": "a b"},
        {"hostname": "x" * 254},
        {"hostname": 5},
        {"nics": None},
        {"nics": REPORT["nics"] * 65},
        {"nics": [{"name": "eth0", "mac": None}]},
        {"nics": [{"name": "e" * 16, "mac": None, "addresses": []}]},
        {"nics": [{"name": "eth0", "mac": None, "addresses": ["192.0.2.1/99"]}]},
        {"nics": [{"name": "eth0", "mac": None, "addresses": ["fe80::1%<x>/64"]}]},
        {"nics": [{"name": "eth0", "mac": None, "addresses": ["192.0.2.1/24"] * 33}]},
        {"nics": [{"name": "eth0", "mac": None, "addresses": [5]}]},
    ],
)
def test_malformed_reports_are_refused(change: dict[str, Any]) -> None:
    parse_report(json.dumps(REPORT))
    with pytest.raises(RequestRefusedError, match="Bad report"):
        parse_report(json.dumps(REPORT | change))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NIC = st.fixed_dictionaries(
    {"name": JSON, "mac": JSON, "addresses": JSON | st.lists(JSON, max_size=3)}
)


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_a_report_or_refused(text: str) -> None:
    try:
        state = parse_report(text)
    except RequestRefusedError:
        return
    assert state.tools_running


@given(st.lists(NIC, max_size=3))
def test_any_nics_are_parsed_or_refused(nics: list[dict[str, Any]]) -> None:
    try:
        state = parse_report(json.dumps({"hostname": "guest", "nics": nics}))
    except RequestRefusedError:
        return
    assert all(nic.name.isprintable() and nic.name for nic in state.nics)


def test_a_report_has_bridges_but_no_loopback_or_veth() -> None:
    links: list[dict[str, Any]] = [
        {"ifname": "lo", "link_type": "loopback", "address": "00:00:00:00:00:00", "addr_info": []},
        {"ifname": "eth0", "link_type": "ether", "address": "00:50:56:00:00:01", "addr_info": []},
        {
            "ifname": "docker0",
            "link_type": "ether",
            "address": "02:42:00:00:00:01",
            "addr_info": [{"local": "172.17.0.1", "prefixlen": 16}],
        },
        {
            "ifname": "veth1@if2",
            "link_type": "ether",
            "address": "12:00:00:00:00:01",
            "addr_info": [],
        },
    ]
    report = parse_report(json.dumps(build_report(links, "guest")))
    assert [(nic.name, nic.addresses) for nic in report.nics] == [
        ("eth0", ()),
        ("docker0", ("172.17.0.1/16",)),
    ]
