"""Checks and trials: `playbooks/roles/<role>/checks/checks.yml`, and the scripts beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from provisioner.errors import FileProblemsError, Problem
from provisioner.files.validation import load_model
from provisioner.files.yaml_source import KeyPath, YamlSource, read_yaml
from provisioner.model.spec import Check, CheckSpec, Spec

CHECKS_FILE = "checks.yml"
MAX_SCRIPT_BYTES = 64 * 1024


class CheckFile(Spec):
    """One role's checks."""

    checks: tuple[CheckSpec, ...] = Field(min_length=1)


def load_checks(playbooks_dir: Path, roles: Iterable[str]) -> tuple[Check, ...]:
    """Load the checks of some roles, in the order of the roles. A role may have none.

    Raises:
        FileProblemsError: every fault of all their files at once: of the files themselves, a
            script that cannot be read, a name that is used twice over all the roles.
    """
    checks: list[Check] = []
    problems: list[Problem] = []
    named: dict[str, str] = {}
    for role in roles:
        path = playbooks_dir / "roles" / role / "checks" / CHECKS_FILE
        if not path.exists():
            continue
        try:
            checks += _load_role(path, role, named)
        except FileProblemsError as error:
            problems += error.problems
    if problems:
        raise FileProblemsError(tuple(problems))
    return tuple(checks)


def _load_role(path: Path, role: str, named: dict[str, str]) -> list[Check]:
    source = read_yaml(path)
    faults = [
        *_check_names(source, named),
        *(
            source.problem(at, fault)
            for at, script in source.walk("checks", "*", "script")
            if (fault := find_script_fault(path.parent, script))
        ),
    ]
    written = load_model(source, CheckFile, faults).checks
    return [
        Check(**spec.model_dump(), role=role, body=(path.parent / spec.script).read_text("utf-8"))
        for spec in written
    ]


def _check_names(source: YamlSource, named: dict[str, str]) -> Iterable[Problem]:
    for path, name in source.walk("checks", "*", "name"):
        if name in named:
            yield source.problem(path, f"this name is used in {named[name]} too; take another")
        named.setdefault(name, _say_place(source, path))


def _say_place(source: YamlSource, path: KeyPath) -> str:
    return f"{source.file} line {source.places[path][0]}"


def find_script_fault(folder: Path, script: str) -> str:
    """Say what is wrong with a check's script; empty when it can be used."""
    if not re.fullmatch(r"[\w.-]+\.(sh|py)", script):
        return ""  # the model says what its name may be
    path = folder / script
    try:
        raw = path.read_bytes()
        raw.decode("utf-8")
    except OSError as error:
        return f"cannot be read: {error.strerror}; put the script beside {CHECKS_FILE}"
    except UnicodeDecodeError:
        return "the script is not UTF-8; save it as UTF-8"
    if len(raw) > MAX_SCRIPT_BYTES:
        return f"the script is too large; allowed: {MAX_SCRIPT_BYTES // 1024} KiB"
    return "" if raw.strip() else "the script is empty; it must end with a status and one line"
