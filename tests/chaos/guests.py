"""Guests that are no machines, seen from both sides: what vCenter runs, and what SSH reaches.

What a guest keeps on its disk outlives the worker, as on a real one: it lies in a folder.
"""

from __future__ import annotations

import base64
import re
import shlex
import threading
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from provisioner.errors import GuestUnreachableError, HostKeyError
from provisioner.model.observed import ShellResult
from provisioner.ports import ShellTarget
from provisioner.rules.ssh import ADMIN_USER
from provisioner.rules.userdata import HOST_KEY_INFO
from provisioner.simulator.guests import GuestHardware, NullGuests, ToolsCallbacks
from tests.fakes.samples import KEY

BOOT_S = 0.02


class SpeakingGuests(NullGuests):
    """Null guests that publish their host key at each boot, as the real userdata tells them to."""

    def __init__(self) -> None:
        super().__init__(boot_s=BOOT_S)

    def power_on(self, vm: GuestHardware, tools: ToolsCallbacks) -> None:
        super().power_on(vm, tools)
        userdata = base64.b64decode(vm.guestinfo.get("guestinfo.userdata", "")).decode()
        if found := re.search(rf"{HOST_KEY_INFO} (\w+)", userdata):
            text = f"{found[1]} {KEY}"
            told = threading.Timer(BOOT_S, tools.info_set, [HOST_KEY_INFO, text])
            told.daemon = True
            told.start()


class LastingShell:
    """The GuestShell port to such guests. Every command works, and changes only what is here.

    Args:
        folder: what the guests keep: the key that lets a hire in, `<guest>/<login>`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wait_for_login(self, target: ShellTarget, timeout_s: float) -> None:
        del timeout_s
        if target.host_key != KEY:
            raise HostKeyError(f"guest {target.alias} answers with another host key")
        if not target.address.startswith("198.18."):
            raise GuestUnreachableError(f"guest {target.alias} has no address {target.address}")
        place = self._folder / target.alias / target.user
        if target.user != ADMIN_USER and place.read_text().strip() != _read_public(target.key_file):
            raise GuestUnreachableError(f"guest {target.alias} does not let {target.user} in")

    def run(
        self, target: ShellTarget, command: str, *, stdin: str = "", timeout_s: float
    ) -> ShellResult:
        self.wait_for_login(target, timeout_s)
        if "/dev/stdin" in command:
            place = self._folder / target.alias / Path(shlex.split(command)[-1]).name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(stdin)
        elif "rm -f" in command:
            (self._folder / target.alias / Path(shlex.split(command)[-1]).name).unlink(
                missing_ok=True
            )
        return ShellResult(0, "as it should be\n", "")


def _read_public(key_file: str) -> str:
    private = load_ssh_private_key(Path(key_file).read_bytes(), None)
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
