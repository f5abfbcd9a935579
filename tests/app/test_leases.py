"""Leases in virtual time: what a tick asks for, when clocks stop it, and what IT extends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from provisioner.app.leases import ASK_AGAIN_S, Leases, find_stopped_timers
from provisioner.errors import InputError, LoginRefusedError, RefusedError, VsphereUnavailableError
from provisioner.files.host_settings import write_site
from provisioner.model.lab import Desired, GuestState, Lab, LabState, Lease, WorkStatus
from provisioner.model.spec import Site
from provisioner.rules.dossier import parse_dossier
from provisioner.rules.mark import Installation, build_mark
from tests.fakes.hypervisor import FakeHypervisor
from tests.fakes.samples import NOW, VCENTER, make_audit, make_guests, make_lab, make_site
from tests.fakes.store import MemoryStore
from tests.fakes.vcenter import FakeVcenter

DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
TICK = 15 * SECOND
ENDS = make_lab().lease.ends_at


@dataclass
class VirtualClock:
    """Two clocks that stand still until a test moves them."""

    at: datetime = NOW
    seconds: float = 5000.0

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.seconds


class Hall:
    """What leases need of a house: a store, a site file and two hypervisors in virtual time."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.clock = VirtualClock()
        self.vcenter_clock = VirtualClock()
        self.site_dirs = (folder,)
        self.vcenter = FakeVcenter(VCENTER)
        self.installation = Installation("here", b"k" * 32)
        self.hypervisors = {
            name: FakeHypervisor(make_site(), self.installation, self.vcenter_clock, self.vcenter)
            for name in ("plant", "works")
        }
        for name in self.hypervisors:
            site = make_site(site=name).model_dump(mode="json", exclude_none=True)
            write_site(folder / f"{name}.yml", site)
        self.leases = Leases(self)

    def get_hypervisor(self, site: Site) -> FakeHypervisor:
        return self.hypervisors[site.site]

    @property
    def hypervisor(self) -> FakeHypervisor:
        return self.hypervisors["plant"]

    def pass_time(self, time: timedelta) -> None:
        """Let time pass, on every clock alike."""
        for clock in (self.clock, self.vcenter_clock):
            clock.at += time
            clock.seconds += time.total_seconds()

    def go_to(self, at: datetime) -> None:
        self.pass_time(at - self.clock.at)

    def tick(self, *, after: timedelta = TICK) -> None:
        self.pass_time(after)
        self.leases.tick()

    def add_lab(self, lab_id: str = "ana-mlops", site: str = "plant") -> None:
        lab = replace(make_lab(lab_id), site=site, state=LabState.READY, ready_at=NOW)
        guests = tuple(replace(guest, state=GuestState.STANDING) for guest in make_guests(lab))
        self.store.adopt_lab(lab, guests, make_audit(lab_id))
        for guest in guests:
            vm = self.vcenter.add_vm(guest.vm_name, guest.identity.instance_uuid)
            vm.mark = build_mark(self.installation, guest.identity)

    def get_lab(self) -> Lab:
        return self.store.get_lab("ana-mlops")

    def list_asked(self) -> list[str]:
        """What was asked for and is not done, by workflow."""
        return [one.workflow for one in self.store.list_open_work()]

    def end_work(self, status: WorkStatus = WorkStatus.DONE) -> None:
        for item in self.store.list_open_work():
            self.store.set_work(item.serial, status, self.clock.now())

    def set_state(self, state: LabState) -> None:
        self.store.set_state("ana-mlops", 1, state, self.clock.now())

    def list_warnings(self) -> list[str]:
        entries = self.store.list_entries("ana-mlops")
        return [one.detail for one in entries if one.action == "warn-lease"]


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    made = Hall(tmp_path)
    made.add_lab()
    made.tick()
    return made


# -- by the hour ----------------------------------------------------------------------------------


def test_a_whole_life_by_the_hour(hall: Hall) -> None:
    asked: list[tuple[timedelta, str]] = []
    while not asked or asked[-1][1] != "teardown":
        hall.tick(after=HOUR)
        for item in hall.store.list_open_work():
            asked.append((hall.clock.at - ENDS, item.workflow))
            if item.workflow == "expire":
                hall.set_state(LabState.EXPIRED)
        hall.end_work()
    (off, expired), (gone, destroyed) = asked
    assert (expired, destroyed) == ("expire", "teardown")
    assert timedelta() <= off < HOUR
    assert 3 * DAY <= gone < 3 * DAY + HOUR
    assert hall.get_lab().desired is Desired.ABSENT
    assert hall.get_lab().state is LabState.TEARING_DOWN
    actors = {
        (one.action, one.actor)
        for one in hall.store.list_entries("ana-mlops")
        if one.action != "provision"
    }
    assert actors == {("warn-lease", "lease"), ("expire", "lease"), ("teardown", "lease")}
    assert len(hall.list_warnings()) == 2


