"""The guest image: a small Debian 13, built once by mmdebstrap and cached by its recipe's hash."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import ImageNotFound

from provisioner.simulator.guests import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from docker import DockerClient

_log = logging.getLogger(__name__)

SUITE = "trixie"
REPOSITORY = "labctl-guest"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "cloud-init", "sudo"),
    *("python3", "python3-apt", "ca-certificates", "curl", "iproute2", "iptables", "procps"),
)
# getty and modules have no hardware here; timers would work behind a tester's back.
MASKED_UNITS = (
    *("getty@.service", "console-getty.service", "container-getty@.service", "getty.target"),
    *("apt-daily.timer", "apt-daily.service", "apt-daily-upgrade.timer"),
    *("apt-daily-upgrade.service", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"),
    *("systemd-modules-load.service", "systemd-networkd.service", "systemd-resolved.service"),
)
_UNITS = "usr/lib/systemd/system"
_FILES = {
    "guest-init.sh": ("usr/lib/guest-tools/guest-init", 0o755),
    "guest_tools.py": ("usr/lib/guest-tools/guest_tools.py", 0o644),
    "vmware-rpctool.sh": ("usr/bin/vmware-rpctool", 0o755),
    "cloud-init.yml": ("etc/cloud/cloud.cfg.d/90-guest.cfg", 0o644),
    "cloud-init-main.service": (f"{_UNITS}/cloud-init-main.service.d/guestinfo.conf", 0o644),
    "guestinfo-env.service": (f"{_UNITS}/guestinfo-env.service", 0o644),
    "guest-reboot.service": (f"{_UNITS}/guest-reboot.service", 0o644),
    "guest-tools.service": (f"{_UNITS}/guest-tools.service", 0o644),
}
_WANTED = {
    f"{_UNITS}/cloud-init-main.service.wants/guestinfo-env.service",
    f"{_UNITS}/reboot.target.wants/guest-reboot.service",
    f"{_UNITS}/multi-user.target.wants/guest-tools.service",
}
# Docker empties these three files of /etc in every new container; guest-init brings them back.
_KEPT = "var/lib/guest-tools"
_TEXTS = {
    f"{_KEPT}/hostname": "debian\n",
    f"{_KEPT}/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    f"{_KEPT}/resolv.conf": "",
    "etc/machine-id": "",
}
# What every machine must make for itself.
_FORGET = 'rm -f "$1"/etc/ssh/ssh_host_* "$1"/var/lib/dbus/machine-id "$1"/etc/apt/apt.conf.d/99mm*'


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what is in the image."""

    sources: tuple[str, ...]
    apt_options: tuple[str, ...]
    overlay: bytes

    @property
    def reference(self) -> str:
        """The image's name and tag; another recipe has another tag."""
        digest = hashlib.sha256(self.overlay)
        digest.update(json.dumps([SUITE, PACKAGES, self.sources, _FORGET]).encode())
        return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def build_recipe() -> Recipe:
    """Read this machine's apt settings and the overlay files."""
    return Recipe(list_sources(Path("/etc/apt")), _list_proxy_options(), _build_overlay())


def ensure_image(client: DockerClient, recipe: Recipe) -> str:
    """Return the image's reference, building it when Docker does not have it yet.

    Raises:
        GuestError: mmdebstrap is missing or failed; the text ends in its last lines.
    """
    with contextlib.suppress(ImageNotFound):
        client.images.get(recipe.reference)
        return recipe.reference
    if shutil.which("mmdebstrap") is None:
        raise GuestError(
            "mmdebstrap, which builds the guests' Debian, is not installed here: "
            "run 'apt-get install mmdebstrap uidmap' and try again"
        )
    _log.info("building the guest image %s: about a minute, once", recipe.reference)
    repository, _, tag = recipe.reference.partition(":")
    with tempfile.TemporaryDirectory(prefix="labctl-guest-") as folder:
        tree = Path(folder, "guest.tar")
        _run_mmdebstrap(recipe, Path(folder), tree)
        client.api.import_image_from_file(
            str(tree),
            repository=repository,
            tag=tag,
            changes=['CMD ["/usr/lib/guest-tools/guest-init"]', "ENV container=docker"],
        )
    client.images.get(recipe.reference)
    _log.info("the guest image %s is ready", recipe.reference)
    return recipe.reference


