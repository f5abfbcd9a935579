"""labctl verify."""

from __future__ import annotations

import click

from provisioner.app.labs import Labs
from provisioner.cli.options import verb
from provisioner.cli.output import Output
from provisioner.errors import CheckFailedError
from provisioner.model.observed import CheckResult


@verb("verify", "labctl verify ana-mlops --trials")
@click.argument("lab_id", metavar="LAB")
@click.option("--trials", is_flag=True, help="Also do the hire's work once, and clean up.")
@click.option("--check", "names", multiple=True, metavar="NAME", help="Only this check or trial.")
def command(labs: Labs, out: Output, lab_id: str, *, trials: bool, names: tuple[str, ...]) -> None:
    """Run the checks of a lab's guests. Without --trials nothing is written anywhere."""
    lab = labs.get_lab(lab_id)
    out.banner(labs.get_site_of(lab))
    results = labs.verify(
        lab_id, trials=trials, names=names, on_result=lambda result: _show(out, result)
    )
    out.document({"lab_id": lab_id, "results": results})
    failed = [result for result in results if not result.passed]
    out.say(f"{len(results) - len(failed)} of {len(results)} passed")
    if failed and not out.as_json:
        raise CheckFailedError(f"{len(failed)} checks of lab {lab_id} failed")
    if failed:
        raise SystemExit(CheckFailedError.exit_code)


def _show(out: Output, result: CheckResult) -> None:
    out.say(f"{'pass' if result.passed else 'FAIL'}  {result.slot}  {result.title}")
    out.say(f"      saw: {result.saw}")
    if not result.passed:
        out.say(f"      do:  {result.remedy}")
