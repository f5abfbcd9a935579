"""Sites: `inventory/sites/<site>.yml`; and where labctl finds its things on this machine.

The one module, beside the composition root, that reads the environment.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography import x509

from provisioner.errors import InputError, Problem
from provisioner.files.validation import load_model
from provisioner.files.yaml_source import YamlSource, read_yaml, show_file
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
            f"there is no site {chosen[:60]!a}",
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


def _make_absolute(site: Site, folder: Path) -> Site:
    vcenter, guests = site.vcenter, site.guests
    files = {
        key: folder / value
        for key in ("ca_file", "password_file")
        if (value := getattr(vcenter, key)) is not None
    }
    certificates = tuple(folder / path for path in guests.ca_certificates)
    return site.model_copy(
        update={
            "vcenter": vcenter.model_copy(update=files),
            "guests": guests.model_copy(update={"ca_certificates": certificates}),
        }
    )


def find_ca_fault(path: Path) -> str:
    """Say why a file cannot serve as CA certificates (PEM); empty when it can."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_CA_BYTES + 1)
    except (OSError, ValueError) as error:
        return _say_unreadable(error)
    if len(raw) > MAX_CA_BYTES:
        return f"the file is too large; allowed: {MAX_CA_BYTES // 1024} KiB"
    if b"PRIVATE KEY-----" in raw:
        return "the file holds a private key, and it goes to every guest; needed: certificates only"
    try:
        raw.decode("ascii")
        x509.load_pem_x509_certificates(raw)
    except ValueError:
        return "the file holds no certificate that can be read; needed: PEM, one or more"
    return ""


def find_password_fault(path: Path) -> str:
    """Say why a file cannot hold a password; empty when it can."""
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError) as error:
        return _say_unreadable(error)
    if not stat.S_ISREG(mode):
        return "not a file; needed: a file that holds the password alone"
    if stat.S_IMODE(mode) & 0o077:
        return f"other users can read it; do: chmod 600 {show_file(path)}"
    return ""


def _say_unreadable(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
    return f"cannot be read: {reason}; a relative path is taken from the folder of this file"


def read_password(site: Site) -> str | None:
    """Return the password of the site's vCenter account; None when a person is to be asked.

    It comes from the one source that the site names: a file, a systemd credential, or the
    output of a command that is run without a shell. It is never part of an error.

    Raises:
        InputError: the source gives none.
    """
    vcenter = site.vcenter
    if vcenter.password_file is not None:
        return read_password_file(vcenter.password_file, f"password_file {vcenter.password_file}")
    if vcenter.password_credential is not None:
        return _read_credential(vcenter.password_credential)
    if vcenter.password_command is not None:
        return _run_password_command(vcenter.password_command)
    return None


def _read_credential(name: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise InputError(
            f"password_credential {name}: this process has no systemd credentials",
            hint=f"run it as a systemd service with LoadCredential={name}:PATH",
        )
    return read_password_file(Path(folder) / name, f"password_credential {name}")


def read_password_file(path: Path, source: str) -> str:
    """Read the one line of a file that holds a password alone.

    Raises InputError, which names `source`, when the file is open to others or holds anything else.
    """
    if fault := find_password_fault(path):
        raise InputError(f"{source}: {fault}")
    with path.open("rb") as stream:
        return _take_password(stream.read(MAX_PASSWORD_BYTES + 1), source)


def _run_password_command(words: Sequence[str]) -> str:
    source = f"password_command {words[0]}"
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=PASSWORD_COMMAND_S,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: cannot be run: {error.__class__.__name__}") from error
    except subprocess.TimeoutExpired:
        # not chained: the exception holds what the command has printed so far
        raise InputError(f"{source}: no answer within {PASSWORD_COMMAND_S:.0f} s") from None
    if done.returncode != 0:
        raise InputError(
            f"{source}: ended with status {done.returncode}",
            hint="run it by hand; its own words are above",
        )
    return _take_password(done.stdout, source)


def _take_password(raw: bytes, source: str) -> str:
    """Take one line of text as a password; its line end does not belong to it."""
    try:
        password = raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        # not chained: the exception holds the bytes
        raise InputError(f"{source}: the password is not UTF-8") from None
    if not password or not password.isprintable() or len(raw) > MAX_PASSWORD_BYTES:
        raise InputError(f"{source}: needed is one line that is not empty, the password alone")
    return password
