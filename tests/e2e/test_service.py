"""The worker's systemd unit, judged by systemd itself on a guest."""

from __future__ import annotations

import base64

import pytest

from tests.e2e.conftest import PROJECT, Installation

UNIT = PROJECT / "bootstrap" / "labctl-worker.service"
JUDGE = """
folder=$(mktemp -d)
base64 -d >"$folder/labctl-worker.service" <<<{unit}
systemd-analyze security --offline=yes --no-pager --threshold=20 "$folder/labctl-worker.service" \
    | tail -n 1
"""


def judge(lab: Installation, unit: str) -> str:
    encoded = base64.b64encode(unit.encode()).decode()
    return lab.admin(f"set -o pipefail\n{JUDGE.format(unit=encoded)}")


def test_the_unit_is_hardened(lab: Installation) -> None:
    assert "OK" in judge(lab, UNIT.read_text())


def test_a_unit_without_its_hardening_is_refused(lab: Installation) -> None:
    bare = UNIT.read_text().partition("NoNewPrivileges")[0]
    with pytest.raises(AssertionError, match=r"UNSAFE|EXPOSED"):
        judge(lab, bare)
