"""The host's half of the stand-in for VMware Tools: one UNIX socket and one thread per guest.

What arrives comes from a machine where somebody else is root: every size is bounded, a slow or
flooding guest can only delay itself, and nothing it sends becomes a path or a command.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

from provisioner.simulator.guests import GuestNic, GuestState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provisioner.simulator.guests import ToolsCallbacks

_log = logging.getLogger(__name__)

SOCKET_NAME = "rpc.sock"
REQUEST_MAX_BYTES = 64 * 1024  # as the real channel: GuestRPC's limit for one message
GUESTINFO_MAX_BYTES = 1024 * 1024  # vmx option tools.setInfo.sizeLimit, its default
REQUEST_DEADLINE_S = 5.0
PAUSE_S = 0.005  # between requests: a flood costs the host little
HEARTBEAT_LOST_S = 30.0
_KEY = re.compile(r"guestinfo\.[A-Za-z0-9._-]{1,200}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_HOSTNAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_NIC_NAME = re.compile(r"[\x21-\x7e]{1,15}")
_MAX_NICS, _MAX_ADDRESSES = 64, 32


class RequestRefusedError(Exception):
    """The guest asked for something it does not get; the text is the answer."""


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
        self._thread = threading.Thread(target=self._serve, name=f"tools {folder.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; returns when no callback can come any more."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        self._listener.settimeout(0.5)
        while not self._stopping.wait(PAUSE_S):
            self._check_heartbeat()
            with contextlib.suppress(OSError):  # a guest that hangs up is its own affair
                connection, _ = self._listener.accept()
                with connection:
                    self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            reply = "1 " + self._answer(_receive(connection))
        except RequestRefusedError as error:
            reply = f"0 {error}"
        except OSError:
            raise
        except Exception:  # outermost edge of this thread: one bad request must not end it
            _log.exception("a request of a guest failed")
            reply = "0 Internal error"
        connection.settimeout(REQUEST_DEADLINE_S)
        connection.sendall(reply.encode("utf-8", "surrogateescape"))

    def _answer(self, request: str) -> str:
        command, _, rest = request.partition(" ")
        commands = {
            "info-get": self._info_get,
            "info-set": self._info_set,
            "tools.report": self._report,
            "tools.reboot": self._reboot,
            "simulator.boot": lambda _: self._boot_settings,
        }
        if command not in commands:
            raise RequestRefusedError("Unknown command")
        return commands[command](rest)

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

    def _check_heartbeat(self) -> None:
        if self._last and time.monotonic() - self._heard_at_s > HEARTBEAT_LOST_S:
            silent = GuestState(True, False, self._last.hostname, self._last.nics)
            self._last = None
            self._callbacks.guest_state(silent)


def parse_report(text: str) -> GuestState:
    """Parse a guest's heartbeat; whatever is malformed makes the whole report refused.

    Raises:
        RequestRefusedError: not a report, or larger than a machine can honestly be.
    """
    try:
        report = json.loads(text)
        hostname, nics = report["hostname"], report["nics"]
        if len(nics) > _MAX_NICS or not _HOSTNAME.fullmatch(hostname):
            raise RequestRefusedError("Bad report")
        return GuestState(True, True, hostname, tuple(map(_parse_nic, nics)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestRefusedError("Bad report") from error


def _parse_nic(nic: dict[str, object]) -> GuestNic:
    mac, name, addresses = nic["mac"], nic["name"], nic["addresses"]
    if not (isinstance(name, str) and isinstance(addresses, list) and _NIC_NAME.fullmatch(name)):
        raise ValueError(name)
    valid_mac = mac.lower() if isinstance(mac, str) and _MAC.fullmatch(mac.lower()) else None
    parsed = tuple(str(ipaddress.ip_interface(each)) for each in addresses[:_MAX_ADDRESSES])
    return GuestNic(valid_mac, name, parsed)


def _check_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise RequestRefusedError("Permission denied")
    return key


def _receive(connection: socket.socket) -> str:
    deadline_s = time.monotonic() + REQUEST_DEADLINE_S
    received = b""
    while len(received) <= REQUEST_MAX_BYTES:
        connection.settimeout(max(0.01, deadline_s - time.monotonic()))
        chunk = connection.recv(REQUEST_MAX_BYTES)
        if not chunk:
            return received.decode("utf-8", "surrogateescape")
        received += chunk
        if time.monotonic() > deadline_s:
            break
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
