"""What guests need of the Docker Engine: one connection, our labels, machines and disks at rest."""

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
STOP_SIGNAL = "SIGRTMIN+3"  # makes systemd halt a container
PIDS_LIMIT = 8192
ENGINE_TIMEOUT_S = 900  # a commit or a copy of a guest's Docker data can take minutes
CONFLICT = 409
# Docker empties these in a new container; guest-init puts back what lies in the folder.
LOST_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
KEPT_IN = "/var/lib/guest-tools/"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk at rest: the image of the file system and, when there is any, the Docker data."""

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
    """Return a client of this machine's engine; GuestError says what to do when none answers."""
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
        """Return the name of a VM's container and of its volume."""
        return f"{self.prefix}-{vm_id}"

    def create_machine(self, vm_id: str, disk: Disk, folder: Path) -> None:
        """Create a VM's container, powered off, with a writable layer above the disk's.

        Its Tools socket lies under /dev, which systemd leaves mounted to the end of a reboot.
        Size and networks come with each power on. What each option is for was found by leaving it
        out: SYS_ADMIN and NET_ADMIN for systemd and a nested Docker, SYS_PTRACE for its exec.
        """
        name = self.name_of(vm_id)
        self._create_volume(name, disk.docker_data, disk.image)
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
                tmpfs={"/run": "", "/run/lock": "", "/tmp": "exec,mode=1777"},  # noqa: S108 - its own
                binds=[f"{folder}:/dev/hypervisor:ro", f"{name}:/var/lib/docker"],
            ),
        )

    def remove_machine(self, vm_id: str) -> None:
        """Remove a VM's container and volume, if there are any."""
        name = self.name_of(vm_id)
        with contextlib.suppress(NotFound):
            self.client.containers.get(name).remove(force=True)
        self.remove_disk(Disk("", name))

    def capture(self, vm_id: str, tag: str) -> Disk:
        """Copy a VM's disk as it is this instant: what is left after pulling the plug."""
        container = self.client.containers.get(self.name_of(vm_id))
        disk = Disk(f"{self.prefix}:{tag}", f"{self.prefix}-{tag}")
        runs = container.status == "running"
        if runs:
            # The guest's tools keep these files too, but a moment after they changed.
            container.exec_run(["cp", "-a", "--remove-destination", *LOST_FILES, KEPT_IN])
            container.pause()
        try:
            self._create_volume(f"{self.prefix}-{tag}", container.name, container.attrs["Image"])
            container.commit(repository=self.prefix, tag=tag, pause=False)
        except BaseException:
            self.remove_disk(disk)
            raise
        finally:
            if runs:
                container.unpause()
        return disk

    def remove_disk(self, disk: Disk) -> None:
        """Remove a disk at rest; layers that a clone stands on go with the last such clone."""
        if disk.docker_data:
            with contextlib.suppress(NotFound):
                self.client.volumes.get(disk.docker_data).remove()
        self._unwanted |= {disk.image} if disk.image.startswith(self.prefix) else set()
        for image in tuple(self._unwanted):
            try:
                self.client.images.remove(image)
            except NotFound:
                self._unwanted.discard(image)
            except APIError as error:
                if error.status_code != CONFLICT:
                    raise
            else:
                self._unwanted.discard(image)

    def sweep(self) -> None:
        """Remove everything with our label: at the end, and what a killed simulator left."""
        ours: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={self.labels[LABEL]}"}
        for container in self.client.containers.list(all=True, filters=ours, ignore_removed=True):
            container.remove(force=True)
        for volume in self.client.volumes.list(filters=ours):
            volume.remove()
        for network in self.client.networks.list(filters=ours):
            network.remove()
        before: list[str] = []
        # A layer can only go after the ones above it: round by round, until nothing moves.
        while (left := self.client.api.images(quiet=True, all=True, filters=ours)) != before:
            for image in left:
                with contextlib.suppress(APIError):
                    self.client.images.remove(image, force=True)
            before = left

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
            volumes=[f"{source}:/from:ro", f"{name}:/to"],
        )
