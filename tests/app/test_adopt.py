from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from provisioner.app.adopt import Adopting, Proposal
from provisioner.errors import BusyError, NotProvedError, PrivilegeError
from provisioner.model.lab import GuestState, LabState, Lease
from provisioner.model.observed import PowerState
from provisioner.rules.dossier import build_dossier
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY
from provisioner.rules.receipt import is_complete
from provisioner.rules.userdata import HOST_KEY_INFO
from tests.app.office import SITE, Office, take_picture
from tests.contract.guests import THEIRS, clone


def adopt(office: Office, site: str | None = None) -> Proposal:
    adopting = Adopting(office.house, site)
    proposal = adopting.propose()
    adopting.adopt(proposal)
    return proposal


def test_a_lost_store_is_rebuilt_and_its_labs_are_torn_down_with_a_complete_receipt(
    office: Office,
) -> None:
    before = office.provision("ana-mlops", "workbench", "tracking")
    office.provision("bob-mlops")
    guests = office.guests()
    office.lose_store()
    seen = take_picture(office.hand)
    proposal = Adopting(office.house, None).propose()
    assert office.house.store.list_labs() == ()
    assert [one.lab.lab_id for one in proposal.comparison.adoptions] == ["ana-mlops", "bob-mlops"]
    adopt(office)
    assert take_picture(office.hand) == seen
    lab = office.house.store.get_lab("ana-mlops")
    assert (lab.state, lab.note, lab.ready_at is not None) == (LabState.READY, "", True)
    assert (lab.hire, lab.lease, lab.blueprint, lab.created_at) == (
        before.hire,
        before.lease,
        before.blueprint,
        before.created_at,
    )
    assert office.guests() == tuple(replace(guest, vim_task="") for guest in guests)
    assert {guest.state for guest in office.guests()} == {GuestState.STANDING}
    assert office.house.store.list_open_work() == ()
    receipt = office.teardown()
    assert is_complete(receipt)
    assert {row.kind for row in receipt.evidence} >= {"uuid", "moref", "name", "disk", "mark"}
    assert office.hand.list_names() == {"bob-mlops-workbench"}
    assert guests[0].birth_disks[0] not in office.hand.list_files()


def test_what_is_not_ours_or_says_nothing_is_told_and_not_adopted(office: Office) -> None:
    office.provision("ana-mlops")
    moref = office.guests()[0].moref
    office.hand.copy(moref, "copy-of-ana")
    office.hand.set_option(office.hand.plant("looks-like-it"), MARK_KEY, "{}")
    clone(office.connect(THEIRS), vm_name="theirs")
    clone(office.hypervisor, vm_name="without-dossier")
    office.lose_store()
    seen = take_picture(office.hand)
    found = adopt(office).comparison
    assert [one.lab.lab_id for one in found.adoptions] == ["ana-mlops"]
    assert sorted(one.vm.name for one in found.foreign) == [
        "copy-of-ana",
        "looks-like-it",
        "theirs",
    ]
    assert [(one.vm.name, "no genuine dossier" in one.why) for one in found.refusals] == [
        ("without-dossier", True)
    ]
    assert [lab.lab_id for lab in office.house.store.list_labs()] == ["ana-mlops"]
    assert take_picture(office.hand) == seen


def test_a_lab_without_one_of_its_guests_is_failed_and_can_be_completed_or_removed(
    office: Office,
) -> None:
    office.provision("ana-mlops", "workbench", "tracking")
    workbench, tracking = office.guests()
    office.hand.remove(tracking.moref)
    office.lose_store()
    adopt(office)
    lab, guests = office.house.store.get_lab("ana-mlops"), office.guests()
    assert (lab.state, "tracking has no VM" in lab.note) == (LabState.FAILED, True)
    assert [guest.state for guest in guests] == [GuestState.STANDING, GuestState.PLANNED]
    assert guests[0] == replace(workbench, vim_task="")
    assert guests[1].identity.instance_uuid != tracking.identity.instance_uuid
    assert guests[1].vm_name == tracking.vm_name
    office.continue_provision("ana-mlops")
    assert office.house.store.get_lab("ana-mlops").state is LabState.READY
    assert office.hand.list_names() == {"ana-mlops-workbench", "ana-mlops-tracking"}
    assert is_complete(office.teardown())
    assert office.hand.list_names() == set()


def test_a_lab_that_is_off_is_recorded_as_expired(office: Office) -> None:
    office.provision("ana-mlops")
    (guest,) = office.guests()
    office.hypervisor.ensure_powered_off(guest.identity, grace_s=0)
    office.hypervisor.ensure_networks(guest.identity, connected=False)
    office.lose_store()
    adopt(office)
    lab, (found,) = office.house.store.get_lab("ana-mlops"), office.guests()
    assert (lab.state, lab.ready_at is not None) == (LabState.EXPIRED, True)
    assert (found.host_key, found.address) == (guest.host_key, "")
    assert is_complete(office.teardown())


