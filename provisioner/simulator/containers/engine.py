"""What the guests need of the Docker Engine: one connection, our labels, machines and disks."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from provisioner.simulator.guests import GuestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

LABEL = "labctl.sim"
VM_LABEL = "labctl.vm"
HYPERVISOR_FOLDER = "/run/hypervisor"
DOCKER_DATA = "/var/lib/docker"
PIDS_LIMIT = 8192
# A commit or a copy of a guest's Docker data can take minutes.
ENGINE_TIMEOUT_S = 900
STOP_SIGNAL = "SIGRTMIN+3"  # makes systemd halt the container
CONFLICT = 409


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk at rest: the root file system's image and, when there is any, the Docker data."""

    image: str
    docker_data: str | None = None


@contextlib.contextmanager
def engine_edge(doing: str) -> Iterator[None]:
    """Translate whatever the engine or the system says no to into GuestError."""
    try:
        yield
    except (DockerException, RequestException, OSError) as error:
        said = error.explanation if isinstance(error, APIError) else error
        raise GuestError(f"cannot {doing}: {said}") from error


def connect() -> DockerClient:
    """Return a client of this machine's engine.

    Raises:
        GuestError: it does not answer; the text says what to do.
    """
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        client.ping()
    except (DockerException, RequestException) as error:
        raise GuestError(
            f"Docker Engine does not answer ({error}). Guests need one: 'apt-get install "
            "docker.io', start it, and run as root or as a member of the group docker"
        ) from error
    return client


class Engine:
    """Containers, volumes and images of one simulator, all with its label."""

    def __init__(self, client: DockerClient, sim_id: str) -> None:
        self.client = client
        self.prefix = f"labctl-sim-{sim_id}"
        self.labels = {LABEL: sim_id}
        self._seccomp = Path(__file__).with_name("guest-seccomp.json").read_text(encoding="utf-8")
        self._unwanted: set[str] = set()

    def name_of(self, vm_id: str) -> str:
        """The name of a VM's container and of its volume."""
        return f"{self.prefix}-{vm_id}"

    def create_machine(self, vm_id: str, disk: Disk, folder: Path) -> None:
        """Create a VM's container, powered off, on a writable layer above the disk."""
        name = self.name_of(vm_id)
        self._create_volume(name, disk.docker_data, disk.image)
        # Hardware comes with each power on. Attached to no network, so that any can be added.
        self.client.api.create_container(
            disk.image,
            name=name,
            hostname="debian",
            stop_signal=STOP_SIGNAL,
            labels={**self.labels, VM_LABEL: vm_id},
            host_config=self.client.api.create_host_config(
                network_mode="none",
                cap_add=["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"],
                security_opt=["apparmor=unconfined", f"seccomp={self._seccomp}"],
                cgroupns="private",
                pids_limit=PIDS_LIMIT,
                tmpfs={"/run": "", "/run/lock": "", "/tmp": "exec,mode=1777"},  # noqa: S108 - theirs
                binds={
                    str(folder): {"bind": HYPERVISOR_FOLDER, "mode": "ro"},
                    name: {"bind": DOCKER_DATA, "mode": "rw"},
                },
            ),
        )

    def remove_machine(self, vm_id: str) -> None:
        """Remove a VM's container and volume, if there are any."""
        name = self.name_of(vm_id)
        with contextlib.suppress(NotFound):
            self.client.containers.get(name).remove(force=True, v=True)
        self.remove_disk(Disk("", name))

    def capture(self, vm_id: str, tag: str) -> Disk:
        """Copy a VM's disk as it is this instant: what is left after pulling the plug."""
        container = self.client.containers.get(self.name_of(vm_id))
        frozen = container.status == "running"
        volume = f"{self.prefix}-{tag}"
        disk = Disk(f"{self.prefix}:{tag}", volume)
        if frozen:
            container.pause()
        try:
            self._create_volume(volume, container.name, container.attrs["Image"])
            container.commit(repository=self.prefix, tag=tag, pause=False)
        except BaseException:
            self.remove_disk(disk)
            raise
        finally:
            if frozen:
                container.unpause()
        return disk

    def remove_disk(self, disk: Disk) -> None:
        """Remove a disk at rest; layers that a clone still needs go with the last clone."""
        if disk.docker_data:
            with contextlib.suppress(NotFound):
                self.client.volumes.get(disk.docker_data).remove()
        if disk.image.startswith(f"{self.prefix}:"):
            self._unwanted.add(disk.image)
        for image in tuple(self._unwanted):
            if self._remove_image(image):
                self._unwanted.discard(image)

    def sweep(self) -> None:
        """Remove everything with our label: at the end, and what a killed simulator left."""
        ours = {"label": f"{LABEL}={self.labels[LABEL]}"}
        for container in self.client.containers.list(all=True, filters=ours, ignore_removed=True):
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)
        for volume in self.client.volumes.list(filters=ours):
            with contextlib.suppress(NotFound):
                volume.remove()
        for network in self.client.networks.list(filters=ours):
            with contextlib.suppress(NotFound):
                network.remove()
        while any(self._remove_image(i.id) for i in self.client.images.list(all=True, filters=ours)):
            pass

    def _create_volume(self, name: str, source: str | None, image: str) -> None:
        self.client.volumes.create(name, labels=self.labels)
        if source is None:
            return
        # An ordinary user cannot read volumes, a container can. SYS_ADMIN: overlay2 keeps its
        # notes in trusted.* attributes, which a copy without it would silently lose.
        self.client.containers.run(
            image,
            ["cp", "-a", "/from/.", "/to"],
            remove=True,
            labels=self.labels,
            network_mode="none",
            cap_add=["SYS_ADMIN"],
            volumes={source: {"bind": "/from", "mode": "ro"}, name: {"bind": "/to", "mode": "rw"}},
        )

    def _remove_image(self, reference: str) -> bool:
        try:
            self.client.images.remove(reference, force=reference.startswith("sha256:"))
        except NotFound:
            return not reference.startswith("sha256:")
        except APIError as error:
            if error.status_code != CONFLICT:
                raise
            return False
        return True
