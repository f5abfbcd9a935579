"""A guest boots like a machine: systemd, cloud-init, SSH, Tools, network."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.guests.conftest import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.conftest import Bench, Guest


def test_systemd_runs_with_no_failed_unit(guest: Guest) -> None:
    assert guest.run("ps -o comm= -p 1") == "systemd"
    assert guest.run("systemctl is-system-running --wait") == "running"
    assert guest.run("systemctl --failed --no-legend") == ""
    assert guest.run("busctl --system list >/dev/null && echo bus") == "bus"


def test_the_template_is_bare(guest: Guest) -> None:
    assert guest.run("python3 -c 'import apt; print(1)'") == "1"
    assert guest.run("for i in docker gcc cc mlflow; do command -v $i; done; true") == ""


def test_cloud_init_takes_the_vmware_datasource(guest: Guest) -> None:
    result = json.loads(guest.run("cat /run/cloud-init/result.json"))["v1"]
    assert result == {"datasource": "DataSourceVMware [seed=envvar]", "errors": []}
    assert guest.run("hostname") == guest.hardware.name
    assert guest.run("sudo cloud-init status --format json | grep -c WARNING; true") == "0"


def test_only_the_key_of_the_userdata_logs_in(guest: Guest, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    assert guest.ssh("true").returncode == 0
    assert "Permission denied" in guest.ssh("true", key=other).stderr


def test_the_guest_made_its_own_identity(bench: Bench, guest: Guest) -> None:
    other = bench.clone().power_on()
    read = "cat /etc/ssh/ssh_host_*.pub /etc/machine-id"
    mine, others = guest.run(read).split(), other.run(read).split()
    bench.runtime.destroy(other.hardware.vm_id)
    assert mine[0] == others[0] == "ssh-ed25519"
    assert len(mine) == 4  # one key: type, key, comment; then the machine id
    assert mine[1] != others[1]
    assert mine[3] != others[3]


def test_nics_are_reported_by_mac_bridges_too(guest: Guest) -> None:
    guest.run(
        "sudo ip link add docker0 type bridge && sudo ip address add 172.30.0.1/16 dev docker0"
    )
    docker0 = guest.run("cat /sys/class/net/docker0/address")
    wait_until(lambda: any(nic.mac == docker0 and nic.addresses for nic in guest.states[-1].nics))
    found = {nic.mac: nic for nic in guest.states[-1].nics}
    assert found[docker0].addresses == ("172.30.0.1/16",)
    assert found[guest.hardware.nics[0].mac].addresses[0].startswith("198.1")
    assert guest.run("cat /sys/class/net/eth0/address") == guest.hardware.nics[0].mac
    assert guest.states[-1].tools_running
    assert guest.states[-1].hostname == guest.hardware.name
    guest.run("sudo ip link delete docker0")


def test_resolver_and_hosts_are_ordinary_files(guest: Guest) -> None:
    assert re.findall(r"nameserver (\S+)", guest.run("cat /etc/resolv.conf"))
    assert "127.0.0." not in guest.run("cat /etc/resolv.conf")
    for name in ("resolv.conf", "hosts", "hostname"):
        replaced = guest.run(
            f"cd /etc && sudo cp -a {name} {name}.new && sudo mv {name}.new {name} && cat {name}"
        )
        assert replaced


@pytest.mark.parametrize(
    ("request_text", "code", "out", "err"),
    [
        ("info-get guestinfo.missing", 1, "", "No value found"),
        ("info-get guestinfo.metadata.encoding", 0, "base64", ""),
        ("info-set guestinfo.labctl.test two words", 0, "", ""),
        ("info-set vmx.something 1", 1, "", "Permission denied"),
        ("info-get ../../etc/shadow", 1, "", "Permission denied"),
        ("log hello", 1, "", "Unknown command"),
    ],
)
def test_rpctool_answers_as_the_real_one(
    guest: Guest, request_text: str, code: int, out: str, err: str
) -> None:
    done = guest.ssh(f"vmware-rpctool '{request_text}'")
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (code, out, err)


def test_info_set_reaches_the_vm(guest: Guest) -> None:
    assert "guestinfo.seen" not in guest.info
    guest.run("vmware-rpctool 'info-set guestinfo.seen ssh-ed25519 AAAA root@x'")
    assert guest.info["guestinfo.seen"] == "ssh-ed25519 AAAA root@x"
    assert guest.run("vmware-rpctool 'info-get guestinfo.seen'") == "ssh-ed25519 AAAA root@x"


def test_a_sealed_portgroup_reaches_only_the_host(bench: Bench, guest: Guest) -> None:
    sealed = bench.clone(portgroups=("sealed",)).power_on()
    target = guest.run("awk '/^nameserver/ { print $2; exit }' /etc/resolv.conf")
    probe = f"timeout 2 bash -c '</dev/tcp/{target}/53'"
    open_, closed = guest.ssh(probe), sealed.ssh(probe)
    across = sealed.ssh(f"timeout 2 bash -c '</dev/tcp/{guest.address()}/22'")
    bench.runtime.destroy(sealed.hardware.vm_id)
    assert open_.returncode == 0, open_.stderr
    assert closed.returncode != 0
    assert across.returncode != 0


def test_a_link_is_cut_and_connected_again(bench: Bench, fresh: Guest) -> None:
    (nic,), address = fresh.hardware.nics, fresh.address()
    route = fresh.run("ip route show default")
    bench.runtime.set_links(replace(fresh.hardware, nics=(replace(nic, connected=False),)))
    wait_until(lambda: not fresh.address())
    assert fresh.states[-1].tools_running, "Tools need no network"
    bench.runtime.set_links(fresh.hardware)
    wait_until(lambda: fresh.address() == address)
    assert fresh.run("ip route show default").split()[:3] == route.split()[:3]


LOAD_MODULE = """python3 -c '
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 313, "aarch64": 273}[platform.machine()]  # finit_module
libc.syscall(number, -1, b"", 0)  # allowed, it would answer EBADF
sys.exit(os.strerror(ctypes.get_errno()))'
"""
# What a guest's root is refused, and the words it is refused with.
HOST_HARM = {
    "set the clock": ("date -s '+1 hour'", "not permitted"),
    "slew the clock": (
        "python3 -c 'import time; time.clock_settime(0, time.time())'",
        "not permitted",
    ),
    "kernel settings": ("sysctl -w kernel.pid_max=99999", "permission denied"),
    "memory settings": ("sysctl -w vm.swappiness=1", "permission denied"),
    "file settings": ("sysctl -w fs.file-max=99999", "permission denied"),
    "core pattern": ("tee /proc/sys/kernel/core_pattern </dev/null", "read-only file system"),
    "sysrq": ("tee /proc/sysrq-trigger </dev/null", "read-only file system|no such file"),
    "load a module": (LOAD_MODULE, "not permitted"),
    "read a disk": (
        "sh -c 'mknod /root/disk b {major} {minor} && dd if=/root/disk count=1 of=/dev/null'",
        "'/root/disk': operation not permitted",
    ),
    "memory": ("dd if=/dev/mem count=1 of=/dev/null", "no such file"),
    "memory by a node of its own": (
        "sh -c 'mknod /root/mem c 1 1; dd if=/root/mem count=1 of=/dev/null'",
        "'/root/mem': operation not permitted",
    ),
    "kernel log": ("dmesg", "not permitted"),
    "swap": (
        "sh -c 'cd /root; dd if=/dev/zero of=swap bs=64k count=8; mkswap swap; swapon swap'",
        "swapon failed: operation not permitted",
    ),
}


@pytest.mark.parametrize("harm", HOST_HARM)
def test_the_host_is_out_of_ordinary_reach(guest: Guest, harm: str) -> None:
    command, refusal = HOST_HARM[harm]
    partitions = guest.run("cat /proc/partitions").split()[4:]
    done = guest.ssh(
        "sudo " + command.replace("{major}", partitions[0]).replace("{minor}", partitions[1])
    )
    assert done.returncode != 0, done.stdout
    assert re.search(refusal, done.stderr.lower()), done.stderr


def test_what_a_guest_may_do_still_works(guest: Guest) -> None:
    """The negative control of the table above: the same tools succeed on the guest's own things."""
    guest.run("sudo sysctl -w net.ipv4.ip_forward=1")
    guest.run("sudo sh -c 'mknod /root/null c 1 3 && dd if=/root/null count=1 of=/dev/null'")
    guest.run("sudo mount -t tmpfs none /mnt && sudo umount /mnt")
    guest.run("sudo ip link add probe type bridge && sudo ip link delete probe")
