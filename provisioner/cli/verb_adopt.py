"""labctl adopt."""

from __future__ import annotations

from collections.abc import Iterator

import click

from provisioner.app.adopt import Adopting, Proposal
from provisioner.app.comparison import Adoption, Comparison
from provisioner.app.labs import Labs
from provisioner.cli.options import confirm, verb
from provisioner.cli.output import Output
from provisioner.model.lab import GuestState
from provisioner.rules.lease import describe_lease
from provisioner.rules.plain_text import build_plain_line
from provisioner.rules.restored import find_restored_at


@verb("adopt", "labctl adopt")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(labs: Labs, out: Output, *, yes: bool) -> None:
    """Rebuild the store from the marks and dossiers of this installation's VMs.

    For a store that was lost, or put back from a backup. Without --site every site is compared.
    Labs that are recorded stay as they are, except that a longer lease is taken over. Nothing is
    written before it is confirmed, and nothing at all in vCenter.
    """
    adopting = Adopting(labs.house, labs.site_name)
    proposal = adopting.propose()
    _show(labs, out, proposal)
    if not proposal.changes_nothing:
        found = proposal.comparison
        confirm(
            f"Record {len(found.adoptions)} labs and {len(found.extensions)} longer leases?",
            yes=yes,
        )
        adopting.adopt(proposal)
        out.say("Recorded. labctl verify LAB proves that a lab works.")
    out.say(_describe_end(labs, proposal))
    out.document(proposal)


def _show(labs: Labs, out: Output, proposal: Proposal) -> None:
    found, now = proposal.comparison, labs.house.clock.now()
    if found.adoptions:
        out.table(
            ("LAB", "HIRE", "SITE", "STATE", "LEASE", "GUESTS"),
            [
                (
                    f"{one.lab.lab_id}/{one.lab.generation}",
                    one.lab.hire.email,
                    one.lab.site,
                    one.lab.state.value,
                    describe_lease(one.lab, now),
                    _describe_guests(one),
                )
                for one in found.adoptions
            ],
        )
    for line in _list_remarks(proposal):
        out.say(build_plain_line(line))


def _describe_guests(adoption: Adoption) -> str:
    return ", ".join(
        guest.identity.slot if guest.state is GuestState.STANDING else f"{guest.vm_name} MISSING"
        for guest in adoption.guests
    )


def _list_remarks(proposal: Proposal) -> Iterator[str]:
    yield from _list_changes(proposal.comparison)
    yield from _list_others(proposal.comparison)
    for site, why in proposal.unseen.items():
        yield f"Site {site} was not compared: {why}"


def _list_changes(found: Comparison) -> Iterator[str]:
    for one in found.adoptions:
        if one.lab.note:
            yield f"{one.lab.lab_id}/{one.lab.generation}: {one.lab.note}"
        if one.closes is not None:
            closes = one.closes
            yield f"{closes.lab_id}/{closes.generation}: recorded as {closes.state}, will be closed"
    for extension in found.extensions:
        until = f"{extension.lease.ends_at:%Y-%m-%d %H:%M} UTC"
        yield f"{extension.lab.lab_id}: its VMs carry a longer lease, until {until}"


def _list_others(found: Comparison) -> Iterator[str]:
    if found.known:
        yield f"Recorded already: {', '.join(lab.lab_id for lab in found.known)}"
    for lab in found.absent:
        yield (
            f"{lab.lab_id}: recorded as {lab.state}, but vCenter shows nothing of it:"
            f" labctl teardown {lab.lab_id} proves that"
        )
    for refusal in found.refusals:
        vm = refusal.vm
        yield f"Cannot adopt {vm.name} ({vm.moref}, {vm.folder}): {refusal.why}"
    for judged in found.foreign:
        yield f"Not touched, {judged.verdict}: {judged.vm.name} ({judged.vm.moref})"


def _describe_end(labs: Labs, proposal: Proposal) -> str:
    """Say whether a store that was put back is whole again, and what that takes."""
    if proposal.ends_restored:
        return "The store that was put back is whole again: labs end by it as before."
    if find_restored_at(labs.house.store) is None:
        return "" if proposal.comparison.adoptions else "Nothing to adopt."
    return (
        "Nothing is ended by the store that was put back yet: every site must be compared (leave"
        " out --site), and each VM above that cannot be adopted be removed by hand."
    )
