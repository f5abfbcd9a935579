"""The guest's half of the stand-in for VMware Tools; runs on the guest's own Python alone."""

import contextlib
import ctypes
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

KEEP = "/var/lib/guest-tools"
SOCKET = "/dev/hypervisor/rpc.sock"
HEARTBEAT_S = 5
QUIET_S = 0.3
DATASOURCE_ENV = Path("/run/guestinfo.env")
DATASOURCE_KEYS = ("metadata", "userdata", "vendordata")
# RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR of linux/rtnetlink.h
NETWORK_CHANGES = 0x1 | 0x10 | 0x100
# IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE of linux/inotify.h
FILE_CHANGES = 0x8 | 0x80 | 0x100
KEPT_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def call(request: str) -> tuple[bool, str]:
    """Send one request; return whether it succeeded and the text of the answer."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(30)
        channel.connect(SOCKET)
        channel.sendall(request.encode("utf-8", "surrogateescape"))
        channel.shutdown(socket.SHUT_WR)
        reply = b"".join(iter(lambda: channel.recv(65536), b""))
    verdict, _, text = reply.decode("utf-8", "surrogateescape").partition(" ")
    return verdict == "1", text


def rpc(arguments: list[str]) -> int:
    """Behave as open-vm-tools' vmware-rpctool: text and 0, or the reason and 1."""
    if not arguments:
        sys.stderr.write("rpctool syntax:\n\n  rpctool <text>\n\n")
        return 1
    try:
        succeeded, text = call(arguments[0])
    except OSError:
        succeeded, text = False, "Failed sending message to VMware."
    (sys.stdout if succeeded else sys.stderr).write(text + "\n")
    return 0 if succeeded else 1


def write_datasource_env(_arguments: list[str]) -> int:
    """Write what cloud-init's VMware datasource reads when its transport is the environment."""
    escapes = str.maketrans({character: "\\" + character for character in '\\"`$'})
    lines = ['VMX_GUESTINFO="1"\n']
    for key in (name + suffix for name in DATASOURCE_KEYS for suffix in ("", ".encoding")):
        succeeded, text = call("info-get guestinfo." + key)
        if succeeded and text:
            variable = "VMX_GUESTINFO_" + key.upper().replace(".", "_")
            lines.append(f'{variable}="{text.translate(escapes)}"\n')
    if len(lines) > 1:
        DATASOURCE_ENV.touch(0o600)
        DATASOURCE_ENV.write_text("".join(lines), encoding="utf-8")
    return 0


def build_report(links: list[dict[str, Any]], hostname: str) -> dict[str, Any]:
    """Build a heartbeat from ``ip -j address``; like a real guest's it includes bridges."""
    nics = [
        {
            "name": link["ifname"],
            "mac": link.get("address"),
            "addresses": [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]],
        }
        for link in links
        if link.get("link_type") != "loopback" and not link["ifname"].startswith("veth")
    ]
    return {"hostname": hostname, "nics": nics}


def serve(_arguments: list[str]) -> int:
    """Report every few seconds and at every change of the network or the hostname."""
    network = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    network.setblocking(False)
    network.bind((0, NETWORK_CHANGES))
    libc = ctypes.CDLL(None, use_errno=True)
    files = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    libc.inotify_add_watch(files, b"/etc", FILE_CHANGES)
    changes = [network.fileno(), *([files] if files >= 0 else [])]
    while True:
        # Whoever copies this disk may lose these files; see guest-init.
        kept = [path for path in KEPT_FILES if os.path.lexists(path)]
        subprocess.run(["/usr/bin/cp", "-a", "--remove-destination", *kept, KEEP], check=False)
        shown = subprocess.run(["/usr/sbin/ip", "-j", "address"], check=True, capture_output=True)
        report = build_report(json.loads(shown.stdout), socket.gethostname())
        try:
            call("tools.report " + json.dumps(report))
        except OSError as error:
            sys.stderr.write(f"no answer from the hypervisor: {error}\n")
        wait_for_change(changes)


def wait_for_change(changes: list[int]) -> None:
    """Return after a change, or when the next heartbeat is due."""
    patience_s: float = HEARTBEAT_S
    # Changes come in bursts: one report when a burst is over, at the latest after a few seconds.
    for _ in range(10):
        ready = select.select(changes, [], [], patience_s)[0]
        if not ready:
            return
        patience_s = QUIET_S
        for change in ready:
            with contextlib.suppress(OSError):  # so many changes that the kernel dropped some
                os.read(change, 1 << 20)


if __name__ == "__main__":
    COMMANDS = {"rpc": rpc, "datasource-env": write_datasource_env, "serve": serve}
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
