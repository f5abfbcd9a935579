"""The team's stack: `labs/stack.yml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from provisioner.errors import Problem
from provisioner.files.blueprint import list_roles
from provisioner.files.validation import describe_unknown, load_model
from provisioner.files.yaml_source import YamlSource, read_yaml
from provisioner.model.spec import Stack

STACK_FILE = "stack.yml"


def load_stack(labs_dir: Path) -> Stack:
    """Load the team's stack.

    Raises:
        FileProblemsError: its file has faults, names a role that does not exist, or a variable
            that is not named after its role (Ansible would pass over it in silence).
    """
    source = read_yaml(labs_dir / STACK_FILE)
    return load_model(source, Stack, _check_roles(source, labs_dir))


def _check_roles(source: YamlSource, labs_dir: Path) -> Iterator[Problem]:
    known = list_roles(labs_dir.parent / "playbooks")
    roles = source.data.get("roles")
    for role, variables in roles.items() if isinstance(roles, dict) else ():
        if role not in known:
            yield source.problem(("roles", role), describe_unknown("role", role, known))
        for variable in variables if isinstance(variables, dict) else ():
            if not re.fullmatch(f"{re.escape(role)}_[a-z0-9_]+", variable):
                text = f"not a variable of this role; allowed: names that start with {role}_"
                yield source.problem(("roles", role, variable), text)
