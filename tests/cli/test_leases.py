"""What IT reads and does about leases and drift, on a simulated vCenter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from provisioner.app.wiring import House
from provisioner.files.site import load_site
from provisioner.model.lab import Lab, LabState, Lease
from tests.cli.conftest import Desk
from tests.contract.guests import Guest, clone, make_identity
from tests.fakes.samples import make_audit, make_lab

DAY = timedelta(days=1)


@pytest.fixture
def house(desk: Desk) -> Iterator[House]:
    made = House(ask_password=lambda who: who, state=desk.state)
    yield made
    for lab in made.store.list_labs():
        at = made.clock.now()
        made.store.set_state(lab.lab_id, lab.generation, LabState.FORGOTTEN, at)
    made.close()


def adopt(
    house: House, lab_id: str, *, ends_in: timedelta, state: LabState, guest: Guest | None = None
) -> Lab:
    """Record a lab that was made four days ago, and its guest if it has one."""
    now = house.clock.now()
    lab = replace(
        make_lab(lab_id),
        state=state,
        created_at=now - 4 * DAY,
        ready_at=now,
        lease=Lease(now + ends_in, 3 * DAY),
    )
    house.store.adopt_lab(lab, (guest.record,) if guest else (), make_audit(lab_id))
    return lab


def test_the_list_says_what_ends_when(desk: Desk, house: House) -> None:
    for lab_id, ends_in, state in (
        ("ann-mlops", 10 * DAY + timedelta(minutes=1), LabState.READY),
        ("bob-mlops", -DAY, LabState.EXPIRED),
        ("cid-mlops", -4 * DAY, LabState.READY),
    ):
        adopt(house, lab_id, ends_in=ends_in, state=state)
    house.store.set_note("timers:plant", "timers stopped: the clock is wrong")
    done = desk.labctl("list")
    house.store.set_note("timers:plant", "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["ann-mlops"].endswith(", ends in 10 d")
    assert "OVERDUE since" in lines["bob-mlops"]
    assert ": powered off, destroyed on" in lines["bob-mlops"]
    assert ": not powered off yet, due to be destroyed since" in lines["cid-mlops"]
    assert "Site plant: timers stopped: the clock is wrong" in done.stdout
    assert "timers stopped" not in desk.labctl("list").stdout


def test_extend_says_the_old_and_the_new_end(desk: Desk, house: House) -> None:
    lab = adopt(house, "dan-mlops", ends_in=10 * DAY, state=LabState.READY)
    done = desk.labctl("extend", "dan-mlops", "--days", "7")
    assert done.returncode == 0, done.stderr
    assert f"was until  {lab.lease.ends_at:%Y-%m-%d %H:%M} UTC" in done.stdout
    assert f"now until  {lab.lease.ends_at + 7 * DAY:%Y-%m-%d %H:%M} UTC" in done.stdout
    assert house.store.get_lab("dan-mlops").lease.ends_at == lab.lease.ends_at + 7 * DAY
    until = f"{lab.lease.ends_at + 20 * DAY:%Y-%m-%d}"
    done = desk.labctl("extend", "dan-mlops", "--until", until, "--json")
    assert json.loads(done.stdout)["new_end"].startswith(until)


@pytest.mark.parametrize(
    ("lab_id", "words", "text"),
    [
        ("eva-mlops", ("--days", "60"), "can be extended until"),
        ("eve-mlops", ("--until", "2001-01-01"), "that is in the past"),
        ("evi-mlops", ("--until", "someday"), "does not match"),
        ("evo-mlops", (), "say either --days or --until"),
    ],
)
def test_extend_refuses_other_ends(
    desk: Desk, house: House, lab_id: str, words: tuple[str, ...], text: str
) -> None:
    lab = adopt(house, lab_id, ends_in=10 * DAY, state=LabState.READY)
    done = desk.labctl("extend", lab_id, *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert house.store.get_lab(lab_id).lease == lab.lease


@pytest.mark.parametrize("state", [LabState.TEARING_DOWN, LabState.FORGOTTEN])
def test_extend_refuses_a_lab_that_goes(desk: Desk, house: House, state: LabState) -> None:
    lab = adopt(house, f"f{state.value[0]}-mlops", ends_in=10 * DAY, state=state)
    assert desk.labctl("extend", lab.lab_id, "--days", "1").returncode == 3


def test_an_expired_lab_is_not_converged(desk: Desk, house: House) -> None:
    adopt(house, "hal-mlops", ends_in=-DAY, state=LabState.EXPIRED)
    done = desk.labctl("converge", "hal-mlops")
    assert done.returncode == 3
    assert "labctl extend hal-mlops --days 7 brings it back" in done.stderr
    assert house.store.list_open_work() == ()


def read_status(desk: Desk, lab_id: str) -> tuple[str, list[dict[str, Any]]]:
    spoken, plain = desk.labctl("status", lab_id), desk.labctl("status", lab_id, "--json")
    assert (spoken.returncode, plain.returncode) == (0, 0), spoken.stderr
    (guest,) = json.loads(plain.stdout)["guests"]
    return spoken.stdout, guest["drift"]


def test_the_status_says_what_differs(desk: Desk, house: House) -> None:
    hypervisor = house.get_hypervisor(load_site(house.site_dirs, "plant"))
    identity = make_identity(lab="gil-mlops")
    guest = clone(hypervisor, identity, cpus=2, memory_mib=4096)
    hypervisor.ensure_powered_on(identity)
    adopt(house, "gil-mlops", ends_in=10 * DAY, state=LabState.READY, guest=guest)
    spoken, drift = read_status(desk, "gil-mlops")
    assert drift == []
    assert spoken.endswith("Nothing differs from the record.\n")
    hypervisor.ensure_powered_off(identity, grace_s=0)
    spoken, drift = read_status(desk, "gil-mlops")
    assert drift == [{"what": "power", "recorded": "on", "observed": "off"}]
    assert spoken.endswith("1 thing differs from the record.\n")
    at = house.clock.now()
    house.store.set_state("gil-mlops", 1, LabState.EXPIRED, at)
    assert read_status(desk, "gil-mlops")[1] == [], "an expired lab is off and disconnected"
    guest.destroy()
    spoken, drift = read_status(desk, "gil-mlops")
    assert [(one["what"], one["observed"]) for one in drift] == [("VM", "missing in vCenter")]