def test_a_warning_is_recorded_once_and_in_the_labs_log(hall: Hall) -> None:
    hall.go_to(ENDS - 2 * DAY)
    hall.tick()
    hall.tick()
    Leases(hall).tick()
    (warning,) = hall.list_warnings()
    assert warning.startswith("the lease ends on 2026-03-16 09:30 UTC, in less than 3 d")
    (row,) = hall.store.list_progress("ana-mlops")
    assert (row.workflow, row.step, row.text) == ("lease", "warn", warning)
    assert hall.list_asked() == []


def test_a_lab_with_open_work_is_left_alone(hall: Hall) -> None:
    hall.store.ask_for_work("converge", "ana-mlops", 1, make_audit(), desired=Desired.PRESENT)
    hall.go_to(ENDS + 4 * DAY)
    hall.tick()
    assert hall.list_asked() == ["converge"]
    hall.end_work()
    hall.tick()
    assert hall.list_asked() == ["teardown"]


def test_what_was_asked_is_not_asked_twice(hall: Hall) -> None:
    hall.go_to(ENDS)
    hall.tick()
    hall.tick()
    assert hall.list_asked() == ["expire"]
    assert len([one for one in hall.store.list_entries() if one.action == "expire"]) == 1


def test_an_expiry_that_failed_is_asked_again_after_a_while(hall: Hall) -> None:
    hall.go_to(ENDS)
    hall.tick()
    hall.end_work(WorkStatus.FAILED)
    hall.tick()
    assert hall.list_asked() == []
    hall.tick(after=15 * 60 * SECOND)
    assert hall.list_asked() == ["expire"]


def test_an_expired_lab_whose_lease_was_extended_is_brought_back(hall: Hall) -> None:
    hall.set_state(LabState.EXPIRED)
    hall.tick()
    assert hall.list_asked() == ["revive"]


# -- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_end", [0 * DAY, 3 * DAY])
@pytest.mark.parametrize(
    ("ahead_s", "text"),
    [
        (59, None),
        (-59, None),
        (61, "timers stopped: this machine's clock is 61 s ahead of vCenter's"),
        (-61, "timers stopped: this machine's clock is 61 s behind vCenter's"),
        (7200, "timers stopped: this machine's clock is 2 h ahead of vCenter's"),
    ],
)
def test_nothing_ends_while_clocks_disagree(
    hall: Hall, after_end: timedelta, ahead_s: int, text: str | None
) -> None:
    hall.go_to(ENDS + after_end + HOUR)
    hall.vcenter_clock.at -= ahead_s * SECOND
    hall.tick()
    due = ["expire"] if after_end < 3 * DAY else ["teardown"]
    assert hall.list_asked() == ([] if text else due)
    assert find_stopped_timers(hall, "plant") == text
    hall.vcenter_clock.at += ahead_s * SECOND
    hall.tick()
    assert hall.list_asked() == due, "agreement resumes"
    assert find_stopped_timers(hall, "plant") is None


def test_a_clock_set_far_ahead_destroys_nothing(hall: Hall) -> None:
    hall.clock.at += 400 * DAY
    hall.tick()
    hall.tick()
    assert hall.list_asked() == []
    assert "400 d ahead of vCenter's" in (find_stopped_timers(hall, "plant") or "")
    hall.clock.at -= 400 * DAY
    hall.tick()
    hall.tick()
    assert hall.list_asked() == []
    assert find_stopped_timers(hall, "plant") is None


def test_a_jump_is_seen_even_when_vcenter_jumps_along(hall: Hall) -> None:
    for clock in (hall.clock, hall.vcenter_clock):
        clock.at = ENDS + HOUR
    hall.tick()
    assert hall.list_asked() == []
    assert "jumped forward by 14 d" in (find_stopped_timers(hall, "plant") or "")
    hall.tick()
    assert hall.list_asked() == ["expire"], "it goes on from there, and vCenter agrees"


def test_a_jump_while_no_worker_ran_is_seen_by_the_next_one(hall: Hall) -> None:
    for clock in (hall.clock, hall.vcenter_clock):
        clock.at = ENDS + HOUR
    Leases(hall).tick()
    assert hall.list_asked() == []


def test_a_worker_that_was_away_for_long_goes_on_at_once(hall: Hall) -> None:
    hall.go_to(ENDS + HOUR)
    Leases(hall).tick()
    assert hall.list_asked() == ["expire"]


def test_warnings_go_on_while_timers_are_stopped(hall: Hall) -> None:
    hall.go_to(ENDS - HOUR)
    hall.vcenter_clock.at -= DAY
    hall.tick()
    assert len(hall.list_warnings()) == 1


def test_a_vcenter_that_does_not_answer_stops_its_own_site_only(hall: Hall) -> None:
    hall.add_lab("ben-mlops", site="works")
    hall.hypervisor.failures["read_clock"] = [VsphereUnavailableError("no answer")]
    hall.go_to(ENDS)
    hall.tick()
    assert [one.lab_id for one in hall.store.list_open_work()] == ["ben-mlops"]
    text = "timers stopped: vCenter's clock cannot be read: no answer"
    assert find_stopped_timers(hall, "plant") == text
    assert find_stopped_timers(hall, "works") is None
    hall.tick(after=ASK_AGAIN_S * SECOND)
    assert hall.list_asked() == ["expire", "expire"]
    assert find_stopped_timers(hall, "plant") is None


