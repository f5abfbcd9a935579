"""What the roles promise in their files is so: specifications, variables, tasks, checks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.rules.ansible_inventory import CA_VARIABLE, SITE_VARIABLES
from tests.roles.conftest import HOUSE, PLAYBOOKS, ROLES, Role, list_checks

NAMES = ("docker_engine", "hire_account", "linux_baseline", "mlflow_server", "toolchain")
LAB_WIDE = re.compile(r"labctl_(lab_id|hire_login|hire_name|hire_key|lease_end)$")
SECRET = re.compile(r"password|secret|token|private_key", re.IGNORECASE)
every_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def tasks_of(role: Role) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{role.name}/{file.relative_to(role.path)}: {task['name']}", task)
        for folder in ("tasks", "handlers")
        for file in sorted((role.path / folder).glob("*.yml"))
        for task in yaml.safe_load(file.read_text())
    ]


def find_spec_faults(role: Role) -> list[str]:
    """List where a role's specification and its defaults differ."""
    defaults = role.read("defaults/main.yml") or {}
    faults = [f"{name} is in no specification" for name in defaults if name not in role.known()]
    for entry, options in role.options().items():
        for name, option in options.items():
            at = f"{entry}: {name}"
            if not option.get("description") or "type" not in option:
                faults.append(f"{at} lacks a description or a type")
            if option.get("required"):
                if not LAB_WIDE.match(name) or name in defaults:
                    faults.append(f"{at} is required, so labctl must pass it, and nobody else")
            elif option.get("default") != defaults.get(name, "no default"):
                faults.append(f"{at}: default differs from defaults/main.yml")
    return faults


def test_the_roles_are_those_of_the_blueprint() -> None:
    lab = yaml.safe_load((HOUSE / "labs/mlops-onboarding/lab.yml").read_text())
    used = {role for guest in lab["guests"] for role in guest["roles"]}
    assert tuple(role.name for role in ROLES) == NAMES
    assert used == set(NAMES)


@every_role
def test_specification_equals_defaults(role: Role) -> None:
    assert find_spec_faults(role) == []


def test_a_difference_between_specification_and_defaults_is_seen(tmp_path: Path) -> None:
    copy = Role(tmp_path / "toolchain")
    shutil.copytree(PLAYBOOKS / "roles/toolchain", copy.path)
    defaults = copy.path / "defaults/main.yml"
    defaults.write_text(defaults.read_text().replace("0.13.9", "9.9.9") + "toolchain_typo: 1\n")
    assert find_spec_faults(copy) == [
        "toolchain_typo is in no specification",
        "main: toolchain_uv_version: default differs from defaults/main.yml",
        "uv: toolchain_uv_version: default differs from defaults/main.yml",
    ]


@every_role
def test_every_variable_bears_the_roles_name(role: Role) -> None:
    for name in role.read("defaults/main.yml") or {}:
        assert name.startswith(f"{role.name}_")
    for name in role.read("vars/main.yml") or {}:
        assert name.startswith(f"__{role.name}_")
    for at, task in tasks_of(role):
        assert task.get("register", f"__{role.name}_").startswith(f"__{role.name}_"), at


@every_role
def test_tasks_keep_the_rules(role: Role) -> None:
    for at, task in tasks_of(role):
        modules = [key for key in task if key.startswith("ansible.builtin.")]
        assert len(modules) == 1, at
        asked = task[modules[0]] if isinstance(task[modules[0]], dict) else {}
        assert isinstance(asked.get("mode", ""), str), f"{at}: quote the mode"
        assert not {"ignore_errors", "environment", "tags"} & task.keys(), at
        if modules[0].endswith((".shell", ".command")):
            assert "changed_when" in task, at
        if modules[0].endswith((".template", ".copy")):
            assert "mode" in asked, at


def fed_scripts() -> list[tuple[str, dict[str, str]]]:
    """List the tasks that give their script a standard input."""
    return [
        (at, arguments)
        for role in ROLES
        for at, task in tasks_of(role)
        for arguments in task.values()
        if isinstance(arguments, dict) and "stdin" in arguments
    ]


def test_no_script_can_wait_at_its_terminal() -> None:
    """Ansible takes an empty standard input for none, and leaves the script the terminal."""
    assert fed_scripts()
    for at, arguments in fed_scripts():
        assert arguments["stdin"].startswith(
            ("certificates:", "{{ lookup('ansible.builtin.file'")
        ), at


