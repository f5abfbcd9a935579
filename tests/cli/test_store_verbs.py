"""sweep, adopt, backup and restore as a person at the terminal, or a script, calls them."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import termios
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.app.wiring import House
from provisioner.credentials import ensure_installation
from provisioner.files.host_settings import HostSettings, build_simulator_site, write_site
from provisioner.files.site import load_site
from provisioner.model.lab import Desired, GuestIdentity, GuestRecord, GuestState, Lab, LabState
from provisioner.ports import CloneOrder, Hypervisor
from provisioner.rules.dossier import build_dossier
from tests.cli.conftest import PROJECT, Desk
from tests.fakes.samples import make_audit, make_lab

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def office(desk: Desk, tmp_path: Path) -> Desk:
    """An installation of its own on the simulator of all."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    ensure_installation(state)
    site = build_simulator_site(HostSettings(), desk.endpoint)
    write_site(state / "sites" / "plant.yml", {**site, "site": "plant"})
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(PASSPHRASE + "\n")
    return Desk(state, desk.key)


@contextmanager
def open_house(office: Desk) -> Iterator[tuple[House, Hypervisor]]:
    house = House(ask_password=lambda _: "", state=office.state, project=PROJECT)
    try:
        yield house, house.get_hypervisor(load_site(house.site_dirs, "plant"))
    finally:
        house.close()


def stand(office: Desk, state: LabState = LabState.READY) -> Lab:
    """Put a lab with one VM into store and vCenter; a closed one leaves an orphan."""
    with open_house(office) as (house, hypervisor):
        sight, now = hypervisor.check_sight(), house.clock.now()
        lab = replace(
            make_lab(f"u{uuid.uuid4().hex[:8]}-mlops"),
            vcenter_uuid=sight.vcenter_uuid,
            event_key=sight.event_key,
            created_at=now,
            state=state,
            desired=Desired.PRESENT,
        )
        (template,) = load_site(house.site_dirs, "plant").vm_templates
        pin = hypervisor.pin_template(template)
        identity = GuestIdentity(lab.lab_id, 1, "workbench", str(uuid.uuid4()))
        guest = GuestRecord(identity, f"{lab.lab_id}-workbench", "nonce", pin=pin)
        order = CloneOrder(
            identity=identity,
            vm_name=guest.vm_name,
            vm_template=template,
            cpus=2,
            memory_mib=4096,
            networks=("lab",),
            datastore=load_site(house.site_dirs, "plant").placement.datastores[0],
            guestinfo=(),
            pin=pin,
            dossier=build_dossier(lab, guest),
        )
        vm = hypervisor.ensure_clone(order, lambda _: None)
        stands = replace(guest, state=GuestState.STANDING, moref=vm.moref, mac=vm.nics[0].mac)
        audit = replace(make_audit(lab.lab_id), at=now)
        house.store.adopt_lab(lab, (stands,), audit)
        house.credentials.ensure_lab_key(lab.lab_id, 1)
    return lab


def list_ours(office: Desk) -> set[str]:
    with open_house(office) as (_, hypervisor):
        return {vm.name for vm in hypervisor.list_marked_vms() if vm.ownership == "ours"}


def lose_store(office: Desk) -> None:
    for path in office.state.glob("labctl.db*"):
        path.unlink()


def test_sweep_shows_and_with_leave_destroys(office: Desk) -> None:
    lab, orphan = stand(office), stand(office, LabState.FORGOTTEN)
    names = {f"{lab.lab_id}-workbench", f"{orphan.lab_id}-workbench"}
    done = office.labctl("sweep", "--older-than", "0")
    assert (done.returncode, done.stderr.startswith("site plant")) == (0, True)
    rows = {line.split()[1]: line.split()[0] for line in done.stdout.splitlines() if "vm-" in line}
    assert {rows[name] for name in names} == {"lab", "orphan"}
    assert "orphans: 1" in done.stdout
    for words in (("--destroy",), ("--destroy", "--yes")):
        done = office.labctl("sweep", *words)  # an hour old it is not
        assert (done.returncode, "orphan" in done.stdout) == (0, True)
    done = office.labctl("sweep", "--older-than", "0", "--destroy")
    assert (done.returncode, "--yes" in done.stderr) == (3, True)
    assert list_ours(office) == names
    done = office.labctl("sweep", "--older-than", "0", "--destroy", "--yes", "--json")
    assert done.returncode == 0
    (ended,) = json.loads(done.stdout)["ended"]
    assert (ended["vm"]["name"], ended["gone"]) == (f"{orphan.lab_id}-workbench", True)
    assert list_ours(office) == {f"{lab.lab_id}-workbench"}


def forget_the_birth(office: Desk, lab: Lab) -> None:
    """Leave nothing that says which disks the VM was born with."""
    with open_house(office) as (house, hypervisor):
        (guest,) = house.store.list_guests(lab.lab_id, 1)
        hypervisor.write_dossier(guest.identity, "")
        with house.store._writing.begin() as connection:
            for table in ("guests", "labs"):
                connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - constants


