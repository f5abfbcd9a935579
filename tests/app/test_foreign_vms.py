"""1,000 VMs that look like ours, 20 copies of ours, 20 of another installation: none is touched."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from provisioner.app.adopt import Adopting
from provisioner.app.sweep import Sweeping
from provisioner.model.observed import Ownership
from provisioner.rules.mark import DOSSIER_KEY, MARK_KEY
from provisioner.rules.receipt import is_complete
from provisioner.rules.sweep import Verdict
from tests.app.office import Office, Picture, opening_office, take_picture
from tests.app.test_sweep import NO_GRACE, sweep
from tests.contract.guests import THEIRS, clone, make_identity

LOOK_ALIKES = 1000
COPIES = 20
THEIR_GUESTS = 20
NAMES = (
    "ana-mlops-workbench-{}",
    "ana-mlops-workbench ({})",
    "Ana-MLOps-Workbench-{}",
    "ana-mlops-w\N{CYRILLIC SMALL LETTER O}rkbench-{}",
    "bob-mlops-workbench-{}",
)
FOLDERS = 10


def plant(office: Office) -> None:
    """Plant the look-alikes, as an operator's script would: some bear our keys without a mark."""
    client = office.hand.client
    root, template, spec = client.find("DC0/vm"), client.template, client.linked_spec()
    places = [client.labs, *(root.CreateFolder(f"elsewhere-{at}") for at in range(1, FOLDERS))]
    keys = ("labctl.marks", f"{MARK_KEY}.old", "guestinfo.labctl.hostkey", DOSSIER_KEY)
    for number in range(LOOK_ALIKES):
        option = vim.option.OptionValue(key=keys[number % len(keys)], value="ana-mlops")
        spec.config.extraConfig = [option]
        name = NAMES[number % len(NAMES)].format(number)
        task = template.CloneVM_Task(places[number % FOLDERS], name, spec)
        if number % FOLDERS == 0:  # so many at once
            client.do(task)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[tuple[Office, Picture]]:
    """An installation with two labs among all these VMs, and a picture of those."""
    with opening_office(tmp_path) as office:
        seeded = len(take_picture(office.hand))
        plant(office)
        office.provision("ana-mlops", "workbench", "tracking")
        office.provision("bob-mlops")
        ours = {guest.moref for lab in ("ana-mlops", "bob-mlops") for guest in office.guests(lab)}
        source = office.guests()[0].moref
        for number in range(COPIES):
            copied = office.hand.copy(source, f"ana-mlops-workbench-copy-{number}")
            assert MARK_KEY in office.hand.get_options(copied)
        theirs = office.connect(THEIRS)
        for number in range(THEIR_GUESTS):
            identity = make_identity(lab="ana-mlops" if number % 2 else "eve-mlops")
            clone(theirs, identity, vm_name=f"theirs-{number}")
        foreign = {key: seen for key, seen in take_picture(office.hand).items() if key not in ours}
        assert len(foreign) == seeded + LOOK_ALIKES + COPIES + THEIR_GUESTS
        yield office, foreign


def see(office: Office, foreign: Picture) -> Picture:
    return {key: seen for key, seen in take_picture(office.hand).items() if key in foreign}


def test_none_is_touched(crowd: tuple[Office, Picture]) -> None:
    office, foreign = crowd
    survey = Sweeping(office.house, office.site).survey(NO_GRACE)
    verdicts = [one.verdict for one in survey.vms]
    assert {verdict: verdicts.count(verdict) for verdict in set(verdicts)} == {
        Verdict.LAB: 3,
        Verdict.COPY: COPIES,
        Verdict.OTHER: THEIR_GUESTS,
    }
    assert sweep(office) == ()
    assert see(office, foreign) == foreign

    office.lose_store()
    adopting = Adopting(office.house, None)
    proposal = adopting.propose()
    assert len(proposal.comparison.foreign) == COPIES + THEIR_GUESTS
    adopting.adopt(proposal)
    assert [lab.lab_id for lab in office.house.store.list_labs()] == ["ana-mlops", "bob-mlops"]
    assert see(office, foreign) == foreign

    assert is_complete(office.teardown("ana-mlops"))
    assert see(office, foreign) == foreign

    office.forget("bob-mlops")
    assert [one.vm.name for one in sweep(office)] == ["bob-mlops-workbench"]
    assert see(office, foreign) == foreign
    left = office.hypervisor.list_marked_vms()
    assert not [vm for vm in left if vm.ownership is Ownership.OURS]


def test_a_hand_on_one_of_them_would_be_seen(office: Office) -> None:
    moref = office.hand.plant("ana-mlops-workbench")
    foreign = take_picture(office.hand)
    for touch in (
        lambda: office.hand.set_option(moref, "note", "touched"),
        lambda: office.hand.rename(moref, "renamed"),
        lambda: office.hand.remove(moref),
    ):
        touch()
        now = see(office, foreign)
        assert now != foreign
        foreign = now