def test_no_script_ends_before_it_has_read_its_input() -> None:
    """Ansible fails with a broken pipe when a script is quicker to end than Ansible to write."""
    for at, arguments in fed_scripts():
        before_it_may_end = arguments["cmd"].partition("exit")[0]
        assert re.search(r"\$\(cat\)|^ *awk |python3 - ", before_it_may_end, re.MULTILINE), at


def test_secrets_are_born_on_the_guest() -> None:
    """No variable of a role could carry one, and no task brings one back."""
    for role in ROLES:
        assert [name for name in role.known() if SECRET.search(name)] == []
        for at, task in tasks_of(role):
            assert "ansible.builtin.slurp" not in task, at
            assert "ansible.builtin.fetch" not in task, at


def test_what_labctl_passes_is_specified() -> None:
    known = {name for role in ROLES for name in role.known()}
    stack = yaml.safe_load((HOUSE / "labs/stack.yml").read_text())["roles"]
    company = [
        yaml.safe_load(file.read_text()) for file in (HOUSE / "inventory/group_vars").glob("*.yml")
    ]
    passed = {*SITE_VARIABLES, CA_VARIABLE, *(name for file in company for name in file)}
    assert passed - known == set()
    for role, settings in stack.items():
        assert set(settings) <= next(found for found in ROLES if found.name == role).known()


def test_ansible_finds_the_companys_variables() -> None:
    assert (PLAYBOOKS / "group_vars").resolve() == HOUSE / "inventory/group_vars"


@pytest.mark.parametrize("lock", ["toolchain/files/uv.txt", "mlflow_server/files/requirements.txt"])
def test_locks_have_hashes_and_name_no_host(lock: str) -> None:
    text = (PLAYBOOKS / "roles" / lock).read_text()
    packages = re.split(r"\n(?=\S)", text.strip())
    assert packages
    for package in packages:
        assert re.match(r"[a-z0-9.-]+==\S+", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]
    assert not re.search(r"://|--(index|find-links|extra)", text)


def test_the_stack_names_what_the_locks_hold() -> None:
    stack = yaml.safe_load((HOUSE / "labs/stack.yml").read_text())["roles"]
    for role, name, lock in (
        ("toolchain", "uv", "uv.txt"),
        ("mlflow_server", "mlflow", "requirements.txt"),
    ):
        version = stack[role][f"{role}_{'uv_' if name == 'uv' else ''}version"]
        text = (PLAYBOOKS / "roles" / role / "files" / lock).read_text()
        assert re.search(rf"(?m)^{name}=={re.escape(version)} ", text)


def test_each_check_has_its_script_and_remedy() -> None:
    checks = list_checks()
    names = [check["name"] for _, check in checks]
    assert sorted(set(names)) == sorted(names)
    for role, check in checks:
        assert (role.path / "checks" / check["script"]).is_file(), check["name"]
        assert len(check["remedy"]) > len("try again"), check["name"]
    scripts = {file.name for role in ROLES for file in (role.path / "checks").glob("*.*")}
    assert scripts - {check["script"] for _, check in checks} == {"checks.yml"}


def test_each_check_can_be_broken() -> None:
    broken = yaml.safe_load((HOUSE / "tests/roles/broken.yml").read_text())
    assert set(broken) == {check["name"] for _, check in list_checks()}
    for name, entry in broken.items():
        assert {"break", "mend"} <= entry.keys() <= {"break", "mend", "wait"}, name


@pytest.mark.parametrize(
    "script",
    sorted({*PLAYBOOKS.glob("roles/*/checks/*.sh"), *PLAYBOOKS.glob("roles/*/files/*.sh")}),
    ids=lambda script: script.stem,
)
def test_shell_scripts_parse(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("playbook", ["converge.yml", "personalise.yml"])
def test_playbooks_parse(playbook: str, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    groups: dict[str, Any] = {name: {"hosts": {"workbench": {}}} for name in NAMES}
    inventory.write_text(yaml.safe_dump({"all": {"children": groups}}))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("--syntax-check", "-i", inventory, PLAYBOOKS / playbook),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
        },
    )
    assert done.returncode == 0, done.stderr
