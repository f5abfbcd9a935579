"""The GuestRuntime on Docker: what powering, cloning and snapshots mean for a container."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from docker.errors import APIError, DockerException

from provisioner.simulator.containers.engine import (
    CONFLICT,
    LABEL,
    STOP_SIGNAL,
    VM_LABEL,
    Disk,
    Engine,
    connect,
    engine_edge,
)
from provisioner.simulator.containers.image import ensure_image
from provisioner.simulator.containers.networks import Networks, list_resolvers
from provisioner.simulator.containers.tools import ToolsServer
from provisioner.simulator.guests import GuestError, GuestState

if TYPE_CHECKING:
    from pathlib import Path

    from docker.models.containers import Container

    from provisioner.simulator.guests import GuestHardware, ToolsCallbacks

_log = logging.getLogger(__name__)

KILL_DEADLINE_S, SHUTDOWN_DEADLINE_S = 30, 90
_CPU_PERIOD_US = 100_000
_GIVE_MAC = (
    'ip link set address "$2" dev '
    """$(ip -o -4 address show to "$1" | awk '{ sub(/@.*/, "", $2); print $2; exit }')"""
)
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")


@dataclass(slots=True)
class _Running:
    tools: ToolsServer
    callbacks: ToolsCallbacks
    rebooting: bool = False


class ContainerGuests:
    """Runs the guests of one simulator; all it makes carries the label of its state folder.

    Args:
        state_dir: the simulator's private folder. Whatever an earlier simulator of the same folder
            left in the engine is removed first.

    Raises:
        GuestError: no Docker Engine answers, or this machine has no resolver guests could use.
    """

    def __init__(self, state_dir: Path) -> None:
        sim_id = hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:10]
        self._folder = state_dir.resolve() / "guests"
        self._client = connect()
        self._engine = Engine(self._client, sim_id)
        self._networks = Networks(self._client, self._engine.prefix, self._engine.labels)
        self._nameservers = [f"nameserver {each}" for each in list_resolvers()]
        self._lock = threading.Lock()
        self._template_lock = threading.Lock()
        self._template = ""
        self._machines: set[str] = set()
        self._running: dict[str, _Running] = {}
        self._snapshots: dict[str, tuple[str, Disk]] = {}
        self._sweep()
        self._events = self._client.events(
            decode=True, filters={"event": "die", "label": f"{LABEL}={sim_id}"}
        )
        self._watcher = threading.Thread(target=self._watch, name="guest events", daemon=True)
        self._watcher.start()

    def ensure_template(self, name: str) -> str:
        """Return the base disk; there is one Debian, whatever a template is called."""
        with self._template_lock, engine_edge(f"build the disk of template {name}"):
            self._template = self._template or ensure_image(self._client)
            return self._template

    def clone_disk(self, source_disk: str, vm_id: str) -> str:
        """Return a new disk for ``vm_id`` on the layers of a template, guest or snapshot."""
        with engine_edge(f"clone a disk for {vm_id}"):
            if source_disk not in self._machines:
                self._create(vm_id, self._get_disk(source_disk))
                return vm_id
            source = self._engine.capture(source_disk, f"clone-{vm_id}")
            try:
                self._create(vm_id, source)
            finally:
                self._engine.remove_disk(source)
            return vm_id

    def power_on(self, vm: GuestHardware, tools: ToolsCallbacks) -> None:
        """Start the guest with the hardware it has now."""
        with engine_edge(f"power on {vm.name}"):
            if vm.vm_id not in self._machines:
                self._create(vm.vm_id, self._get_disk(vm.disk))
            container = self._container(vm.vm_id)
            settings = self._connect_nics(container, vm) + self._nameservers
            container.update(
                mem_limit=f"{vm.memory_mib}m",
                memswap_limit=f"{vm.memory_mib}m",
                cpu_period=_CPU_PERIOD_US,
                cpu_quota=vm.cpus * _CPU_PERIOD_US,
            )
            folder = self._folder / vm.vm_id
            server = ToolsServer(
                folder, "\n".join(settings), tools, lambda: self._announce_reboot(vm.vm_id)
            )
            with self._lock:
                self._running[vm.vm_id] = _Running(server, tools)
            try:
                container.start()
            except BaseException:
                self._stop_tools(vm.vm_id)
                raise

    def set_links(self, vm: GuestHardware) -> None:
        """Connect and disconnect NICs of the running guest; a new link gets its MAC again."""
        with engine_edge(f"connect {vm.name}"):
            container = self._container(vm.vm_id)
            for line in self._connect_nics(container, vm):
                container.exec_run(["sh", "-c", _GIVE_MAC, *line.split()])

    def power_off(self, vm_id: str) -> None:
        """Pull the plug; the disk stays."""
        self._stop(vm_id, "SIGKILL", KILL_DEADLINE_S)

    def shutdown(self, vm_id: str) -> None:
        """Ask the guest's systemd to halt, and wait for it."""
        self._stop(vm_id, STOP_SIGNAL, SHUTDOWN_DEADLINE_S)

    def suspend(self, vm_id: str) -> None:
        """Freeze every process of the guest."""
        with engine_edge(f"suspend {vm_id}"):
            self._container(vm_id).pause()

    def resume(self, vm_id: str) -> None:
        """Thaw a suspended guest."""
        with engine_edge(f"resume {vm_id}"):
            self._container(vm_id).unpause()

    def snapshot(self, vm_id: str, snapshot_id: str) -> str:
        """Copy the disk of a guest, on or off, with its Docker data; return the copy's disk id."""
        if vm_id not in self._machines:  # never cloned, never ran: its disk is the template's
            return self.ensure_template(vm_id)
        disk_id = f"snapshot-{vm_id}-{_check_id(snapshot_id)}"
        with engine_edge(f"take snapshot {snapshot_id} of {vm_id}"):
            self._snapshots[disk_id] = vm_id, self._engine.capture(vm_id, disk_id)
        return disk_id

    def revert(self, vm_id: str, disk: str) -> None:
        """Replace the guest's disk by a snapshot's; the guest is powered off afterwards."""
        with engine_edge(f"revert {vm_id}"):
            source = self._get_disk(disk)
            self._remove(vm_id)
            self._create(vm_id, source)

    def remove_snapshot(self, disk: str) -> None:
        """Forget a snapshot's disk; an unknown one is gone already."""
        _, found = self._snapshots.pop(disk, ("", None))
        if found:
            with engine_edge(f"remove snapshot {disk}"):
                self._engine.remove_disk(found)

    def destroy(self, vm_id: str) -> None:
        """Remove the guest with its snapshots, volumes and layers that no clone needs."""
        with engine_edge(f"destroy {vm_id}"):
            self._remove(vm_id)
            self._networks.release(vm_id)
            for disk, (owner, _) in tuple(self._snapshots.items()):
                if owner == vm_id:
                    self.remove_snapshot(disk)
            shutil.rmtree(self._folder / vm_id, ignore_errors=True)

    def ensure_network(self, portgroup: str, *, uplink: bool) -> None:
        """Make a portgroup's network; guests on one without uplink reach nothing outside."""
        with engine_edge(f"create the network of portgroup {portgroup}"):
            self._networks.ensure(portgroup, uplink=uplink)

    def close(self) -> None:
        """Remove every container, volume, network and layer of this simulator."""
        self._events.close()
        self._watcher.join()
        for vm_id in tuple(self._running):
            self._stop_tools(vm_id)
        self._sweep()
        self._client.close()

    def _sweep(self) -> None:
        with engine_edge("remove what this simulator made"):
            self._engine.sweep()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _get_disk(self, disk: str) -> Disk:
        if disk in self._snapshots:
            return self._snapshots[disk][1]
        if disk and disk == self._template:
            return Disk(disk)
        raise GuestError(f"there is no disk {disk!r}")

    def _create(self, vm_id: str, disk: Disk) -> None:
        folder = self._folder / _check_id(vm_id)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._engine.create_machine(vm_id, disk, folder)
        except BaseException:
            self._engine.remove_machine(vm_id)
            raise
        self._machines.add(vm_id)

    def _remove(self, vm_id: str) -> None:
        self._stop_tools(vm_id)
        self._engine.remove_machine(vm_id)
        self._machines.discard(vm_id)

    def _container(self, vm_id: str) -> Container:
        return self._client.containers.get(self._engine.name_of(vm_id))

    def _connect_nics(self, container: Container, vm: GuestHardware) -> list[str]:
        """Attach the connected NICs and no others; return a line for the guest about each."""
        wanted: dict[str, str] = {}
        lines = []
        for nic in vm.nics:
            if nic.connected:
                network, address = self._networks.allocate(nic.portgroup, vm.vm_id)
                if network in wanted:
                    raise GuestError(f"{vm.name} has two NICs in portgroup {nic.portgroup!r}")
                wanted[network] = address
                lines.append(f"nic {address} {nic.mac.lower()}")
        name = self._engine.name_of(vm.vm_id)
        attached = set(container.attrs["NetworkSettings"]["Networks"])
        for network in attached - set(wanted):
            self._client.api.disconnect_container_from_network(name, network)
        for network in set(wanted) - attached:
            address = wanted[network]
            self._client.api.connect_container_to_network(name, network, ipv4_address=address)
        return lines

    def _stop(self, vm_id: str, signal: str, deadline_s: int) -> None:
        with self._lock:
            running = self._running.pop(vm_id, None)
        if running is None:
            return
        with engine_edge(f"stop {vm_id}"):
            container = self._container(vm_id)
            try:
                container.kill(signal=signal)
                container.wait(timeout=deadline_s)
            except BaseException as error:
                if not (isinstance(error, APIError) and error.status_code == CONFLICT):
                    self._running[vm_id] = running
                    raise  # a conflict: it had stopped by itself
        running.tools.stop()

    def _stop_tools(self, vm_id: str) -> None:
        with self._lock:
            running = self._running.pop(vm_id, None)
        if running:
            running.tools.stop()

    def _announce_reboot(self, vm_id: str) -> None:
        with self._lock:
            if vm_id in self._running:
                self._running[vm_id].rebooting = True

    def _watch(self) -> None:
        """Follow guests that stop by themselves, until the event stream is closed."""
        try:
            for event in self._events:
                attributes = event["Actor"]["Attributes"]
                vm_id = attributes.get(VM_LABEL, "")
                # A copying container inherits the label of the image that it copies for.
                if attributes.get("name") == self._engine.name_of(vm_id):
                    self._guest_died(vm_id)
        except (DockerException, OSError, ValueError, AttributeError):
            _log.debug("the engine's event stream ended", exc_info=True)

    def _guest_died(self, vm_id: str) -> None:
        with self._lock:
            running = self._running.get(vm_id)
            if running is None:
                return  # we stopped it
            if running.rebooting:
                running.rebooting = False
                self._container(vm_id).start()
                return
            del self._running[vm_id]
        running.tools.stop()
        running.callbacks.guest_state(GuestState(powered_on=False, tools_running=False))


def _check_id(text: str) -> str:
    if not _SAFE_ID.fullmatch(text):
        raise GuestError(f"{text!r} is no id that a guest could have")
    return text