def test_a_lab_is_failed_when_labctl_could_not_log_in(office: Office) -> None:
    office.provision("ana-mlops")
    office.provision("bob-mlops")
    office.house.credentials.destroy_lab_keys("ana-mlops")
    bobs, (guest,) = office.house.store.get_lab("bob-mlops"), office.guests("bob-mlops")
    office.hypervisor.write_dossier(
        guest.identity, build_dossier(bobs, replace(guest, host_key=""))
    )
    office.hand.set_option(guest.moref, HOST_KEY_INFO, "nonsense")
    office.lose_store()
    adopt(office)
    ana, bob = (office.house.store.get_lab(lab) for lab in ("ana-mlops", "bob-mlops"))
    assert (ana.state, bob.state) == (LabState.FAILED, LabState.FAILED)
    assert "there is no key" in ana.note
    assert "bob-mlops-workbench does not show its host key" in bob.note
    assert (office.guests("bob-mlops")[0].host_key, ana.ready_at) == ("", None)
    assert is_complete(office.teardown("ana-mlops"))
    assert is_complete(office.teardown("bob-mlops"))


def test_a_host_key_that_was_published_and_not_pinned_is_learned(office: Office) -> None:
    lab = office.provision("ana-mlops")
    (guest,) = office.guests()
    dossier = build_dossier(lab, replace(guest, host_key=""))
    office.hypervisor.write_dossier(guest.identity, dossier)
    office.lose_store()
    adopt(office)
    assert office.guests()[0].host_key == guest.host_key
    assert office.house.store.get_lab("ana-mlops").state is LabState.READY


def test_a_disk_from_elsewhere_stops_the_teardown_of_an_adopted_lab(office: Office) -> None:
    office.provision("ana-mlops")
    (guest,) = office.guests()
    office.hand.snapshot(guest.moref, "before-the-workshop")
    path = office.hand.attach_disk(guest.moref)
    office.lose_store()
    adopt(office)
    assert office.guests()[0].birth_disks == guest.birth_disks
    with pytest.raises(Exception, match="not born with"):
        office.teardown()
    assert path in office.hand.list_files()
    office.hand.detach_disk(guest.moref, path)
    office.house.store.set_state("ana-mlops", 1, LabState.TEARING_DOWN, office.house.clock.now())
    assert is_complete(office.teardown())
    assert path in office.hand.list_files()


def test_what_the_store_knows_stays_as_it_is(office: Office) -> None:
    lab = office.provision("ana-mlops")
    guests = office.guests()
    proposal = Adopting(office.house, None).propose()
    assert proposal.changes_nothing
    assert [one.lab_id for one in proposal.comparison.known] == ["ana-mlops"]
    adopt(office)
    assert office.house.store.get_lab("ana-mlops") == lab
    assert office.guests() == guests


def test_a_lab_of_which_nothing_is_seen_is_told(office: Office) -> None:
    office.provision("ana-mlops")
    office.hand.remove(office.guests()[0].moref)
    found = Adopting(office.house, None).propose().comparison
    assert [one.lab_id for one in found.absent] == ["ana-mlops"]


def test_the_longer_lease_that_its_vm_carries_is_taken_over(office: Office) -> None:
    lab = office.provision("ana-mlops")
    (guest,) = office.guests()
    for days, expected in ((-1, 0), (5, 5)):
        lease = Lease(lab.lease.ends_at + timedelta(days=days), lab.lease.grace_for)
        dossier = build_dossier(replace(lab, lease=lease), guest)
        office.hypervisor.write_dossier(guest.identity, dossier)
        adopt(office)
        ends_at = office.house.store.get_lab("ana-mlops").lease.ends_at
        assert ends_at == lab.lease.ends_at + timedelta(days=expected)


def test_a_newer_generation_is_recorded_and_the_one_in_the_store_closed(office: Office) -> None:
    office.provision("ana-mlops")
    office.keep_store()
    assert is_complete(office.teardown())
    office.provision("ana-mlops", generation=2)
    guests = office.guests()
    office.put_store_back()
    assert office.house.store.get_lab("ana-mlops").generation == 1
    found = adopt(office).comparison
    assert [one.closes and one.closes.generation for one in found.adoptions] == [1]
    lab = office.house.store.get_lab("ana-mlops")
    assert (lab.generation, lab.state) == (2, LabState.READY)
    assert office.guests() == tuple(replace(guest, vim_task="") for guest in guests)
    assert is_complete(office.teardown())


def test_of_two_generations_the_earlier_is_recorded_as_closed(office: Office) -> None:
    office.provision("ana-mlops")
    old = office.guests()[0].moref
    office.hand.rename(old, "ana-mlops-old")
    office.forget()
    office.provision("ana-mlops", generation=2)
    office.lose_store()
    found = adopt(office).comparison
    assert [(one.lab.generation, one.lab.state) for one in found.adoptions] == [
        (1, LabState.FORGOTTEN),
        (2, LabState.READY),
    ]
    assert Adopting(office.house, None).propose().changes_nothing
    assert office.house.store.get_lab("ana-mlops").generation == 2


