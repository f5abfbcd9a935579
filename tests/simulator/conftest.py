"""A simulator in this process, with guests that are no machines, and stock clients of it."""

# mypy: allow-untyped-calls
# pyVmomi makes its types at run time

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pyVim.connect import SmartConnect
from pyVim.task import WaitForTask
from pyVmomi import vim, vmodl

from provisioner.simulator.guests import NullGuests
from provisioner.simulator.seed import seed
from provisioner.simulator.server import SoapServer
from provisioner.simulator.state_dir import USERNAME, open_state_dir
from provisioner.simulator.world import Settings, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from provisioner.simulator.guests import GuestRuntime

DEADLINE_S = 10.0


class Simulator:
    """One running simulator and what tests do with it."""

    def __init__(self, server: SoapServer, ca_file: Path, password: str) -> None:
        self.server = server
        self.world: Any = server.world
        self.guests: Any = self.world.guests
        self.host, self.port = str(server.server_address[0]), server.server_address[1]
        self.password, self.ca_file = password, ca_file
        self.tls = ssl.create_default_context(cafile=ca_file)
        self._clients: list[Any] = []

    def connect(self, user: str = USERNAME, password: str | None = None) -> Any:
        """Log in as a stock client does, by default as the administrator."""
        client = SmartConnect(
            host=self.host,
            port=self.port,
            user=user,
            pwd=self.password if password is None else password,
            sslContext=self.tls,
        )
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close every client's connections."""
        for client in self._clients:
            client._stub.DropConnections()


class Client:
    """A logged in client with the inventory at hand."""

    def __init__(self, simulator: Simulator, *login: str) -> None:
        self.simulator = simulator
        self.si = simulator.connect(*login)
        self.content = self.si.RetrieveContent()
        self.collector = self.content.propertyCollector.CreatePropertyCollector()

    def find(self, path: str) -> Any:
        """Return the object at an inventory path; it must be there."""
        found = self.content.searchIndex.FindByInventoryPath(path)
        assert found is not None, path
        return found

    @property
    def template(self) -> Any:
        return self.find("DC0/vm/templates/debian-13")

    @property
    def labs(self) -> Any:
        return self.find("DC0/vm/labs")

    @property
    def pool(self) -> Any:
        return self.find("DC0/host/cluster-0/Resources")

    def linked_spec(self, **config: Any) -> Any:
        """Build the spec of a linked clone of the template."""
        return vim.vm.CloneSpec(
            location=vim.vm.RelocateSpec(pool=self.pool, diskMoveType="createNewChildDiskBacking"),
            snapshot=self.template.snapshot.currentSnapshot,
            config=vim.vm.ConfigSpec(**config),
            powerOn=False,
            template=False,
        )

    def clone(self, name: str, spec: Any = None, **config: Any) -> Any:
        """Clone the template and return the VM."""
        return self.do(
            self.template.CloneVM_Task(self.labs, name, spec or self.linked_spec(**config))
        )

    def do(self, task: Any) -> Any:
        """Wait for a task as stock scripts do, and return its result."""
        WaitForTask(task, si=self.si)
        return task.info.result

    def filter(self, refs: list[Any], paths: list[str]) -> Any:
        """Create a filter on objects of one type."""
        query = vmodl.query.PropertyCollector
        spec = query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=ref) for ref in refs],
            propSet=[query.PropertySpec(type=type(refs[0]), pathSet=paths)],
        )
        return self.collector.CreateFilter(spec, True)

    def wait(self, version: str | None = "", seconds: int = 5, limit: int | None = None) -> Any:
        """Wait for updates."""
        options = vmodl.query.PropertyCollector.WaitOptions(
            maxWaitSeconds=seconds, maxObjectUpdates=limit
        )
        return self.collector.WaitForUpdatesEx(version, options)

    def wait_until(self, ref: Any, path: str, wanted: Callable[[Any], bool]) -> Any:
        """Return a property's value once it is as wanted."""
        one = self.filter([ref], [path])
        version: str | None = ""
        deadline = threading.Event()
        timer = threading.Timer(DEADLINE_S, deadline.set)
        timer.start()
        try:
            while not deadline.is_set():
                update = self.wait(version, 1)
                version = update.version if update else version
                for changed in update.filterSet if update else []:
                    for change in changed.objectSet[0].changeSet:
                        if changed.filter == one and wanted(change.val):
                            return change.val
        finally:
            timer.cancel()
            one.Destroy()
        raise AssertionError(f"{path} of {ref} never became as wanted")


@contextmanager
def running(
    state: Path, guests: GuestRuntime | None = None, **settings: Any
) -> Iterator[Simulator]:
    """Run a simulator in this process."""
    with_state = open_state_dir(state)
    world = World(
        guests or NullGuests(boot_s=0.02),
        Settings(USERNAME, with_state.password, with_state.instance_uuid, **settings),
    )
    seed(world)
    server = SoapServer(("127.0.0.1", 0), world, with_state.certificate, with_state.key)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    simulator = Simulator(server, with_state.certificate, with_state.password)
    try:
        yield simulator
    finally:
        simulator.close()
        world.close()
        server.shutdown()
        server.server_close()
        thread.join()
        world.guests.close()
        with_state.close()


@pytest.fixture(name="start")
def _start(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start simulators with settings of the test's own; returns a logged in client."""
    running_ones: list[Any] = []

    def start(**settings: Any) -> Client:
        context = running(tmp_path / f"sim{len(running_ones)}", **settings)
        simulator = context.__enter__()
        running_ones.append(context)
        return Client(simulator)

    yield start
    for context in running_ones:
        context.__exit__(None, None, None)


@pytest.fixture(scope="module", name="simulator")
def _simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """One simulator for the tests of a module."""
    with running(tmp_path_factory.mktemp("simulator") / "state") as simulator:
        yield simulator


@pytest.fixture(scope="module", name="module_client")
def _module_client(simulator: Simulator) -> Client:
    return Client(simulator)


@pytest.fixture(name="client")
def _client(simulator: Simulator) -> Client:
    """A client of its own session, so that filters of other tests do not disturb."""
    return Client(simulator)
