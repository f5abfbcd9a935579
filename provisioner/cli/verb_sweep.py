"""labctl sweep."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import click

from provisioner.app.labs import Labs
from provisioner.app.sweep import JudgedVm, Survey, Sweeping, Swept
from provisioner.cli.options import confirm, verb
from provisioner.cli.output import Output
from provisioner.errors import TeardownIncompleteError
from provisioner.files.site import load_site
from provisioner.rules.clock import describe_time
from provisioner.rules.plain_text import build_plain_line
from provisioner.rules.sweep import ADOPTABLE, GRACE, Verdict

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Row:
    """A VM with a mark, as one is told of it. `age_min` is None when vCenter does not say."""

    verdict: Verdict
    vm_name: str
    moref: str
    instance_uuid: str
    lab_id: str
    generation: int | None
    slot: str
    created_at: datetime | None
    age_min: int | None


@verb("sweep", "labctl sweep --destroy")
@click.option(
    "--older-than",
    "grace_min",
    type=click.IntRange(min=0),
    default=GRACE // MINUTE,
    show_default=True,
    metavar="MIN",
    help="Leave younger orphans alone.",
)
@click.option("--destroy", is_flag=True, help="Destroy the orphans, with their disks.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(labs: Labs, out: Output, grace_min: int, *, destroy: bool, yes: bool) -> None:
    """Show every VM of the vCenter with a labctl mark, and which of them belong to no lab.

    Without --destroy nothing is written. With it only orphans are destroyed: genuine VMs of this
    installation whose lab is closed in the store, or was never in it. Exit 6 when one is left.
    """
    site = load_site(labs.house.site_dirs, labs.site_name)
    out.banner(site)
    sweeping = Sweeping(labs.house, site)
    survey = sweeping.survey(grace_min * MINUTE)
    _show(out, survey)
    ended: tuple[Swept, ...] = ()
    if destroy and _wants(sweeping, survey, yes=yes):
        ended = sweeping.destroy(survey, lambda swept: _show_end(out, swept))
    out.document({"vms": [_build_row(one, survey) for one in survey.vms], "ended": ended})
    left = [swept for swept in ended if not swept.gone]
    if left and not out.as_json:
        raise TeardownIncompleteError(
            f"{len(left)} of {len(ended)} orphans are left", hint="mend what is said, run it again"
        )
    if left:
        raise SystemExit(TeardownIncompleteError.exit_code)


def _wants(sweeping: Sweeping, survey: Survey, *, yes: bool) -> bool:
    sweeping.check(survey)
    if not survey.orphans:
        return False
    names = ", ".join(build_plain_line(vm.name) for vm in survey.orphans)
    confirm(f"Destroy {len(survey.orphans)} orphans ({names}) with all their disks?", yes=yes)
    return True


def _show(out: Output, survey: Survey) -> None:
    rows = [_build_row(one, survey) for one in survey.vms]
    if rows:
        out.table(
            ("WHAT", "VM", "MOREF", "LAB", "GUEST", "AGE"),
            [
                (
                    row.verdict.value,
                    build_plain_line(row.vm_name),
                    row.moref,
                    f"{row.lab_id}/{row.generation}" if row.lab_id else "-",
                    row.slot or "-",
                    "-" if row.age_min is None else describe_time(row.age_min * MINUTE),
                )
                for row in rows
            ],
        )
    out.say(f"VMs with a mark: {len(rows)}, orphans: {len(survey.orphans)}")
    if any(row.verdict in ADOPTABLE for row in rows):
        out.say("Some VMs of this installation are not in the store: run labctl adopt.")


def _build_row(judged: JudgedVm, survey: Survey) -> Row:
    vm = judged.vm
    age = survey.vcenter_at - vm.created_at if vm.created_at else None
    return Row(
        verdict=judged.verdict,
        vm_name=vm.name,
        moref=vm.moref,
        instance_uuid=vm.instance_uuid,
        lab_id=vm.identity.lab_id if vm.identity else "",
        generation=vm.identity.generation if vm.identity else None,
        slot=vm.identity.slot if vm.identity else "",
        created_at=vm.created_at,
        age_min=None if age is None else age // MINUTE,
    )


def _show_end(out: Output, swept: Swept) -> None:
    end = "gone" if swept.gone else "LEFT"
    out.say(f"{end}  {build_plain_line(f'{swept.vm.name}: {swept.detail}')}")
