"""labctl sim up, down, status."""

from __future__ import annotations

import click

from provisioner.app.labs import Labs
from provisioner.app.simulator import Simulator, SimulatorStatus
from provisioner.cli.options import confirm, verb
from provisioner.cli.output import Output


@click.group("sim")
def command() -> None:
    """Start and stop a simulated vCenter with real Linux guests on this machine.

    Its guests are containers: they stop accidents, not an attacker.
    """


@verb("up", "labctl sim up")
def up(labs: Labs, out: Output) -> None:
    """Start it, and write its site file from this machine's own settings.

    The first start builds the guests' image: about a minute.
    """
    with out.errors.status("starting") if out.errors.is_terminal else out.errors:
        status, started = Simulator(labs.house).up(
            lambda line: None if out.as_json else out.errors.print(line, style="dim", markup=False)
        )
    out.document({"started": started, "simulator": status})
    _show(out, status, "The simulator is up." if started else "The simulator is up already.")


@verb("down", "labctl sim down")
@click.option("--yes", is_flag=True, help="Do not ask, even when labs stand on it.")
def down(labs: Labs, out: Output, *, yes: bool) -> None:
    """Stop it, and remove every guest, network and volume that it made."""
    simulator = Simulator(labs.house)
    if standing := simulator.list_labs():
        names = ", ".join(lab.lab_id for lab in standing)
        confirm(f"Labs {names} stand on it and go with it, without a receipt. Stop it?", yes=yes)
    stopped = simulator.down()
    out.document({"stopped": stopped, "lost_labs": [lab.lab_id for lab in standing]})
    out.say("The simulator is down; nothing of it is left." if stopped else "No simulator runs.")
    for lab in standing:
        out.say(f'Close its lab: labctl forget {lab.lab_id} --reason "simulator stopped"')


@verb("status", "labctl sim status")
def status(labs: Labs, out: Output) -> None:
    """Say whether it runs, and where."""
    found = Simulator(labs.house).get_status()
    out.document(found)
    _show(out, found, "The simulator is up." if found.pid else "No simulator runs.")


def _show(out: Output, found: SimulatorStatus, title: str) -> None:
    out.say(title)
    if found.pid:
        out.say(f"  vCenter    {found.url}")
        out.say(f"  site file  {found.site_file}")
        out.say(f"  log        {found.log_file}")


for _verb in (up, down, status):
    command.add_command(_verb)