def test_an_earlier_generation_is_not_taken_for_the_lab_when_the_later_is_refused(
    office: Office,
) -> None:
    office.provision("ana-mlops")
    office.hand.rename(office.guests()[0].moref, "ana-mlops-old")
    office.forget()
    lab = office.provision("ana-mlops", generation=2)
    (guest,) = office.guests()
    dossier = build_dossier(replace(lab, vcenter_uuid="another"), guest)
    office.hypervisor.write_dossier(guest.identity, dossier)
    office.lose_store()
    found = adopt(office).comparison
    assert [one.lab.state for one in found.adoptions] == [LabState.FORGOTTEN]
    assert len(found.refusals) == 1
    assert office.house.store.list_labs() == ()


def test_a_vm_of_a_generation_that_is_recorded_without_it_is_refused(office: Office) -> None:
    office.provision("ana-mlops")
    office.hand.rename(office.guests()[0].moref, "ana-mlops-old")
    office.lose_store()
    office.provision("ana-mlops")
    found = adopt(office).comparison
    assert [("generation 1" in one.why, one.vm.name) for one in found.refusals] == [
        (True, "ana-mlops-old")
    ]


def test_a_lab_of_a_site_without_a_file_is_refused(office: Office) -> None:
    lab = office.provision("ana-mlops")
    (guest,) = office.guests()
    office.hypervisor.write_dossier(guest.identity, build_dossier(replace(lab, site="gone"), guest))
    office.lose_store()
    found = adopt(office).comparison
    assert ["site gone, of which there is no file" in one.why for one in found.refusals] == [True]


def roll_back(office: Office) -> None:
    lab, (guest,) = office.house.store.get_lab("ana-mlops"), office.guests()
    dossier = build_dossier(replace(lab, event_key=10**9), guest)
    office.hypervisor.write_dossier(guest.identity, dossier)


def be_another_vcenter(office: Office) -> None:
    lab, (guest,) = office.house.store.get_lab("ana-mlops"), office.guests()
    dossier = build_dossier(replace(lab, vcenter_uuid="another"), guest)
    office.hypervisor.write_dossier(guest.identity, dossier)


@pytest.mark.parametrize(
    ("spoil", "why"), [(roll_back, "rolled back"), (be_another_vcenter, "another vCenter")]
)
def test_a_lab_is_refused_when_vcenter_may_not_show_all_of_it(
    office: Office, spoil: Callable[[Office], None], why: str
) -> None:
    office.provision("ana-mlops")
    spoil(office)
    office.lose_store()
    found = adopt(office).comparison
    assert [why in one.why for one in found.refusals] == [True]
    assert office.house.store.list_labs() == ()


def test_nothing_is_compared_when_not_everything_is_seen(office: Office) -> None:
    lab = office.provision("ana-mlops")
    office.house.store.raise_event_key("ana-mlops", lab.generation, 10**9)
    with pytest.raises(NotProvedError, match="rolled back"):
        Adopting(office.house, None).propose()
    office.lose_store()
    office.hand.rename(office.hand.client.template._moId, "moved")
    with pytest.raises(PrivilegeError, match="does not see everything"):
        Adopting(office.house, None).propose()


def test_of_two_sites_the_one_that_cannot_be_compared_is_told(office: Office) -> None:
    office.provision("ana-mlops")
    office.write_site("dark", port=1)
    office.lose_store()
    proposal = adopt(office)
    assert set(proposal.unseen) == {"dark"}
    assert [lab.lab_id for lab in office.house.store.list_labs()] == ["ana-mlops"]


def test_one_site_alone_can_be_compared(office: Office) -> None:
    office.provision("ana-mlops")
    office.write_site("dark", port=1)
    office.lose_store()
    assert adopt(office, SITE).unseen == {}
    assert [lab.lab_id for lab in office.house.store.list_labs()] == ["ana-mlops"]


def test_it_is_refused_while_a_worker_runs(office: Office, holder: object) -> None:
    del holder
    office.provision("ana-mlops")
    office.lose_store()
    adopting = Adopting(office.house, None)
    proposal = adopting.propose()
    with pytest.raises(BusyError, match="a worker of"):
        adopting.adopt(proposal)
    assert office.house.store.list_labs() == ()


def test_what_the_engine_recorded_for_another_store_is_forgotten(office: Office) -> None:
    office.provision("ana-mlops")
    office.lose_store()
    (office.state / "engine.db").write_text("runs of the store that is lost")
    adopt(office)
    assert not (office.state / "engine.db").exists()


def test_a_dossier_that_somebody_changed_is_none(office: Office) -> None:
    office.provision("ana-mlops")
    moref = office.guests()[0].moref
    text = office.hand.get_options(moref)[DOSSIER_KEY]
    office.hand.set_option(moref, DOSSIER_KEY, text[:-8] + "AAAAAAA=")
    office.lose_store()
    found = adopt(office).comparison
    assert (found.adoptions, len(found.refusals)) == ((), 1)
    assert office.hypervisor.list_marked_vms()[0].power_state is PowerState.ON
