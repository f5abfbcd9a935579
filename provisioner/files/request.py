"""All the files that one request reads, with the problems of all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from provisioner.errors import FileProblemsError, Problem
from provisioner.files.blueprint import check_fit, load_blueprint
from provisioner.files.checks import load_checks
from provisioner.files.site import load_site
from provisioner.files.stack import load_stack
from provisioner.files.validation import keep_first
from provisioner.model.spec import Blueprint, Site

Loaded = TypeVar("Loaded")


@dataclass
class _Gathering:
    """Runs loaders one after another and keeps the problems of those that fail."""

    problems: list[Problem] = field(default_factory=list)

    def take(self, load: Callable[[], Loaded]) -> Loaded | None:
        try:
            return load()
        except FileProblemsError as error:
            self.problems += error.problems
            return None


def load_request(
    site_dirs: Sequence[Path],
    site_name: str | None,
    labs_dir: Path,
    playbooks_dir: Path,
    blueprint_name: str,
) -> tuple[Site, Blueprint]:
    """Load a site and a blueprint, once they fit each other and everything beside them is sound.

    Read too: the team's stack, and the checks of the blueprint's roles.

    Raises:
        InputError: no such site or blueprint.
        FileProblemsError: every problem of every one of these files.
    """
    gathering = _Gathering()
    site = gathering.take(lambda: load_site(site_dirs, site_name))
    blueprint = gathering.take(lambda: load_blueprint(labs_dir, blueprint_name))
    gathering.take(lambda: load_stack(labs_dir))
    if blueprint:
        roles = dict.fromkeys(role for guest in blueprint.guests for role in guest.roles)
        gathering.take(lambda: load_checks(playbooks_dir, roles))
    if site:
        gathering.take(lambda: check_fit(labs_dir, blueprint_name, site))
    if gathering.problems or not site or not blueprint:
        raise FileProblemsError(keep_first(gathering.problems))
    return site, blueprint
