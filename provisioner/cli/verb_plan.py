"""labctl plan."""

from __future__ import annotations

from provisioner.app.labs import Labs, Request
from provisioner.cli.options import verb
from provisioner.cli.output import Output, describe_s
from provisioner.cli.request import request_options
from provisioner.rules.plan import Plan


@verb("plan", "labctl plan mlops-onboarding --hire ana@example.com --key ana.pub")
@request_options
def command(labs: Labs, out: Output, request: Request) -> None:
    """Say what `provision` would do, with zero writes.

    Reads files, the store and vCenter, and finds every problem before anything is built.
    """
    out.banner(labs.get_site_for(request))
    plan = labs.plan(request)
    show_plan(out, plan)
    out.document(plan)


def show_plan(out: Output, plan: Plan) -> None:
    """Show a plan to a person."""
    if plan.nothing_to_do:
        out.say(f"Lab {plan.lab_id}: nothing to do. {plan.why}")
        return
    out.say(f"Lab {plan.lab_id}, generation {plan.generation}, until {plan.lease.ends_at:%Y-%m-%d}")
    out.table(
        ("GUEST", "VM", "CPUS", "MEMORY", "TEMPLATE", "DATASTORE", "NETWORKS", "ROLES"),
        [
            (
                guest.slot,
                guest.vm_name,
                str(guest.cpus),
                f"{guest.memory_mib} MiB",
                guest.vm_template,
                guest.datastore,
                ", ".join(guest.networks),
                ", ".join(guest.roles),
            )
            for guest in plan.guests
        ],
    )
    known = [step for step in plan.steps if step.usual_s is not None]
    steps = ", ".join(step.name for step in plan.steps)
    out.say(f"Steps: {steps}")
    if known:
        out.say(f"Usually about {describe_s(sum(step.usual_s or 0 for step in known))}")
    out.say("Nothing was written. To do it: labctl provision, with the same words.")
