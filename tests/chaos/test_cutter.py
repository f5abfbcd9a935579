"""The wire to vCenter is cut again and again, and a lab still comes and goes whole."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.chaos.cutter import CUTS, LATENCY_S, SLOW_CLOSE_S, SPARED, Cutter
from tests.chaos.ground import ground
from tests.chaos.hasty import StuckError, wait_for_end, working
from tests.chaos.lanes import run_side_by_side
from tests.chaos.schedules import SLOTS, ask

SHORT, LONG = range(6), 60
MOST = 4
SILENCE_S = 1.0


@dataclass(frozen=True)
class Report:
    """What came of one lab behind a cutter: how often which cut happened, and what is wrong."""

    seed: int
    cuts: tuple[str, ...]
    wrong: tuple[str, ...]


def run_case(seed: int) -> Report:
    """Provision a lab and tear it down over a bad wire."""
    wrong: list[str] = []
    cuts: list[str] = []
    with (
        TemporaryDirectory(prefix="labctl-chaos-") as folder,
        ground(Path(folder) / "case", *SLOTS[seed % 2]) as place,
    ):
        vcenter = (place.simulator.host, place.simulator.port)
        for workflow in ("provision", "teardown"):
            ask(place, workflow)  # over a good wire
            with Cutter(vcenter, seed, MOST) as cutter:
                place.write_site(cutter.port)
                try:
                    with working(place):
                        error = wait_for_end(place)
                except StuckError as stuck:
                    error = str(stuck)
            place.write_site(place.simulator.port)
            find = {"provision": place.find_wrong_provision}
            wrong += [*([error] if error else []), *find.get(workflow, place.find_wrong_teardown)()]
            cuts += cutter.done
    return Report(seed, tuple(cuts), tuple(wrong))


def list_wrong(reports: Iterable[Report]) -> list[Report]:
    return [report for report in reports if report.wrong]


def test_a_lab_comes_and_goes_over_a_bad_wire() -> None:
    reports = run_side_by_side(run_case, SHORT)
    assert list_wrong(reports) == []
    assert {cut for report in reports for cut in report.cuts} == set(CUTS)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_labs_come_and_go_over_a_bad_wire() -> None:
    base = secrets.randbelow(10**6)
    reports = run_side_by_side(run_case, range(base, base + LONG))
    cuts, wrong = sum(len(report.cuts) for report in reports), list_wrong(reports)
    print(f"\n{LONG} labs over a bad wire, seeds from {base} on: {cuts} cuts, {len(wrong)} wrong")
    assert wrong == []


# -- the cutter itself -----------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what one client sends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while chunk := connection.recv(4096):
                    connection.sendall(chunk)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        thread.join()


@pytest.mark.parametrize("cut", [SPARED, *CUTS])
def test_what_a_client_sees_of_a_cut(echo: tuple[str, int], cut: str) -> None:
    with Cutter(echo, 1, MOST, (cut,)) as cutter:
        with socket.create_connection(("127.0.0.1", cutter.port), SILENCE_S) as client:
            seen = talk(client)
        began_s = time.monotonic()
    assert seen == cut
    assert cutter.done == [cut] * (cut != SPARED)
    assert time.monotonic() - began_s < SLOW_CLOSE_S, "closing it waits for nobody"


def talk(client: socket.socket) -> str:
    """Send and receive until enough has passed for everything; tell what was seen."""
    late_s = 0.0
    try:
        for _ in range(35):
            began_s = time.monotonic()
            client.sendall(b"x" * 1000)
            got = 0
            while got < 1000:
                got += len(client.recv(1000))
            late_s = max(late_s, time.monotonic() - began_s)
        client.shutdown(socket.SHUT_WR)
        began_s = time.monotonic()
        client.settimeout(2 * SLOW_CLOSE_S)
        assert client.recv(1) == b""
    except ConnectionError:
        return "reset"
    except TimeoutError:
        return "half-open"
    if time.monotonic() - began_s >= SLOW_CLOSE_S:
        return "slow close"
    return "latency" if late_s >= 2 * LATENCY_S else SPARED
