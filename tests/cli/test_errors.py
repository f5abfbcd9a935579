"""What IT reads when something is wrong: the exact text, and the exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cli.conftest import Desk

PLAN = ("plan", "mlops-onboarding", "--hire", "ana@example.com", "--key", "{key}")
UNCONFIRMED = "vCenter 127.0.0.1:{port} (VMware vCenter Server 8.0.3) does not confirm site "


@dataclass(frozen=True)
class Case:
    """Words, what the site file says otherwise, and what comes of it."""

    name: str
    exit_code: int
    what: str
    hint: str
    words: tuple[str, ...] = PLAN
    site: dict[str, Any] = field(default_factory=dict)


def plan(**changes: str) -> tuple[str, ...]:
    """The words of a good plan, one of them replaced."""
    words = list(PLAN)
    for option, value in changes.items():
        words[words.index(f"--{option}") + 1] = value
    return tuple(words)


MEND = "mend the site file, or the account's rights"
CASES = (
    Case(
        "e-mail",
        2,
        "'ana' is no e-mail address that labctl takes",
        "allowed: letters, digits and . _ + - before the @, then a domain: ana.silva@example.com",
        plan(hire="ana"),
    ),
    Case(
        "reserved-name",
        2,
        "the login of 'root@example.com' would be root, a name that guests use themselves",
        "choose another one with --login",
        plan(hire="root@example.com"),
    ),
    Case(
        "login",
        2,
        "the login would be '-x', and that is no login",
        "choose one with --login: 2 to 24 of a-z, 0-9 and -, starting with a letter, not ending "
        "with -",
        (*PLAN, "--login", "-x"),
    ),
    Case(
        "key",
        2,
        "the public key is no valid ssh-rsa key",
        "give the one line of a .pub file; allowed are ssh-ed25519, ecdsa-sha2-nistp256, -384 and "
        "-521, ssh-rsa of 3072 bits or more, sk-ssh-ed25519@openssh.com and "
        "sk-ecdsa-sha2-nistp256@openssh.com",
        plan(key="{bad_key}"),
    ),
    Case(
        "no-key-file",
        2,
        "cannot read the public key /nowhere.pub: No such file or directory",
        "",
        plan(key="/nowhere.pub"),
    ),
    Case(
        "days",
        2,
        "a lease of 500 days is not allowed",
        "this blueprint allows 1 to 60 days, 14 when nothing is said",
        (*PLAN, "--days", "500"),
    ),
    Case(
        "blueprint",
        2,
        "there is no blueprint 'nope' in {project}/labs",
        "there are: mlops-onboarding",
        ("plan", "nope", *PLAN[2:]),
    ),
    Case(
        "vm-template",
        2,
        UNCONFIRMED + "vm-template: vm_templates.debian-13: /DC0/vm/templates/nope is nothing that "
        "this account can see, not a VM",
        MEND,
        site={
            "vm_templates__debian-13": {
                "path": "/DC0/vm/templates/nope",
                "snapshot": "labctl-base",
            }
        },
    ),
    Case(
        "snapshot",
        2,
        UNCONFIRMED + "snapshot: vm_templates.debian-13: /DC0/vm/templates/debian-13: it has no "
        "snapshots named nope; one is needed",
        MEND,
        site={"vm_templates__debian-13__snapshot": "nope"},
    ),
    Case(
        "portgroup",
        2,
        UNCONFIRMED + "portgroup: networks.lab: /DC0/network/nope is nothing that this account can "
        "see, not a portgroup",
        MEND,
        site={"networks__lab": "/DC0/network/nope"},
    ),
    Case(
        "no-space",
        3,
        "no datastore has room for guest workbench: it needs 12.0 GiB; datastore-0 has 0.0 GiB, "
        "datastore-1 has 0.0 GiB beside the reserve of 100000 GiB and this lab's other guests",
        "free space, add a datastore to the site file, or tear down a lab",
        site={"placement__reserve_gib": 100000},
    ),
    Case(
        "wrong-password",
        4,
        "vCenter 127.0.0.1:{port}: cannot log in as administrator@vsphere.local: the user name or "
        "the password is wrong",
        "check vcenter.username and the password source of the site file; more tries may lock the "
        "account",
        site={"vcenter__password_file": "{bad_password}"},
    ),
    Case(
        "wrong-certificate",
        4,
        "vCenter 127.0.0.1: its certificate is not the pinned one: it shows SHA-256 {thumbprint}, "
        "pinned is " + ":".join(["AB"] * 32),
        "if the certificate was renewed, read the new thumbprint on vCenter itself and put it in "
        "vcenter.thumbprint_sha256 of the site file",
        site={"vcenter__thumbprint_sha256": ":".join(["AB"] * 32)},
    ),
    Case(
        "dead-vcenter",
        5,
        "vCenter 127.0.0.1:9: cannot log in as administrator@vsphere.local: nothing listens there",
        "check vcenter.host and vcenter.port of the site file, the network, and that vCenter is "
        "up; a simulator is started by: labctl sim up",
        site={"vcenter__port": 9},
    ),
    Case(
        "site-file",
        2,
        "{site_file}:6:3 vcenter.port: too large; allowed: a whole number from 1 to 65535\n"
        "{site_file}:17:1 networks: too few; allowed: at least one entry, with names of 1 to 40 of "
        "a-z, 0-9 and -, starting with a letter",
        "",
        site={"networks": {}, "vcenter__port": 99999},
    ),
    Case(
        "unknown-lab",
        2,
        "there is no lab 'nobody-mlops'",
        "labctl list --all shows every lab",
        ("teardown", "nobody-mlops", "--yes"),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_error_says_what_where_and_what_to_do(desk: Desk, case: Case) -> None:
    bad_key, bad_password = desk.state / "bad.pub", desk.state / "bad-password"
    bad_key.write_text("ssh-rsa AAAA\n")
    bad_password.touch(mode=0o600)
    bad_password.write_text("wrong\n")
    endpoint = desk.endpoint
    thumbprint = endpoint["thumbprint_sha256"].replace(":", "").upper()
    facts = {
        "key": desk.key,
        "bad_key": bad_key,
        "bad_password": bad_password,
        "port": endpoint["port"],
        "project": desk.project,
        "site_file": desk.state / "sites" / f"{case.name}.yml",
        "thumbprint": ":".join(thumbprint[at : at + 2] for at in range(0, 64, 2)),
    }
    changes = {
        key: value.format(**facts) if isinstance(value, str) else value
        for key, value in case.site.items()
    }
    desk.write_site(case.name, **changes)
    words = [word.format(**facts) for word in case.words]
    done = desk.labctl(*words, "--json", LABCTL_SITE=case.name)
    assert done.returncode == case.exit_code, done.stdout + done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["what"] == case.what.format(**facts)
    assert error["hint"] == case.hint
    assert done.stderr == ""
    spoken = desk.labctl(*words, LABCTL_SITE=case.name)
    assert spoken.returncode == case.exit_code
    assert f"labctl: {error['what']}" in spoken.stderr
    assert spoken.stdout == ""


def test_a_good_plan_is_the_negative_control(desk: Desk) -> None:
    words = [word.format(key=desk.key) for word in PLAN]
    done = desk.labctl(*words, "--json", LABCTL_SITE="plant")
    assert done.returncode == 0
    assert json.loads(done.stdout)["lab_id"] == "ana-mlops"


def test_without_a_site_it_says_how_to_get_one(desk: Desk, tmp_path: Any) -> None:
    tmp_path.chmod(0o700)
    words = [word.format(key=desk.key) for word in PLAN]
    done = desk.labctl(*words, LABCTL_STATE=str(tmp_path))
    assert done.returncode == 2
    assert "labctl sim up" in done.stderr


def test_a_destructive_verb_asks_first(desk: Desk) -> None:
    done = desk.labctl("sim", "down", LABCTL_STATE=str(desk.state / "other"))
    assert done.returncode == 0
    assert "No simulator runs." in done.stdout
