"""A store that was put back and is older than the world: it ends nothing before it was compared."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from provisioner.app.adopt import Adopting
from provisioner.app.backup import Restoring, make_backup, open_backup
from provisioner.app.leases import Leases, find_stopped_timers
from provisioner.app.sweep import Sweeping
from provisioner.errors import RestoredStoreError
from provisioner.model.lab import Lease
from provisioner.rules.receipt import is_complete
from provisioner.rules.restored import RESTORED_NOTE, find_restored_at
from tests.app.office import SITE, Office, take_picture
from tests.app.test_sweep import NO_GRACE, judge, sweep
from tests.fakes.samples import make_audit

PASSPHRASE = "correct horse battery staple"


def restore(office: Office, source: Path) -> datetime:
    office.house.close()
    backup = open_backup(source, PASSPHRASE)
    Restoring(office.house, backup).restore()
    office.house = office.build_house(office.state)
    return backup.made_at


def test_a_restored_store_never_destroys_a_vm_that_is_younger(
    office: Office, tmp_path: Path
) -> None:
    office.provision("ana-mlops")
    make_backup(office.house, tmp_path / "backup", PASSPHRASE)
    office.provision("bob-mlops", "workbench", "tracking")
    seen = take_picture(office.hand)
    young = {guest.moref for guest in office.guests("bob-mlops")}
    restore(office, tmp_path / "backup")
    assert judge(office) == {
        "ana-mlops-workbench": "lab",
        "bob-mlops-workbench": "younger than the restored store",
        "bob-mlops-tracking": "younger than the restored store",
    }
    with pytest.raises(RestoredStoreError, match="labctl adopt"):
        sweep(office)
    with pytest.raises(RestoredStoreError, match="labctl adopt"):
        office.teardown("ana-mlops")
    assert take_picture(office.hand) == seen
    office.forget("ana-mlops")
    with pytest.raises(RestoredStoreError):
        sweep(office)
    assert take_picture(office.hand) == seen
    adopting = Adopting(office.house, None)
    proposal = adopting.propose()
    assert proposal.ends_restored
    adopting.adopt(proposal)
    assert take_picture(office.hand) == seen
    assert office.house.store.find_note(RESTORED_NOTE) is None
    swept = sweep(office)
    assert [one.vm.name for one in swept] == ["ana-mlops-workbench"]
    left = take_picture(office.hand)
    assert {moref: left[moref] for moref in young} == {moref: seen[moref] for moref in young}
    assert is_complete(office.teardown("bob-mlops"))


def test_an_old_lab_is_torn_down_with_a_receipt_once_the_store_was_compared(
    office: Office, tmp_path: Path
) -> None:
    office.provision("ana-mlops")
    make_backup(office.house, tmp_path / "backup", PASSPHRASE)
    office.provision("bob-mlops")
    restore(office, tmp_path / "backup")
    Adopting(office.house, None).adopt(Adopting(office.house, None).propose())
    seen = take_picture(office.hand)[office.guests("bob-mlops")[0].moref]
    assert is_complete(office.teardown("ana-mlops"))
    assert take_picture(office.hand)[office.guests("bob-mlops")[0].moref] == seen


def test_leases_of_a_restored_store_end_nothing(office: Office, tmp_path: Path) -> None:
    office.provision("ana-mlops")
    make_backup(office.house, tmp_path / "backup", PASSPHRASE)
    restore(office, tmp_path / "backup")
    lab = office.house.store.get_lab("ana-mlops")
    over = Lease(lab.created_at, timedelta())
    office.house.store.set_lease("ana-mlops", 1, over, make_audit())
    Leases(office.house).tick()
    assert office.house.store.list_open_work() == ()
    stopped = find_stopped_timers(office.house, SITE)
    assert stopped is not None
    assert "labctl adopt" in stopped
    Adopting(office.house, None).adopt(Adopting(office.house, None).propose())
    office.house.store.set_lease("ana-mlops", 1, over, make_audit())
    Leases(office.house).tick()
    assert [one.workflow for one in office.house.store.list_open_work()] == ["teardown"]


def test_it_stays_restored_until_every_site_was_compared_and_nothing_is_unknown(
    office: Office, tmp_path: Path
) -> None:
    office.provision("ana-mlops")
    make_backup(office.house, tmp_path / "backup", PASSPHRASE)
    office.provision("bob-mlops")
    moref = office.guests("bob-mlops")[0].moref
    office.hand.set_option(moref, "labctl.dossier", "spoilt")
    made_at = restore(office, tmp_path / "backup")

    def compare(site: str | None = None) -> bool:
        adopting = Adopting(office.house, site)
        proposal = adopting.propose()
        adopting.adopt(proposal)
        ended = find_restored_at(office.house.store) is None
        assert proposal.ends_restored is ended
        return ended

    assert not compare()
    assert find_restored_at(office.house.store) == made_at
    office.hand.remove(moref)
    office.write_site("dark", port=1)
    assert not compare()
    assert not compare(SITE)
    (office.state / "sites" / "dark.yml").unlink()
    assert compare()


def test_the_survey_of_a_restored_store_needs_no_leave(office: Office, tmp_path: Path) -> None:
    office.provision("ana-mlops")
    make_backup(office.house, tmp_path / "backup", PASSPHRASE)
    restore(office, tmp_path / "backup")
    survey = Sweeping(office.house, office.site).survey(NO_GRACE)
    assert len(survey.vms) == 1
    with pytest.raises(RestoredStoreError):
        Sweeping(office.house, office.site).check(survey)
