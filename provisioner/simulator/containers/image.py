"""The guest image: a small Debian 13, built once by mmdebstrap and cached by its recipe's hash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from docker.errors import ImageNotFound

from provisioner.simulator.guests import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

_log = logging.getLogger(__name__)

SUITE = "trixie"
REPOSITORY = "labctl-guest"
PACKAGES = (  # noqa: SIM905 - a list of names reads better as words
    "systemd systemd-sysv dbus openssh-server cloud-init sudo python3 python3-apt ca-certificates "
    "curl iproute2 iptables procps"
).split()
# Consoles and modules have no hardware here; timers would work behind a tester's back.
MASKED_UNITS = (
    "getty.target getty@.service console-getty.service container-getty@.service "
    "apt-daily.timer apt-daily.service apt-daily-upgrade.timer apt-daily-upgrade.service "
    "e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-modules-load.service"
)
_UNITS = "/usr/lib/systemd/system"
_FILES = {
    "guest-init.sh": "/usr/lib/guest-tools/guest-init",
    "guest_tools.py": "/usr/lib/guest-tools/guest_tools.py",
    "vmware-rpctool.sh": "/usr/bin/vmware-rpctool",
    "cloud-init.yml": "/etc/cloud/cloud.cfg.d/90-guest.cfg",
    "cloud-init-main.service": f"{_UNITS}/cloud-init-main.service.d/guestinfo.conf",
    "guestinfo-env.service": f"{_UNITS}/guestinfo-env.service",
    "guest-reboot.service": f"{_UNITS}/guest-reboot.service",
    "guest-tools.service": f"{_UNITS}/guest-tools.service",
}
_FINISH = f"""set -e; cd "$1"
chmod 755 usr/lib/guest-tools/guest-init usr/bin/vmware-rpctool
chroot . systemctl --quiet enable guest-tools guest-reboot guestinfo-env
chroot . systemctl --quiet mask {MASKED_UNITS}
# What every machine makes for itself, and what only this build needed.
rm -f etc/ssh/ssh_host_* var/lib/dbus/machine-id etc/apt/apt.conf.d/99mmdebstrap
: > etc/machine-id
# Docker empties these in every new container; guest-init takes them from here.
cd var/lib/guest-tools
echo debian > hostname
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost ip6-loopback\\n' > hosts
: > resolv.conf
"""


def ensure_image(client: DockerClient) -> str:
    """Return the reference of the guest image, building it when Docker does not have it yet.

    Raises:
        GuestError: mmdebstrap is missing or failed; the text ends in its last lines.
    """
    argv = build_argv(list_sources(_run("apt-get --print-uris update")))
    # The same recipe in another checkout is the same image.
    digest = hashlib.sha256("\0".join(argv).replace(str(_local("")), "").encode())
    for name in _FILES:
        digest.update(_local(name).read_bytes())
    tag = digest.hexdigest()[:12]
    reference = f"{REPOSITORY}:{tag}"
    with _one_builder():
        try:
            client.images.get(reference)
        except ImageNotFound:
            _build(client, argv, tag)
    return reference


@contextlib.contextmanager
def _one_builder() -> Iterator[None]:
    """Let the second of two simulators that start at once wait for the first one's image."""
    path = Path(tempfile.gettempdir(), f"labctl-guest-{os.getuid()}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _build(client: DockerClient, argv: list[str], tag: str) -> None:
    if shutil.which("mmdebstrap") is None:
        raise GuestError(
            "mmdebstrap, which builds the guests' Debian, is not installed here: "
            "run 'apt-get install mmdebstrap uidmap' and try again"
        )
    _log.info("building the guest image %s:%s: about a minute, once", REPOSITORY, tag)
    with tempfile.NamedTemporaryFile(prefix="labctl-guest-", suffix=".tar") as tree:
        done = subprocess.run(argv, check=False, stdout=tree, stderr=subprocess.PIPE, cwd="/")
        if done.returncode:
            last = "\n".join(done.stderr.decode(errors="replace").splitlines()[-12:])
            raise GuestError(
                f"mmdebstrap could not build the guests' Debian (exit {done.returncode}). It needs "
                "this machine's apt mirrors and, as an ordinary user, the package uidmap with an "
                f"entry in /etc/subuid and /etc/subgid. Its last lines:\n{last}"
            )
        changes = ['CMD ["/usr/lib/guest-tools/guest-init"]', "ENV container=docker"]
        client.api.import_image_from_file(tree.name, REPOSITORY, tag, changes)
    _log.info("the guest image %s:%s is ready", REPOSITORY, tag)


def build_argv(sources: tuple[str, ...]) -> list[str]:
    """Build the mmdebstrap command; with the files it names, it is the recipe."""
    # mmdebstrap does not read this machine's apt.conf, and its mirrors may need a proxy.
    settings = _run("apt-config dump Acquire::http Acquire::https").splitlines()
    folders = " ".join(sorted({f'"$1"{Path(path).parent}' for path in _FILES.values()}))
    hooks = [
        f'mkdir -p {folders} "$1"/var/lib/guest-tools',
        *(f"upload {shlex.quote(str(_local(name)))} {path}" for name, path in _FILES.items()),
        _FINISH,
    ]
    return [
        *("mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(PACKAGES)}"),
        *(f"--aptopt={line.rstrip(';')}" for line in settings if re.search('::Proxy.* ".+"', line)),
        *(f"--customize-hook={hook}" for hook in hooks),
        *(SUITE, "-", *sources),
    ]


def list_sources(uris: str) -> tuple[str, ...]:
    """List apt lines for Debian 13 on the mirrors from which this machine takes its own Debian.

    Args:
        uris: what ``apt-get --print-uris update`` prints; mirrors of other distributions in it are
            ignored. Without a Debian one, Debian's own mirrors are used.
    """
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", SUITE)
    pattern = rf"'(\S+)/dists/(?:{codename}|{SUITE}|stable)(|-updates|-security)/main/binary-"
    mirrors = {suffix: _resolve_mirror(uri) for uri, suffix in re.findall(pattern, uris)}
    mirrors.setdefault("", "http://deb.debian.org/debian")
    mirrors.setdefault("-security", "http://security.debian.org/debian-security")
    return tuple(f"deb {mirrors[suffix]} {SUITE}{suffix} main" for suffix in sorted(mirrors))


def _resolve_mirror(uri: str) -> str:
    """Debian's cloud images name a file with the mirror, which a guest does not have."""
    path = Path(uri.removeprefix("mirror+file:"))
    return path.read_text(encoding="utf-8").split()[0] if path.is_absolute() else uri


def _local(name: str) -> Path:
    return Path(__file__).with_name("guest") / name


def _run(command: str) -> str:
    try:
        return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise GuestError(
            f"'{command}' does not run here ({error}); guests are built from this machine's "
            "apt mirrors, which needs Debian or a relative of it"
        ) from error
