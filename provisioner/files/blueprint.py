"""Blueprints: `labs/<name>/lab.yml`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from provisioner.errors import FileProblemsError, InputError, Problem
from provisioner.files.validation import describe_unknown, load_model
from provisioner.files.yaml_source import YamlSource, read_yaml
from provisioner.model.spec import Blueprint, Site

BLUEPRINT_FILE = "lab.yml"


def list_blueprints(labs_dir: Path) -> tuple[str, ...]:
    """List the names of the blueprints that exist."""
    return tuple(sorted(path.parent.name for path in labs_dir.glob(f"*/{BLUEPRINT_FILE}")))


def list_roles(playbooks_dir: Path) -> tuple[str, ...]:
    """List the names of the Ansible roles that exist."""
    return tuple(sorted(path.name for path in (playbooks_dir / "roles").glob("*/")))


def load_blueprint(labs_dir: Path, name: str) -> Blueprint:
    """Load a blueprint by the name of its folder.

    Raises:
        InputError: there is none of that name; those that exist are listed.
        FileProblemsError: its file has faults, or names a role that does not exist.
    """
    source = _read(labs_dir, name)
    return load_model(source, Blueprint, _check_names(source, labs_dir, name))


def _read(labs_dir: Path, name: str) -> YamlSource:
    names = list_blueprints(labs_dir)
    if name not in names:  # so a hostile name never becomes part of a path
        raise InputError(
            f"there is no blueprint {name[:60]!a} in {labs_dir}",
            hint=f"there are: {', '.join(names) or 'none yet'}",
        )
    return read_yaml(labs_dir / name / BLUEPRINT_FILE)


def _check_names(source: YamlSource, labs_dir: Path, name: str) -> Iterator[Problem]:
    for path, value in source.walk("blueprint"):
        if value != name:
            yield source.problem(path, f"not the name of its folder; allowed: {name}")
    roles = list_roles(labs_dir.parent / "playbooks")
    for path, value in source.walk("guests", "*", "roles", "*"):
        if value not in roles:
            yield source.problem(path, describe_unknown("role", value, roles))


def check_fit(labs_dir: Path, name: str, site: Site) -> None:
    """Check that a site has every VM template and network that a blueprint names.

    Raises:
        InputError: there is no such blueprint.
        FileProblemsError: the site lacks some; each is reported at its place in the blueprint.
    """
    source = _read(labs_dir, name)
    faults = [
        source.problem(path, describe_unknown(f"{kind} of site {site.site}", value, sorted(known)))
        for kind, known, pattern in (
            ("VM template", site.vm_templates.keys(), ("guests", "*", "vm_template")),
            ("network", site.networks.keys(), ("guests", "*", "networks", "*")),
        )
        for path, value in source.walk(*pattern)
        if value not in known
    ]
    if faults:
        raise FileProblemsError(tuple(faults))
