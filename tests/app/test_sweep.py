from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from provisioner.app.sweep import Sweeping, Swept
from provisioner.errors import ClockError, NotProvedError, RefusedError, RestoredStoreError
from provisioner.model.lab import LabState
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY
from provisioner.rules.restored import RESTORED_NOTE
from provisioner.rules.sweep import GRACE, Verdict
from tests.app.office import Office, take_picture
from tests.contract.guests import THEIRS, clone

NO_GRACE = timedelta()


def judge(office: Office, grace: timedelta = NO_GRACE) -> dict[str, Verdict]:
    survey = Sweeping(office.house, office.site).survey(grace)
    return {one.vm.name: one.verdict for one in survey.vms}


def sweep(office: Office, grace: timedelta = NO_GRACE) -> tuple[Swept, ...]:
    sweeping = Sweeping(office.house, office.site)
    return sweeping.destroy(sweeping.survey(grace), lambda _: None)


def test_every_vm_with_a_mark_is_told_and_only_the_orphan_goes(office: Office) -> None:
    office.provision("ana-mlops")
    office.provision("bob-mlops")
    office.forget("bob-mlops")
    moref = office.guests("ana-mlops")[0].moref
    office.hand.copy(moref, "copy-of-ana")
    void = office.hand.plant("looks-like-it")
    office.hand.set_option(void, MARK_KEY, "{}")
    clone(office.connect(THEIRS), vm_name="theirs")
    office.hand.plant("bob-mlops-tracking")
    assert judge(office) == {
        "ana-mlops-workbench": Verdict.LAB,
        "bob-mlops-workbench": Verdict.ORPHAN,
        "copy-of-ana": Verdict.COPY,
        "looks-like-it": Verdict.VOID,
        "theirs": Verdict.OTHER,
    }
    assert judge(office, GRACE)["bob-mlops-workbench"] is Verdict.YOUNG
    before = take_picture(office.hand)
    assert sweep(office, GRACE) == ()
    assert take_picture(office.hand) == before
    (swept,) = sweep(office)
    assert (swept.vm.name, swept.gone) == ("bob-mlops-workbench", True)
    assert take_picture(office.hand) == {
        key: seen for key, seen in before.items() if key != swept.vm.moref
    }
    entries = [one for one in office.house.store.list_entries() if one.action == "sweep"]
    assert [(one.lab_id, one.outcome) for one in entries] == [
        ("bob-mlops", "asked"),
        ("bob-mlops", "destroyed"),
    ]
    assert swept.vm.instance_uuid in entries[1].detail


def test_an_orphan_that_the_store_never_knew_goes_by_its_dossier(office: Office) -> None:
    office.provision("ana-mlops")
    office.reopen()
    other = Office(office.state, office.hand, office.house)
    lab = other.provision("bob-mlops")
    (guest,) = other.guests("bob-mlops")
    with office.house.store._writing.begin() as connection:
        for table in ("work", "progress", "guests", "labs"):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE lab_id = '{lab.lab_id}'")  # noqa: S608 - a constant
    assert judge(office)["bob-mlops-workbench"] is Verdict.ORPHAN
    (swept,) = sweep(office)
    assert swept.gone
    assert guest.birth_disks[0] not in office.hand.list_files()
    assert office.hand.list_names() == {"ana-mlops-workbench"}


def test_an_orphan_without_record_and_dossier_is_left(office: Office) -> None:
    office.provision("ana-mlops")
    guest = clone(office.hypervisor, vm_name="strange")
    assert office.hand.get_options(guest.vm.moref).get(DOSSIER_KEY) is None
    (swept,) = sweep(office)
    assert (swept.gone, "disks" in swept.detail) == (False, True)
    assert "strange" in office.hand.list_names()


