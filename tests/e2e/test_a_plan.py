"""Before anything stands: a plan is all reading."""

from __future__ import annotations

from typing import Any

from tests.e2e.conftest import ANA, LAB, Installation, find_vms


def test_a_plan_writes_nothing(installation: Installation, vcenter: Any) -> None:
    words = ("--hire", ANA, "--key", f"{installation.key_file}.pub")
    plan = installation.must_json("plan", "mlops-onboarding", *words)
    assert plan["lab_id"] == LAB
    assert [guest["vm_name"] for guest in plan["guests"]] == [f"{LAB}-workbench"]
    assert find_vms(vcenter, f"{LAB}-workbench") == []
    assert installation.must_json("list", "--all") == []
