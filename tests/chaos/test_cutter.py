"""The wire to vCenter is cut again and again, and a lab still comes and goes whole."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.cutter import CUTS, Cutter
from tests.chaos.ground import ground
from tests.chaos.hasty import wait_for_end, working
from tests.chaos.schedules import SLOTS, ask

SHORT, LONG = range(8), 60
LANES = 4
MOST = 6
FIND = {"provision": "find_wrong_provision", "teardown": "find_wrong_teardown"}


def run_case(folder: Path, seed: int) -> tuple[list[str], list[str]]:
    """Provision a lab and tear it down over a bad wire; return what was cut, and what is wrong."""
    wrong: list[str] = []
    cuts: list[str] = []
    with ground(folder / f"{seed}", *SLOTS[seed % 2]) as place:
        for workflow, find in FIND.items():
            ask(place, workflow)  # over a good wire
            cutter = Cutter((place.simulator.host, place.simulator.port), seed, MOST)
            place.write_site(cutter.port)
            try:
                with working(place):
                    error = wait_for_end(place)
            finally:
                cutter.close()
            place.write_site(place.simulator.port)
            wrong += [error] if error else []
            wrong += getattr(place, find)()
            cuts += cutter.done
    return cuts, wrong


def run_all(folder: Path, seeds: range) -> tuple[set[str], dict[int, list[str]]]:
    with ThreadPoolExecutor(LANES) as threads:
        cases = dict(
            zip(seeds, threads.map(lambda seed: run_case(folder, seed), seeds), strict=True)
        )
    cuts = {cut for done, _ in cases.values() for cut in done}
    return cuts, {seed: wrong for seed, (_, wrong) in cases.items() if wrong}


def test_a_lab_comes_and_goes_over_a_bad_wire(tmp_path: Path) -> None:
    cuts, wrong = run_all(tmp_path, SHORT)
    assert wrong == {}
    assert cuts == set(CUTS)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_many_labs_come_and_go_over_a_bad_wire(tmp_path: Path) -> None:
    base = secrets.randbelow(10**6)
    _, wrong = run_all(tmp_path, range(base, base + LONG))
    print(f"\n{LONG} labs over a bad wire, seeds from {base} on: {LONG - len(wrong)} ok")
    assert wrong == {}
