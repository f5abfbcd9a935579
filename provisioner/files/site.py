"""Sites: `inventory/sites/<site>.yml`; and where labctl finds its things on this machine.

The one module, beside the composition root, that reads the environment.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509

from provisioner.errors import InputError, Problem
from provisioner.files.blueprint import unknown
from provisioner.files.validation import load_model
from provisioner.files.yaml_source import YamlSource, read_yaml
from provisioner.model.spec import Site

EXAMPLE = "example"
PASSWORD_COMMAND_S = 60.0
MAX_PASSWORD_BYTES = 1024
MAX_CA_BYTES = 1024 * 1024


def state_dir() -> Path:
    """Return the state folder, made with mode 0700 when it is not there yet.

    `LABCTL_STATE` decides; else root has /var/lib/labctl, and a person $XDG_STATE_HOME/labctl
    (~/.local/state/labctl).

    Raises:
        InputError: it cannot be made, or other users can look into it.
    """
    path = _choose_state_dir(os.environ, is_root=os.geteuid() == 0)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(
            f"the state folder {path} cannot be made: {error.strerror}",
            hint="name another one in LABCTL_STATE",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise InputError(
            f"the state folder {path} is open to other users", hint=f"chmod 700 {path}"
        )
    return path


def _choose_state_dir(environ: Mapping[str, str], *, is_root: bool) -> Path:
    if chosen := environ.get("LABCTL_STATE"):
        return Path(chosen).absolute()
    if is_root:
        return Path("/var/lib/labctl")
    home = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path there is to be ignored.
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "labctl"


def project_dir() -> Path:
    """Return the folder that holds labs/, inventory/ and playbooks/.

    `LABCTL_PROJECT` decides; else it is the folder that labctl's own package lies in, else the
    current folder.

    Raises:
        InputError: none of them holds them.
    """
    chosen = os.environ.get("LABCTL_PROJECT")
    candidates = [Path(chosen)] if chosen else [Path(__file__).parents[2], Path.cwd()]
    for folder in candidates:
        if (folder / "labs").is_dir() and (folder / "playbooks").is_dir():
            return folder.absolute()
    raise InputError(
        f"no labs and playbooks in {' or '.join(str(folder) for folder in candidates)}",
        hint="run labctl in the project's folder, or name that folder in LABCTL_PROJECT",
    )


def find_sites(dirs: Sequence[Path]) -> dict[str, Path]:
    """Find site files by name; where two folders have the same name, the first folder wins."""
    found: dict[str, Path] = {}
    for folder in dirs:
        for path in sorted(folder.glob("*.yml")):
            found.setdefault(path.stem, path)
    return found


def load_site(dirs: Sequence[Path], name: str | None = None) -> Site:
    """Load a site by name; without one, the site of `LABCTL_SITE`, or the only one there is.

    Relative paths in the file are taken from the file's folder; the result has absolute ones.

    Raises:
        InputError: no such site, or not clear which one; those that exist are listed.
        FileProblemsError: the site file has faults, or names files that cannot be used.
    """
    found = find_sites(dirs)
    chosen = name or os.environ.get("LABCTL_SITE") or _choose_only(found)
    if chosen not in found:  # so a hostile name never becomes part of a path
        raise InputError(
            f"there is no site {ascii(chosen[:60])}",
            hint=f"there are: {', '.join(sorted(found)) or 'none yet'}",
        )
    path = found[chosen].absolute()
    source = read_yaml(path)
    return _make_absolute(load_model(source, Site, _check_site(source, path)), path.parent)


def _choose_only(found: Mapping[str, Path]) -> str:
    real = sorted(found.keys() - {EXAMPLE})
    if len(real) == 1:
        return real[0]
    if real:
        raise InputError(
            f"there are several sites: {', '.join(real)}",
            hint="say --site NAME, or set LABCTL_SITE",
        )
    raise InputError(
        "there is no site yet",
        hint="copy inventory/sites/example.yml and fill it in, or run: labctl sim up",
    )


def _check_site(source: YamlSource, path: Path) -> Iterator[Problem]:
    for at, value in source.walk("site"):
        if value != path.stem:
            yield source.problem(at, f"not the name of its file; allowed: {path.stem}")
    for pattern, find_fault in (
        (("vcenter", "ca_file"), find_ca_fault),
        (("guests", "ca_certificates", "*"), find_ca_fault),
        (("vcenter", "password_file"), find_password_fault),
    ):
        for at, value in source.walk(*pattern):
            if fault := find_fault(path.parent / value):
                yield source.problem(at, fault)
    if source.data.get("vcenter", {}) and _get(source.data, "vcenter", "password_command") == []:
        yield source.problem(("vcenter", "password_command"), "empty; needed: a command's words")
