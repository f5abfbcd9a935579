from __future__ import annotations

from provisioner.app.adopt import Adopting
from provisioner.model.lab import GuestState, LabState
from provisioner.rules.receipt import is_complete
from tests.app.office import Office


def test_a_lost_store_is_rebuilt_and_its_labs_are_torn_down_with_a_complete_receipt(
    office: Office,
) -> None:
    before = office.provision("ana-mlops", "workbench", "tracking")
    office.provision("bob-mlops")
    guests = office.guests()
    office.lose_store()
    adopting = Adopting(office.house, None)
    proposal = adopting.propose()
    assert office.house.store.list_labs() == ()
    adopting.adopt(proposal)
    lab = office.house.store.get_lab("ana-mlops")
    assert lab.state is LabState.READY
    assert (lab.hire, lab.lease, lab.blueprint) == (before.hire, before.lease, before.blueprint)
    found = office.guests()
    assert {one.state for one in found} == {GuestState.STANDING}
    for then, now in zip(guests, found, strict=True):
        assert (now.identity, now.moref, now.mac, now.address) == (
            then.identity,
            then.moref,
            then.mac,
            then.address,
        )
        assert (now.host_key, now.birth_disks) == (then.host_key, then.birth_disks)
    assert office.hand.list_names() >= {"bob-mlops-workbench"}
    receipt = office.teardown()
    assert is_complete(receipt)
    assert office.hand.list_names() == {"bob-mlops-workbench"}
