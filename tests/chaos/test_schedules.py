"""vCenter fails by rules at any call, and a lab still comes and goes whole.

What a schedule is: see `schedules`, which also runs a single one by its seed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from functools import partial

import pytest

from tests.chaos.lanes import run_side_by_side
from tests.chaos.schedules import (
    KINDS,
    Report,
    Site,
    build_schedule,
    list_faults,
    record_sites,
    run_schedule,
)

SHORT, LONG = range(40), 500


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return record_sites()


def run_all(sites: list[Site], seeds: Iterable[int]) -> list[Report]:
    return run_side_by_side(partial(run_schedule, sites), seeds)


def test_a_lab_comes_and_goes_while_vcenter_fails(sites: list[Site]) -> None:
    reports = run_all(sites, SHORT)
    assert [str(report) for report in reports if report.wrong] == []


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_every_kind_of_fault_at_every_call_site(sites: list[Site]) -> None:
    base = secrets.randbelow(10**6)
    reports = run_all(sites, range(base, base + LONG))
    pairs = {fault.pair for fault in list_faults(sites)}
    hit = {fault.pair for report in reports for fault in report.hit}
    wrong = [str(report) for report in reports if report.wrong]
    print(f"\n{LONG} schedules, seeds from {base} on: {LONG - len(wrong)} ok")
    print(f"{len(hit)} of {len(pairs)} pairs of a call site and a kind of fault were met")
    print(f"the longest took {max(report.elapsed_s for report in reports):.1f} s")
    assert wrong == [], "python -m tests.chaos.schedules SEED tells all about one"
    assert pairs - hit == set()


def test_a_long_run_meets_every_pair(sites: list[Site]) -> None:
    pairs = {fault.pair for fault in list_faults(sites)}
    planned = {one.pair for seed in range(LONG) for one in build_schedule(sites, seed)}
    assert planned == pairs
    assert {kind for _, _, kind in pairs} == {kind.name for kind in KINDS}
    assert {method for _, method, _ in pairs} >= {"CloneVM_Task", "Destroy_Task", "Login"}
