"""Checks and trials on a guest, over SSH.

A check is read by labctl's own account (with the hire's rights where it says so). A trial of the
hire logs in as the hire, with a key made for this run: it is placed in a folder of sshd's that
only root writes and that no reboot survives, and its absence afterwards is itself checked.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from provisioner.errors import CheckFailedError, HostKeyError, LabctlError
from provisioner.model.lab import GuestRecord, Lab
from provisioner.model.observed import CheckResult
from provisioner.model.spec import Check, CheckKind, RunAs
from provisioner.ports import ShellTarget
from provisioner.workflows.work import Toolbox, build_target

TRIAL_KEYS = "/run/labctl/keys"  # linux_baseline's sshd looks there
KEY_COMMAND_S = 30.0
SAW_LIMIT = 500


def run_checks(
    tools: Toolbox,
    lab: Lab,
    guest: GuestRecord,
    *,
    kinds: tuple[CheckKind, ...],
    names: frozenset[str] = frozenset(),
    on_result: Callable[[CheckResult], None],
) -> tuple[CheckResult, ...]:
    """Run the checks of a guest's roles, in the order of the roles; one failing stops no other.

    With `names` only those are run, whatever their kind.

    Raises HostKeyError or GuestUnreachableError when the guest cannot be asked at all, and
    CheckFailedError when a trial key could not be proved gone.
    """
    spec = next(spec for spec in lab.blueprint.guests if spec.slot == guest.identity.slot)
    checks = [
        check
        for role in spec.roles
        for check in tools.checks
        if check.role == role and (check.name in names if names else check.kind in kinds)
    ]
    key = tools.credentials.get_lab_key(lab.lab_id, lab.generation)
    admin = build_target(tools.site, guest, key.private_file)
    if not any(_needs_hire_login(check) for check in checks):
        return tuple(_run_all(tools, lab, guest, checks, admin, admin, on_result))
    with _trial_login(tools, lab, guest, admin) as hire:
        return tuple(_run_all(tools, lab, guest, checks, admin, hire, on_result))


def _needs_hire_login(check: Check) -> bool:
    return check.kind is CheckKind.TRIAL and check.run_as is RunAs.HIRE


def _run_all(
    tools: Toolbox,
    lab: Lab,
    guest: GuestRecord,
    checks: list[Check],
    admin: ShellTarget,
    hire: ShellTarget,
    on_result: Callable[[CheckResult], None],
) -> Iterator[CheckResult]:
    for check in checks:
        target = hire if _needs_hire_login(check) else admin
        result = _run_one(tools, lab, guest, check, target)
        on_result(result)
        yield result


def build_command(check: Check, lab: Lab) -> str:
    """Build the remote command of a check; its script arrives on standard input.

    The script is called with the hire's login and public key as its two arguments.
    """
    python = check.script.endswith(".py")
    interpreter = check.interpreter or ("python3" if python else "bash")
    words = (
        [interpreter, "-", *_arguments(lab)]
        if python
        else [
            interpreter,
            "-s",
            "--",
            *_arguments(lab),
        ]
    )
    if _needs_hire_login(check):
        return shlex.join(words)
    if check.run_as is RunAs.HIRE:
        return shlex.join(["sudo", "-n", "runuser", "-u", lab.hire.login, "--", *words])
    return shlex.join(["sudo", "-n", *words])


def _arguments(lab: Lab) -> list[str]:
    return [lab.hire.login, lab.hire.public_key]


def _run_one(
    tools: Toolbox, lab: Lab, guest: GuestRecord, check: Check, target: ShellTarget
) -> CheckResult:
    started_s = tools.clock.monotonic_s()
    try:
        answer = tools.shell.run(
            target, build_command(check, lab), stdin=check.body, timeout_s=check.timeout_s
        )
        passed = answer.exit_status == 0
        saw = _last_line(answer.stdout) or _last_line(answer.stderr) or "nothing"
    except HostKeyError:
        raise  # whatever answers there is not the guest: nothing that it says counts
    except LabctlError as error:
        passed, saw = False, error.what
    return CheckResult(
        slot=guest.identity.slot,
        role=check.role,
        name=check.name,
        title=check.title,
        kind=check.kind.value,
        passed=passed,
        saw=saw[:SAW_LIMIT],
        remedy=check.remedy,
        elapsed_s=tools.clock.monotonic_s() - started_s,
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


@contextmanager
def _trial_login(
    tools: Toolbox, lab: Lab, guest: GuestRecord, admin: ShellTarget
) -> Iterator[ShellTarget]:
    """Let labctl log in as the hire for a while, with a key that is proved gone afterwards."""
    key = tools.credentials.make_trial_key(lab.lab_id, guest.identity.slot)
    place = f"{TRIAL_KEYS}/{lab.hire.login}"
    try:
        _run_or_raise(
            tools,
            admin,
            f"sudo -n install -d -m 0755 {TRIAL_KEYS} && "
            f"sudo -n install -m 0644 /dev/stdin {shlex.quote(place)}",
            stdin=key.public_key + "\n",
        )
        yield build_target(tools.site, guest, key.private_file, user=lab.hire.login)
    finally:
        tools.credentials.destroy_trial_key(key)
        _run_or_raise(
            tools,
            admin,
            f"sudo -n rm -f {shlex.quote(place)} && ! sudo -n test -e {shlex.quote(place)}",
        )


def _run_or_raise(tools: Toolbox, admin: ShellTarget, command: str, stdin: str = "") -> None:
    answer = tools.shell.run(admin, command, stdin=stdin, timeout_s=KEY_COMMAND_S)
    if answer.exit_status != 0:
        raise CheckFailedError(
            f"the trial key of {admin.alias} could not be placed or removed: "
            f"{_last_line(answer.stderr)}",
            hint=f"log in as {admin.user} and look at {TRIAL_KEYS}",
        )
