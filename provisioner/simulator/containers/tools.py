"""The host's half of the stand-in for VMware Tools: one UNIX socket and one thread per guest.

What arrives comes from a machine where somebody else is root: every size is bounded, a slow or
flooding guest can only delay itself, and nothing it sends becomes a path or a command.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from provisioner.simulator.guests import GuestNic, GuestState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provisioner.simulator.guests import ToolsCallbacks

_log = logging.getLogger(__name__)

SOCKET_NAME = "rpc.sock"
REQUEST_MAX_BYTES = 64 * 1024  # GuestRPC's own limit for one message
GUESTINFO_MAX_BYTES = 1024 * 1024  # the default of the VM option tools.setInfo.sizeLimit
REQUEST_DEADLINE_S = 5.0
PAUSE_S = 0.005  # between requests: a flood costs the host little
HEARTBEAT_LOST_S = 30.0
_KEY = re.compile(r"guestinfo\.[A-Za-z0-9._-]{1,200}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_HOSTNAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_NIC_NAME = re.compile(r"[\x21-\x7e]{1,15}")
_ADDRESS = re.compile(r"[0-9a-fA-F.:]{2,45}/\d{1,3}")
# Everything XML 1.0 cannot carry would break the vCenter's answers for everybody.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAX_NICS, _MAX_ADDRESSES = 64, 32


class RequestRefusedError(Exception):
    """The guest does not get what it asked for; the text is its answer."""


class ToolsServer:
    """Serves one guest while it is powered on.

    Args:
        folder: where the socket appears; the guest sees this folder.
        boot_settings: what the guest's first process asks for before it starts anything.
        callbacks: the VM's side.
        on_reboot: called when the guest announces that its next stop is a reboot.
    """

    def __init__(
        self,
        folder: Path,
        boot_settings: str,
        callbacks: ToolsCallbacks,
        on_reboot: Callable[[], None],
    ) -> None:
        self._boot_settings = boot_settings
        self._callbacks = callbacks
        self._on_reboot = on_reboot
        self._sizes: dict[str, int] = {}
        self._last: GuestState | None = None
        self._heard_at_s = 0.0
        self._stopping = threading.Event()
        self._listener = _listen(folder)
        self._thread = threading.Thread(target=self._serve, name=folder.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; no callback comes after it."""
        self._stopping.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        self._listener.settimeout(0.5)
        while not self._stopping.wait(PAUSE_S):
            if self._last and time.monotonic() - self._heard_at_s > HEARTBEAT_LOST_S:
                self._callbacks.guest_state(GuestState(powered_on=True, tools_running=False))
                self._last = None
            with contextlib.suppress(OSError):  # nobody calls, or hung up: its own affair
                connection, _ = self._listener.accept()
                with connection:
                    reply = self._answer(connection)
                    connection.settimeout(REQUEST_DEADLINE_S)
                    connection.sendall(reply.encode("utf-8", "surrogateescape"))

    def _answer(self, connection: socket.socket) -> str:
        commands = {
            "info-get": self._info_get,
            "info-set": self._info_set,
            "tools.report": self._report,
            "tools.reboot": self._reboot,
            "simulator.boot": lambda _: self._boot_settings,
        }
        try:
            command, _, rest = _receive(connection).partition(" ")
            if command not in commands:
                raise RequestRefusedError("Unknown command")  # noqa: TRY301 - an answer
            return "1 " + commands[command](rest)
        except RequestRefusedError as refusal:
            return f"0 {refusal}"

    def _info_get(self, key: str) -> str:
        value = self._callbacks.info_get(_check_key(key.strip()))
        if value is None:
            raise RequestRefusedError("No value found")
        return value

    def _info_set(self, rest: str) -> str:
        key, _, value = rest.partition(" ")
        sizes = self._sizes | {_check_key(key): len(key) + len(value)}
        if sum(sizes.values()) > GUESTINFO_MAX_BYTES:
            raise RequestRefusedError("Guestinfo data is too large")
        self._callbacks.info_set(key, value)
        self._sizes = sizes
        return ""

    def _report(self, text: str) -> str:
        self._last = parse_report(text)
        self._heard_at_s = time.monotonic()
        self._callbacks.guest_state(self._last)
        return ""

    def _reboot(self, _rest: str) -> str:
        self._on_reboot()
        return ""


def parse_report(text: str) -> GuestState:
    """Parse a guest's heartbeat.

    Raises:
        RequestRefusedError: not a report, or larger than a machine can honestly be.
    """
    try:
        report = json.loads(text)
        hostname, nics = report["hostname"], report["nics"]
        if len(nics) > _MAX_NICS or not _HOSTNAME.fullmatch(hostname):
            raise ValueError(hostname)  # noqa: TRY301 - one answer for every fault
        parsed = tuple(map(_parse_nic, nics))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RequestRefusedError("Bad report") from error
    return GuestState(powered_on=True, tools_running=True, hostname=hostname, nics=parsed)


def _parse_nic(nic: dict[str, Any]) -> GuestNic:
    name, addresses = nic["name"], nic["addresses"]
    mac = str(nic["mac"]).lower()
    if not _NIC_NAME.fullmatch(name) or len(addresses) > _MAX_ADDRESSES:
        raise ValueError(name)
    if not all(map(_ADDRESS.fullmatch, addresses)):
        raise ValueError(name)
    texts = tuple(str(ip_interface(each)) for each in addresses)
    return GuestNic(mac if _MAC.fullmatch(mac) else None, name, texts)


def _check_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise RequestRefusedError("Permission denied")
    return key


def _receive(connection: socket.socket) -> str:
    """Receive up to the guest's end of file, the size limit or the deadline."""
    deadline_s = time.monotonic() + REQUEST_DEADLINE_S
    received = b""
    while len(received) <= REQUEST_MAX_BYTES and (left_s := deadline_s - time.monotonic()) > 0:
        connection.settimeout(left_s)
        chunk = connection.recv(REQUEST_MAX_BYTES)
        if not chunk:
            return _UNPRINTABLE.sub("?", received.decode("utf-8", "replace"))
        received += chunk
    raise RequestRefusedError("Request is too long or too slow")


def _listen(folder: Path) -> socket.socket:
    """Listen on a socket in the folder, by a path short enough however long the folder's is."""
    listener = socket.socket(socket.AF_UNIX)
    (folder / SOCKET_NAME).unlink(missing_ok=True)
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        listener.bind(f"/proc/self/fd/{handle}/{SOCKET_NAME}")
    finally:
        os.close(handle)
    # Any user of the guest may talk to its Tools, as on a real one; the folder above is private.
    (folder / SOCKET_NAME).chmod(0o666)
    listener.listen(8)
    return listener