@pytest.mark.parametrize("as_json", [False, True])
def test_sweep_leaves_with_6_when_an_orphan_is_left(office: Desk, *, as_json: bool) -> None:
    lab = stand(office, LabState.FORGOTTEN)
    forget_the_birth(office, lab)
    words = ["sweep", "--older-than", "0", "--destroy", "--yes"]
    done = office.labctl(*words, *(["--json"] if as_json else []))
    assert done.returncode == 7  # nothing says which vCenter this should be
    assert list_ours(office) == {f"{lab.lab_id}-workbench"}
    other = stand(office)
    done = office.labctl(*words, *(["--json"] if as_json else []))
    assert done.returncode == 6
    if as_json:
        assert [one["gone"] for one in json.loads(done.stdout)["ended"]] == [False]
    else:
        assert "1 of 1 orphans are left" in done.stderr
    assert list_ours(office) == {f"{one.lab_id}-workbench" for one in (lab, other)}


def test_adopt_shows_asks_and_records(office: Desk) -> None:
    assert office.labctl("adopt").stdout.splitlines()[-1] == "Nothing to adopt."
    lab = stand(office)
    lose_store(office)
    done = office.labctl("sweep", "--older-than", "0", "--destroy", "--yes")
    assert (done.returncode, "labctl adopt first" in done.stderr) == (3, True)
    done = office.labctl("adopt")
    assert (done.returncode, "--yes" in done.stderr) == (3, True)
    assert f"{lab.lab_id}/1" in done.stdout
    assert json.loads(office.labctl("list", "--json").stdout) == []
    done = office.labctl("adopt", "--yes", "--json")
    assert done.returncode == 0
    (adoption,) = json.loads(done.stdout)["comparison"]["adoptions"]
    assert adoption["lab"]["lab_id"] == lab.lab_id
    (found,) = json.loads(office.labctl("list", "--json").stdout)
    assert (found["lab_id"], found["state"]) == (lab.lab_id, "expired")


def test_a_backup_is_restored_and_adopt_makes_it_whole(office: Desk, tmp_path: Path) -> None:
    old = stand(office)
    words = (str(tmp_path / "backup"), "--passphrase-file", str(tmp_path / "passphrase"))
    done = office.labctl("backup", *words)
    assert (done.returncode, "keys: 1" in done.stdout) == (0, True)
    assert office.labctl("backup", *words).returncode == 3
    young = stand(office)
    done = office.labctl("restore", *words)
    assert (done.returncode, "--yes" in done.stderr, "labctl.db" in done.stderr) == (3, True, False)
    done = office.labctl("restore", *words, "--yes")
    assert (done.returncode, "labctl adopt" in done.stdout) == (0, True)
    (aside,) = office.state.glob("replaced-*")
    assert str(aside) in done.stdout
    assert [one["lab_id"] for one in json.loads(office.labctl("list", "--json").stdout)] == [
        old.lab_id
    ]
    for verb in (("sweep", "--destroy"), ("teardown", old.lab_id)):
        done = office.labctl(*verb, "--yes")
        assert (done.returncode, "labctl adopt first" in done.stderr) == (3, True)
    names = {f"{one.lab_id}-workbench" for one in (old, young)}
    assert list_ours(office) == names
    done = office.labctl("adopt", "--yes")
    assert (done.returncode, "whole again" in done.stdout) == (0, True)
    done = office.labctl("teardown", old.lab_id, "--yes")
    assert (done.returncode, "COMPLETE" in done.stdout) == (0, True)
    assert list_ours(office) == {f"{young.lab_id}-workbench"}


def test_a_wrong_passphrase_and_a_strange_file_change_nothing(office: Desk, tmp_path: Path) -> None:
    stand(office)
    secret, file = tmp_path / "passphrase", tmp_path / "backup"
    words = (str(file), "--passphrase-file", str(secret))
    assert office.labctl("backup", *words).returncode == 0
    before = (office.state / "labctl.db").read_bytes()
    secret.write_text("another\n")
    done = office.labctl("restore", *words, "--yes")
    assert (done.returncode, "not the passphrase" in done.stderr) == (2, True)
    secret.chmod(0o644)
    done = office.labctl("restore", *words, "--yes")
    assert (done.returncode, "other users can read it" in done.stderr) == (2, True)
    done = office.labctl("restore", str(office.key), "--yes")
    assert (done.returncode, "--passphrase-file" in done.stderr) == (3, True)
    assert (office.state / "labctl.db").read_bytes() == before


def type_into(office: Desk, words: list[str], lines: list[str]) -> tuple[int, str]:
    """Run labctl at a terminal and type a line at each prompt; returns its end and its output."""
    mine, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "provisioner.cli.main", *words],
        env={**os.environ, "LABCTL_STATE": str(office.state)},
        cwd=PROJECT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - getpass asks /dev/tty
    ) as process:
        os.close(theirs)
        seen = b""
        with os.fdopen(mine, "r+b", buffering=0) as terminal:
            while True:
                try:
                    seen += terminal.read(1024)
                except OSError:  # the other end is closed
                    break
                if lines and seen.rstrip(b" ").endswith(b":"):
                    terminal.write(lines.pop(0).encode() + b"\n")
                    seen += b"|"
        return process.wait(timeout=60), seen.decode()


def test_at_the_terminal_the_passphrase_is_asked_twice_and_then_once(
    office: Desk, tmp_path: Path
) -> None:
    stand(office)
    file = str(tmp_path / "backup")
    code, seen = type_into(office, ["backup", file], [PASSPHRASE, PASSPHRASE])
    assert (code, seen.count("|")) == (0, 2)
    assert PASSPHRASE not in seen
    code, seen = type_into(office, ["restore", file, "--yes"], [PASSPHRASE])
    assert (code, seen.count("|"), "Restored" in seen) == (0, 1, True)
    assert PASSPHRASE not in seen