def test_an_orphan_with_a_foreign_disk_is_left_and_the_next_one_goes(office: Office) -> None:
    office.provision("ana-mlops", "workbench", "tracking")
    office.forget("ana-mlops")
    moref = office.guests("ana-mlops")[0].moref
    path = office.hand.attach_disk(moref)
    ended = {one.vm.name: one for one in sweep(office)}
    assert not ended["ana-mlops-workbench"].gone
    assert path in ended["ana-mlops-workbench"].detail
    assert ended["ana-mlops-tracking"].gone
    assert path in office.hand.list_files()
    assert office.hand.list_names() == {"ana-mlops-workbench"}
    outcomes = [one.outcome for one in office.house.store.list_entries() if one.action == "sweep"]
    assert sorted(outcomes) == ["asked", "asked", "destroyed", "residue"]


def test_an_orphan_that_a_lab_took_in_after_the_look_is_left(office: Office) -> None:
    office.provision("ana-mlops")
    office.forget("ana-mlops")
    sweeping = Sweeping(office.house, office.site)
    survey = sweeping.survey(NO_GRACE)
    with office.house.store._writing.begin() as connection:
        connection.exec_driver_sql("UPDATE labs SET state = 'ready', closed_at = NULL")
    (swept,) = sweeping.destroy(survey, lambda _: None)
    assert (swept.gone, swept.detail) == (False, "it belongs to a lab again")
    assert office.hand.list_names() == {"ana-mlops-workbench"}
    outcomes = [one.outcome for one in office.house.store.list_entries() if one.action == "sweep"]
    assert outcomes == []


def test_an_orphan_whose_mark_went_after_the_look_is_left(office: Office) -> None:
    office.provision("ana-mlops")
    office.forget("ana-mlops")
    sweeping = Sweeping(office.house, office.site)
    survey = sweeping.survey(NO_GRACE)
    office.hand.set_option(office.guests()[0].moref, MARK_KEY, "{}")
    (swept,) = sweeping.destroy(survey, lambda _: None)
    assert (swept.gone, "not made by this installation" in swept.detail) == (False, True)
    assert office.hand.list_names() == {"ana-mlops-workbench"}


def lose_the_store(office: Office) -> None:
    office.lose_store()


def roll_back(office: Office) -> None:
    store, lab = office.house.store, office.house.store.get_lab("ana-mlops")
    store.raise_event_key(lab.lab_id, lab.generation, 10**9)


def come_from_a_backup(office: Office) -> None:
    office.house.store.set_note(RESTORED_NOTE, office.house.clock.now().isoformat())


def be_another_vcenter(office: Office) -> None:
    now = office.house.clock.now()
    store = office.house.store
    lab = replace(store.get_lab("ana-mlops"), generation=2, vcenter_uuid="another")
    store.set_state("ana-mlops", 1, LabState.FORGOTTEN, now)
    audit = store.list_entries()[0]
    store.adopt_lab(lab, (), audit)


def hide_the_template(office: Office) -> None:
    office.hand.rename(office.hand.client.template._moId, "moved")


class LateClock:
    def __init__(self, office: Office) -> None:
        self._clock = office.house.clock

    def now(self) -> datetime:
        return self._clock.now() - timedelta(seconds=90)

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()


def set_the_clock_back(office: Office) -> None:
    office.house.clock = LateClock(office)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("spoil", "error", "text"),
    [
        (lose_the_store, RefusedError, "labctl adopt first"),
        (come_from_a_backup, RestoredStoreError, "labctl adopt first"),
        (roll_back, NotProvedError, "rolled back"),
        (be_another_vcenter, NotProvedError, "another vCenter"),
        (hide_the_template, NotProvedError, "not everything is visible"),
        (set_the_clock_back, ClockError, "behind"),
    ],
)
def test_nothing_is_destroyed_on_doubtful_ground(
    office: Office, spoil: Callable[[Office], None], error: type[Exception], text: str
) -> None:
    office.provision("ana-mlops")
    office.provision("bob-mlops")
    office.forget("bob-mlops")
    spoil(office)
    before = take_picture(office.hand)
    with pytest.raises(error, match=text):
        sweep(office)
    assert take_picture(office.hand) == before
