"""Disks and hardware: power cycles, snapshots, clones, and what is left after destroy."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from provisioner.simulator.containers import ContainerGuests
from provisioner.simulator.guests import GuestError, GuestState, NicHardware
from tests.guests.conftest import wait_until, with_hardware

if TYPE_CHECKING:
    from pathlib import Path

    from tests.guests.conftest import Bench, Guest


def layers(bench: Bench, vm_id: str) -> list[str]:
    container = bench.client.containers.get(bench.runtime._engine.name_of(vm_id))
    return list(bench.client.images.get(container.attrs["Image"]).attrs["RootFS"]["Layers"])


BOOTED_AT = "cut -d' ' -f22 /proc/1/stat"


def test_a_power_cycle_keeps_disk_address_and_identity(bench: Bench, fresh: Guest) -> None:
    read = "cat /etc/machine-id /etc/hostname /etc/hosts /etc/ssh/*.pub /home/tester/note"
    fresh.run("echo kept > ~/note; sudo mkdir -p /var/lib/docker; sudo touch /var/lib/docker/kept")
    fresh.run("echo '# by the site' | sudo tee -a /etc/resolv.conf")
    before, address, booted_at = fresh.run(read), fresh.address(), fresh.run(BOOTED_AT)
    for stop in (bench.runtime.power_off, bench.runtime.shutdown):
        stop(fresh.hardware.vm_id)
        assert fresh.ssh("true").returncode == 255  # off is off
        fresh.power_on()
        assert fresh.run(read) == before
        assert fresh.address() == address
        assert fresh.run("ls /var/lib/docker") == "kept"
        assert fresh.run(BOOTED_AT) != booted_at  # it did boot in between
        assert all(state.powered_on for state in fresh.states)
        resolvers = fresh.run("cat /etc/resolv.conf").splitlines()
        assert "127." not in "".join(resolvers)
        # The site's own file stays; one that would leave the guest without DNS does not.
        assert (resolvers[-1] == "# by the site") == (stop == bench.runtime.power_off)
        fresh.run("echo nameserver 127.0.0.53 | sudo tee /etc/resolv.conf")


def test_hardware_changed_while_off_takes_effect(bench: Bench, fresh: Guest) -> None:
    vm_id = fresh.hardware.vm_id
    limit = "cat /sys/fs/cgroup/{memory/memory.limit_in_bytes,memory.max} 2>/dev/null; true"
    quota = "cut -d' ' -f1 /sys/fs/cgroup/{cpu/cpu.cfs_quota_us,cpu.max} 2>/dev/null; true"
    assert fresh.run(limit) == str(1024 << 20)
    fresh.run("echo kept > ~/note")
    bench.runtime.shutdown(vm_id)
    nics = (NicHardware("00:50:56:99:00:01", "lab"), NicHardware("00:50:56:99:00:02", "sealed"))
    with_hardware(fresh, memory_mib=1536, cpus=3, nics=nics).power_on()
    assert fresh.run(limit) == str(1536 << 20)
    assert fresh.run(quota) == "300000"
    assert fresh.run("cat ~/note") == "kept"
    wait_until(lambda: fresh.address(1))
    assert fresh.ssh("true", nic=1).returncode == 0
    assert sorted(nic.mac or "" for nic in fresh.states[-1].nics) == [nic.mac for nic in nics]
    bench.runtime.power_off(vm_id)
    off = (nics[0], NicHardware(nics[1].mac, "sealed", connected=False))
    with_hardware(fresh, nics=off).power_on()
    assert [nic.mac for nic in fresh.states[-1].nics] == [nics[0].mac]


# overlay2 keeps its notes in trusted.* attributes and in device nodes.
MAKE_DOCKER_DATA = """cd /var/lib/docker && echo old > data && mknod whiteout c 0 0
python3 -c "import os; os.setxattr('data', 'trusted.note', b'y')"
"""
READ_DOCKER_DATA = """cd /var/lib/docker && cat data && stat -c %F whiteout
python3 -c "import os; print(os.getxattr('data', 'trusted.note').decode())"
"""
SPOIL = "cd /var/lib/docker && echo new > data && rm whiteout; echo x > /etc/hostname"


@pytest.mark.parametrize("running", [True, False], ids=["powered on", "powered off"])
def test_a_revert_brings_everything_back(bench: Bench, fresh: Guest, *, running: bool) -> None:
    vm_id = fresh.hardware.vm_id
    fresh.run("echo old > ~/note; echo 192.0.2.1 old | sudo tee -a /etc/hosts")
    fresh.run_as_root(MAKE_DOCKER_DATA)
    identity = fresh.run("cat /etc/hostname /etc/hosts /etc/machine-id")
    if not running:
        bench.runtime.shutdown(vm_id)
    disk = bench.runtime.snapshot(vm_id, "snapshot-1")
    if not running:
        fresh.power_on()
    fresh.run("echo new > ~/note")
    fresh.run_as_root(SPOIL)
    bench.runtime.revert(vm_id, disk)
    assert fresh.ssh("true").returncode == 255
    fresh.power_on()
    assert fresh.run("cat ~/note") == "old"
    assert fresh.run_as_root(READ_DOCKER_DATA) == "old\ncharacter special file\ny"
    assert fresh.run("cat /etc/hostname /etc/hosts /etc/machine-id") == identity
    bench.runtime.remove_snapshot(disk)
    with pytest.raises(GuestError, match="no disk"):
        bench.runtime.revert(vm_id, disk)


def test_a_clone_shares_layers_and_outlives_its_source(bench: Bench, fresh: Guest) -> None:
    vm_id = fresh.hardware.vm_id
    fresh.run("echo source > ~/note; sudo sh -c 'echo source > /var/lib/docker/data'")
    disk = bench.runtime.snapshot(vm_id, "snapshot-2")
    fresh.run("echo later > ~/note")
    linked, full = bench.clone(disk), bench.clone(vm_id)
    base = layers(bench, vm_id)
    assert layers(bench, linked.hardware.vm_id)[: len(base)] == base
    assert layers(bench, full.hardware.vm_id)[: len(base)] == base
    bench.runtime.destroy(vm_id)
    read = "cat ~/note; sudo cat /var/lib/docker/data; hostname"
    assert linked.power_on().run(read).split() == ["source", "source", linked.hardware.name]
    assert full.power_on().run(read).split() == ["later", "source", full.hardware.name]
    for each in (linked, full):
        bench.runtime.destroy(each.hardware.vm_id)
    mine = [f"{bench.runtime._engine.prefix}:{kind}" for kind in ("clone", "snapshot")]
    assert [name for name in bench.remains() if name.startswith(tuple(mine))] == []


def test_destroy_leaves_nothing_and_may_be_repeated(bench: Bench) -> None:
    guest = bench.clone()
    vm_id = guest.hardware.vm_id
    bench.runtime.power_on(guest.hardware, guest)
    bench.runtime.snapshot(vm_id, "snapshot-3")
    bench.runtime.suspend(vm_id)
    before = [name for name in bench.remains() if f"{vm_id}" in name]
    assert len(before) == 4, before  # container, volume; the snapshot's image and volume
    bench.runtime.destroy(vm_id)
    bench.runtime.destroy(vm_id)
    assert [name for name in bench.remains() if f"{vm_id}" in name] == []
    assert not (bench.state_dir / "guests" / vm_id).exists()


def test_suspend_and_resume(bench: Bench, fresh: Guest) -> None:
    fresh.run("echo here > /dev/shm/memory")  # not on the disk
    bench.runtime.suspend(fresh.hardware.vm_id)
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            ["bash", "-c", f"read -r banner < /dev/tcp/{fresh.address()}/22"],
            check=False,
            timeout=2,
        )
    bench.runtime.resume(fresh.hardware.vm_id)
    assert fresh.run("cat /dev/shm/memory") == "here"


def test_a_guest_that_halts_is_reported_and_a_reboot_is_not(bench: Bench, fresh: Guest) -> None:
    booted_at = fresh.run(BOOTED_AT)
    fresh.ssh("sudo systemctl reboot")
    wait_until(lambda: fresh.ssh(BOOTED_AT).stdout.strip() not in {"", booted_at})
    assert all(state.powered_on for state in fresh.states)
    fresh.ssh("sudo systemctl poweroff")
    wait_until(lambda: not fresh.states[-1].powered_on)
    assert fresh.states[-1] == GuestState(powered_on=False, tools_running=False)
    bench.runtime.power_off(fresh.hardware.vm_id)  # already off: nothing to do
    fresh.power_on()


KILLED = """
import sys
from pathlib import Path
from provisioner.simulator.containers import ContainerGuests
from tests.guests.conftest import Guest
from provisioner.simulator.guests import GuestHardware, NicHardware
runtime = ContainerGuests(Path(sys.argv[1]))
runtime.ensure_network("lab", uplink=True)
disk = runtime.clone_disk(runtime.ensure_template("debian-13"), "vm-1")
nics = (NicHardware("00:50:56:01:02:03", "lab"),)
hardware = GuestHardware("vm-1", "x", "i", "b", 1, 512, disk, nics)
runtime.power_on(hardware, Guest(runtime, hardware, Path()))
runtime.snapshot("vm-1", "s1")
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_next_start_sweeps_what_a_killed_simulator_left(bench: Bench, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stdin.close()
    standing = bench.remains()
    after = ContainerGuests(tmp_path)
    try:
        found = type(bench)(after, tmp_path, bench.key, bench.client).remains()
    finally:
        after.close()
    assert found == []
    assert sorted(bench.remains()) == sorted(
        standing
    )  # another simulator's things are not ours to touch


def test_two_simulators_get_different_subnets(bench: Bench, tmp_path: Path) -> None:
    other = ContainerGuests(tmp_path)
    try:
        other.ensure_network("lab", uplink=True)
        _, theirs = other._networks.allocate("lab", "vm-1")
        _, ours = bench.runtime._networks.allocate("lab", "vm-probe")
    finally:
        other.close()
        bench.runtime._networks.release("vm-probe")
    assert theirs != ours


@pytest.mark.parametrize("vm_id", ["", "../x", "a/b", "-rf", "x" * 99, "a b"])
def test_ids_that_could_be_paths_are_refused(bench: Bench, vm_id: str) -> None:
    with pytest.raises(GuestError, match="no id"):
        bench.runtime.clone_disk(bench.runtime.ensure_template("debian-13"), vm_id)


def test_impossible_hardware_is_refused(bench: Bench) -> None:
    guest = bench.clone(portgroups=("lab", "lab"))
    with pytest.raises(GuestError, match="two NICs in portgroup 'lab'"):
        bench.runtime.power_on(guest.hardware, guest)
    with pytest.raises(GuestError, match="portgroup 'nowhere' has no network"):
        bench.runtime.power_on(
            with_hardware(guest, nics=(NicHardware("00:50:56:00:00:01", "nowhere"),)).hardware,
            guest,
        )
    bench.runtime.destroy(guest.hardware.vm_id)
