"""The command `labctl`: finds the verb, and turns an error into its text and exit code."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from provisioner.errors import LabctlError

VERBS = {
    "plan": "say what provision would do, without a write",
    "provision": "bring a hire's lab to ready, or continue where it stopped",
    "retry": "ask again for the work that failed last on a lab",
    "list": "list labs",
    "status": "show a lab and its guests, as recorded and as vCenter shows them",
    "logs": "show what was done on a lab, step by step",
    "verify": "run the checks of a lab's guests; nothing is changed",
    "converge": "bring a ready lab back to its blueprint, and prove it",
    "handover": "write what the hire receives",
    "inventory": "print a lab's Ansible inventory",
    "extend": "extend a lab's lease, and bring an expired lab back",
    "teardown": "remove a lab and print the receipt",
    "forget": "close a lab of a vCenter that no longer exists",
    "sweep": "show VMs with a labctl mark, and destroy those that belong to no lab",
    "adopt": "rebuild a lost or restored store from what vCenter shows",
    "backup": "write store and keys to one sealed file",
    "restore": "put a backup back",
    "init": "make this installation's identity, once",
    "worker": "do the work that the other verbs ask for, until stopped",
    "sim": "start and stop a simulated vCenter with real Linux guests",
}

EPILOG = """\b
Examples:
  labctl sim up
  labctl plan mlops-onboarding --hire ana@example.com --key ana.pub
  labctl provision mlops-onboarding --hire ana@example.com --key ana.pub --days 14
  labctl teardown ana-mlops

\b
Exit codes: 0 done, 2 wrong input, 3 refused, 4 failed, 5 no answer or stopped (try again),
6 residue after a teardown or sweep, 7 not proved, 130 stopped watching. Nothing was changed
after 2 and 3.
"""


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are called, so that help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs in the order of a lab's life."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"provisioner.cli.verb_{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the verbs' short helps without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="labctl", message="labctl %(version)s")
def cli() -> None:
    """Give a new engineer a ready-made sandbox on your own vSphere, and take it away with proof."""


def main(argv: list[str] | None = None) -> None:
    """Run the command line and leave with a documented exit code."""
    words = sys.argv[1:] if argv is None else argv
    try:
        code: Any = cli.main(args=words, prog_name="labctl", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.Abort:
        click.echo("stopped", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except LabctlError as error:
        from provisioner.cli.output import show_error

        show_error(error, as_json="--json" in words)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
