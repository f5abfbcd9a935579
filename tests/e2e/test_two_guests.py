"""A lab of several guests is natural: they come side by side, and go one by one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PROJECT, Installation, find_vms

BLUEPRINT = """\
blueprint: pair
title: Two small guests
short: pair
lease: {default_days: 1, max_days: 2, grace_days: 0}
guests:
  - slot: left
    vm_template: debian-13
    cpus: 1
    memory_mib: 1024
    networks: [lab]
    roles: [linux_baseline, hire_account]
  - slot: right
    vm_template: debian-13
    cpus: 1
    memory_mib: 1024
    networks: [lab]
    roles: [linux_baseline, hire_account]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a blueprint of two guests beside the real roles."""
    (tmp_path / "labs" / "pair").mkdir(parents=True)
    (tmp_path / "labs" / "pair" / "lab.yml").write_text(BLUEPRINT)
    shutil.copy(PROJECT / "labs" / "stack.yml", tmp_path / "labs")
    (tmp_path / "playbooks").symlink_to(PROJECT / "playbooks")
    return tmp_path


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
