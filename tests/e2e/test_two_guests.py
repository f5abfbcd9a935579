"""A lab of several guests is natural: they come side by side, and go one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Installation, find_vms, make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path, "pair", "left", "right")


def test_two_guests_come_side_by_side(
    installation: Installation, project: Path, vcenter: Any
) -> None:
    words = ("--hire", "bo@example.com", "--key", f"{installation.key_file}.pub")
    installation.must("provision", "pair", *words, project=project, timeout_s=900)
    rows = [
        (row["step"], row["slot"], row["status"])
        for row in installation.must_json("logs", "bo-pair", project=project)
    ]
    first_end = rows.index(next(row for row in rows if row[0] == "host-key" and row[2] == "ok"))
    for slot in ("left", "right"):
        assert rows.index(("host-key", slot, "started")) < first_end, "both wait at once"
    report = installation.must_json("verify", "bo-pair", project=project)
    assert {row["slot"] for row in report["results"]} == {"left", "right"}
    hosts = installation.must_json("inventory", "bo-pair", project=project)["all"]["hosts"]
    addresses = {host["ansible_host"] for host in hosts.values()}
    assert len(addresses) == 2
    receipt = installation.must_json("teardown", "bo-pair", "--yes", project=project)
    assert receipt["complete"] is True
    assert find_vms(vcenter, "bo-pair-left") == find_vms(vcenter, "bo-pair-right") == []