def test_a_vcenter_that_refused_is_not_asked_at_every_tick(hall: Hall) -> None:
    hall.hypervisor.failures["read_clock"] = [LoginRefusedError("no"), LoginRefusedError("no")]
    hall.tick()
    hall.tick()
    assert len(hall.hypervisor.failures["read_clock"]) == 1
    assert find_stopped_timers(hall, "plant")


def test_a_lab_whose_site_file_is_gone_stops_no_other(hall: Hall) -> None:
    hall.add_lab("ben-mlops", site="nowhere")
    hall.go_to(ENDS)
    hall.tick()
    assert [one.lab_id for one in hall.store.list_open_work()] == ["ana-mlops"]
    assert "nowhere" in (find_stopped_timers(hall, "nowhere") or "")


# -- on request -----------------------------------------------------------------------------------


def test_a_lease_is_extended_with_an_audit_row(hall: Hall) -> None:
    extension = hall.leases.extend(hall.get_lab(), days=7, until=None)
    assert (extension.old_end, extension.new_end) == (ENDS, hall.get_lab().lease.ends_at)
    assert extension.new_end == ENDS + 7 * DAY
    assert extension.revival is None
    (entry,) = [one for one in hall.store.list_entries() if one.action == "extend"]
    assert entry.detail == f"from {ENDS.isoformat()} to {(ENDS + 7 * DAY).isoformat()}"
    hall.go_to(ENDS + DAY)
    hall.tick()
    assert hall.list_asked() == []


def test_a_lease_beyond_the_policy_is_refused_and_nothing_changes(hall: Hall) -> None:
    with pytest.raises(InputError, match="until 2026-05-01 at most"):
        hall.leases.extend(hall.get_lab(), days=None, until=date(2026, 6, 1))
    assert hall.get_lab().lease == Lease(ENDS, 3 * DAY)


def test_saying_the_same_end_again_changes_nothing(hall: Hall) -> None:
    for _ in range(2):
        hall.leases.extend(hall.get_lab(), days=None, until=date(2026, 3, 20))
    assert len([one for one in hall.store.list_entries() if one.action == "extend"]) == 1


def test_an_expired_lab_is_asked_back(hall: Hall) -> None:
    hall.go_to(ENDS + DAY)
    hall.set_state(LabState.EXPIRED)
    extension = hall.leases.extend(hall.get_lab(), days=7, until=None)
    assert extension.new_end == hall.clock.at.replace(microsecond=0) + 7 * DAY
    (item,) = hall.store.list_open_work()
    assert extension.revival == item
    assert item.workflow == "revive"


def test_an_expired_lab_with_other_work_is_brought_back_later(hall: Hall) -> None:
    hall.go_to(ENDS + DAY)
    hall.tick()
    hall.set_state(LabState.EXPIRED)
    assert hall.list_asked() == ["expire"]
    assert hall.leases.extend(hall.get_lab(), days=7, until=None).revival is None
    hall.end_work()
    hall.tick()
    assert hall.list_asked() == ["revive"]


def test_a_teardown_that_began_meanwhile_is_not_hidden(hall: Hall) -> None:
    lab = hall.get_lab()
    hall.store.ask_for_work(
        "teardown",
        "ana-mlops",
        1,
        make_audit(),
        desired=Desired.ABSENT,
        state=LabState.TEARING_DOWN,
    )
    with pytest.raises(RefusedError, match="tearing-down"):
        hall.leases.extend(lab, days=7, until=None)


# -- dossiers -------------------------------------------------------------------------------------


def get_end_in_dossier(hall: Hall) -> datetime | None:
    (guest,) = hall.store.list_guests("ana-mlops", 1)
    vm = hall.hypervisor.find_vm(guest.identity)
    return parse_dossier(vm.dossier)[0].lease.ends_at if vm and vm.dossier else None


def test_the_vms_dossier_follows_the_lease(hall: Hall) -> None:
    hall.leases.extend(hall.get_lab(), days=7, until=None)
    hall.hypervisor.failures["write_dossier"] = [VsphereUnavailableError("no answer")]
    hall.tick()
    assert get_end_in_dossier(hall) is None, "vCenter did not answer"
    hall.tick()
    assert get_end_in_dossier(hall) == ENDS + 7 * DAY
    hall.hypervisor.failures["write_dossier"] = [VsphereUnavailableError("no answer")]
    hall.tick()
    assert hall.hypervisor.failures["write_dossier"], "written once, not at every tick"


def test_a_lab_without_its_vm_needs_no_dossier(hall: Hall) -> None:
    hall.vcenter.vms.clear()
    hall.leases.extend(hall.get_lab(), days=7, until=None)
    hall.tick()
    hall.tick()
    assert hall.store.find_note("dossier:ana-mlops") is None