def _run_mmdebstrap(recipe: Recipe, folder: Path, tree: Path) -> None:
    overlay = folder / "overlay.tar"
    overlay.write_bytes(recipe.overlay)
    argv = [
        "mmdebstrap",
        "--variant=minbase",
        "--format=tar",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={option}" for option in recipe.apt_options),
        f"--customize-hook={_FORGET}",
        f"--customize-hook=tar-in {overlay} /",
        SUITE,
        "-",
        *recipe.sources,
    ]
    with tree.open("wb") as output:
        done = subprocess.run(
            argv, check=False, stdout=output, stderr=subprocess.PIPE, text=True, cwd="/"
        )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-12:])
        raise GuestError(
            f"mmdebstrap could not build the guests' Debian (exit {done.returncode}). It needs "
            "the apt mirrors of this machine and, as an ordinary user, the package uidmap with "
            f"an entry in /etc/subuid. Its last lines:\n{last}"
        )


def _build_overlay() -> bytes:
    here = Path(__file__).with_name("guest")
    entries = [(path, mode, (here / name).read_bytes()) for name, (path, mode) in _FILES.items()]
    entries += [(path, 0o644, text.encode()) for path, text in _TEXTS.items()]
    links = [(path, f"/{_UNITS}/{Path(path).name}") for path in sorted(_WANTED)]
    links += [(f"etc/systemd/system/{unit}", "/dev/null") for unit in MASKED_UNITS]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in sorted({str(Path(path).parent) for path, *_ in (*entries, *links)}):
            _add(archive, folder, 0o755, kind=tarfile.DIRTYPE)
        for path, mode, content in entries:
            _add(archive, path, mode, content)
        for path, target in links:
            _add(archive, path, 0o777, kind=tarfile.SYMTYPE, target=target)
    return buffer.getvalue()


def _add(
    archive: tarfile.TarFile,
    path: str,
    mode: int,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
) -> None:
    member = tarfile.TarInfo(f"./{path}")
    member.mode, member.size, member.type, member.linkname = mode, len(content), kind, target
    archive.addfile(member, io.BytesIO(content))


def _list_proxy_options() -> tuple[str, ...]:
    """Apt's proxies of this machine, which mmdebstrap does not read by itself."""
    if shutil.which("apt-config") is None:
        return ()
    dump = subprocess.run(["apt-config", "dump"], check=False, capture_output=True, text=True)
    pattern = re.compile(r'Acquire::(https?::(Proxy|CaInfo)|Check-)\S* ".+";')
    return tuple(line.rstrip(";") for line in dump.stdout.splitlines() if pattern.match(line))


def list_sources(etc_apt: Path) -> tuple[str, ...]:
    """List apt lines for trixie on the mirrors that this machine uses for its own Debian.

    Mirrors of other distributions are ignored; without a Debian one, Debian's own are used.
    """
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", SUITE)
    suites = {
        name + suffix: suffix
        for name in (codename, SUITE, "stable")
        for suffix in ("", "-updates", "-security")
    }
    found: dict[str, list[str]] = {}
    for uri, suite, components in _iter_entries(etc_apt):
        if suite in suites and "main" in components and uri not in found.get(suites[suite], []):
            found.setdefault(suites[suite], []).append(uri)
    found.setdefault("", ["http://deb.debian.org/debian"])
    found.setdefault("-security", ["http://security.debian.org/debian-security"])
    return tuple(
        f"deb {_resolve_mirror(uri)} {SUITE}{suffix} main"
        for suffix, uris in sorted(found.items())
        for uri in uris
    )


def _iter_entries(etc_apt: Path) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Yield (URI, suite, components) of every enabled ``deb`` entry, in both of apt's formats."""
    for path in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*.list"))]:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            words = re.sub(r"\[.*?\]|#.*", " ", line).split()
            if words[:1] == ["deb"] and len(words) > 2:  # noqa: PLR2004 - deb URI SUITE
                yield words[1], words[2], words[3:]
    for path in sorted((etc_apt / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            yield from _iter_stanza(stanza)


def _iter_stanza(stanza: str) -> Iterator[tuple[str, str, Sequence[str]]]:
    text = re.sub(r"(?m)^#.*\n?", "", stanza)
    fields = {
        name.lower(): value.split()
        for name, value in re.findall(r"(?m)^([\w-]+):((?:.*)(?:\n[ \t].*)*)", text)
    }
    if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"])[0] != "no":
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                yield uri, suite, fields.get("components", [])


def _resolve_mirror(uri: str) -> str:
    """Debian's cloud images name a file of mirrors, which a guest does not have."""
    prefix, separator, path = uri.partition("mirror+file:")
    if prefix or not separator or not Path(path).exists():
        return uri
    return Path(path).read_text(encoding="utf-8").split()[0]
