"""labctl provision."""

from __future__ import annotations

import shlex

from provisioner.app.handover import Handover, write_handover
from provisioner.app.labs import Labs, Request
from provisioner.cli.options import following, verb
from provisioner.cli.output import Output
from provisioner.cli.request import request_options
from provisioner.model.lab import Lab


@verb("provision", "labctl provision mlops-onboarding --hire ana@example.com --key ana.pub")
@request_options
def command(labs: Labs, out: Output, request: Request) -> None:
    """Bring a hire's lab to ready, prove it by trials, and write the handover.

    A lab that stands already is left as it is. One that failed is continued where it failed.
    The work is the worker's: Ctrl-C ends only the watching, the same command watches again.
    """
    out.banner(labs.get_site_for(request))
    usual_s = labs.house.store.usual_s
    with following("provision"), out.progress(usual_s) as on_row:
        lab, changed = labs.provision(request, on_row)
    handover = write_handover(labs, lab, None)
    _show(out, lab, handover, changed=changed)
    out.document({"lab": lab, "changed": changed, "handover": handover})


def _show(out: Output, lab: Lab, handover: Handover, *, changed: bool) -> None:
    lab_id = shlex.quote(lab.lab_id)
    if changed:
        out.say(f"\nLab {lab.lab_id} is ready for {lab.hire.email}.")
    else:
        out.say(f"\nLab {lab.lab_id} is ready already; nothing was changed.")
    out.say(f"  until       {lab.lease.ends_at:%Y-%m-%d %H:%M} UTC")
    out.say(f"  handover    {handover.folder}")
    out.say(f"  to send     {handover.archive}")
    out.say(f"  log in      {handover.ssh_command}")
    out.say(f"  inventory   labctl inventory {lab_id} > {lab_id}.yml")
    out.say(f"  tear down   labctl teardown {lab_id}")
