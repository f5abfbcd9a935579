"""What a vCenter goes through: restarts with new references, rollbacks, silence, slowness."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from provisioner.errors import RolledBackError, VmGoneError, VsphereUnavailableError
from provisioner.model.lab import GuestRecord
from provisioner.model.observed import DestroyResult
from provisioner.simulator.restore import restart as restart_world
from provisioner.simulator.restore import roll_back
from provisioner.vsphere import VsphereHypervisor
from provisioner.vsphere.session import Limits
from tests.contract.conftest import wait_until
from tests.contract.guests import ADDRESS_S, OURS, clone, make_identity, make_order
from tests.contract.vcenters import Simulated
from tests.simulator.conftest import Client
from tests.vsphere.conftest import Meddler

KEY = "guestinfo.labctl.hostkey"


@pytest.fixture
def world(vcenter: Simulated) -> Any:
    return vcenter.client.simulator.world


def restart(vcenter: Simulated) -> None:
    """Restart vCenter: every session, view, filter and task is gone, every VM has a new moId."""
    world = vcenter.client.simulator.world
    world.faults.add({"method": "CurrentTime", "what": "restart"})
    with suppress(OSError):
        vcenter.client.si.CurrentTime()
    vcenter.client = Client(vcenter.client.simulator)


def test_every_verb_goes_on_after_a_restart(
    vcenter: Simulated, hypervisor: VsphereHypervisor
) -> None:
    guest = clone(hypervisor)
    before = hypervisor.check_sight()
    identity = guest.identity
    restart(vcenter)
    seen = hypervisor.find_vm(identity)
    assert seen is not None
    assert seen.moref != guest.vm.moref
    assert clone(hypervisor, make_identity("tracking")).vm.ownership is guest.vm.ownership
    for verb in (
        lambda: hypervisor.ensure_powered_on(identity),
        lambda: hypervisor.wait_for_address(identity, guest.record.mac, ADDRESS_S),
        lambda: hypervisor.write_dossier(identity, "text"),
        lambda: hypervisor.ensure_powered_off(identity, grace_s=5),
        lambda: hypervisor.ensure_networks(identity, connected=False),
        hypervisor.list_marked_vms,
    ):
        restart(vcenter)
        verb()
    restart(vcenter)
    rows = guest.ask()
    assert rows.pop("moref") is True, "the reference that was recorded is no longer one"
    assert set(rows.values()) == {False}
    assert guest.destroy() is DestroyResult.DESTROYED
    restart(vcenter)
    assert guest.destroy() is DestroyResult.ALREADY_GONE
    assert hypervisor.check_sight().event_key > before.event_key


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_wait_goes_on_through_a_restart(
    vcenter: Simulated, hypervisor: VsphereHypervisor, world: Any, seconds: float
) -> None:
    guest = clone(hypervisor)
    world.faults.add({"method": "WaitForUpdatesEx", "what": "restart", "seconds": seconds})
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(hypervisor.wait_for_guestinfo, guest.identity, KEY, ADDRESS_S)
        wait_until(lambda: world.faults.list_rules()[0]["fired"] and not world.faults.is_out)
        vcenter.client = Client(vcenter.client.simulator)
        seen = hypervisor.find_vm(guest.identity)
        assert seen is not None
        vcenter.set_option(seen.moref, KEY, "ssh-ed25519 AAAA")
        assert heard.result() == "ssh-ed25519 AAAA"


def test_a_wait_for_what_a_rollback_took_ends(hypervisor: VsphereHypervisor, world: Any) -> None:
    guest = clone(hypervisor)
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(hypervisor.wait_for_guestinfo, guest.identity, KEY, ADDRESS_S)
        wait_until(lambda: world.requests["WaitForUpdatesEx"])
        world.faults.add({"method": "WaitForUpdatesEx", "what": "rollback"})
        with pytest.raises(VmGoneError):
            lost.result()


def renumber(world: Any) -> None:
    """Restart, as a thread sees it that asks on after another one has logged in again."""
    sessions = dict(world.sessions)
    restart_world(world)
    world.sessions.update(sessions)


def test_a_vm_that_gets_a_new_reference_while_it_is_looked_up_is_found(
    hypervisor: VsphereHypervisor, meddler: Meddler, world: Any
) -> None:
    guest = clone(hypervisor)
    meddler.do_before("RetrievePropertiesEx", lambda: renumber(world))
    seen = hypervisor.find_vm(guest.identity)
    assert seen is not None
    assert (seen.identity, seen.moref != guest.vm.moref) == (guest.identity, True)


@pytest.mark.parametrize("reads", [0, 1])
def test_marked_vms_that_get_new_references_while_they_are_listed_are_all_listed(
    hypervisor: VsphereHypervisor, meddler: Meddler, world: Any, reads: int
) -> None:
    guest = clone(hypervisor)

    def wait_or_renumber(reads: int) -> None:
        if reads == 0:
            renumber(world)
        else:
            again = partial(wait_or_renumber, reads - 1)
            meddler.do_before("RetrievePropertiesEx", again)

    meddler.do_before("RetrievePropertiesEx", partial(wait_or_renumber, reads))
    (marked,) = hypervisor.list_marked_vms()
    assert (marked.identity, marked.moref != guest.vm.moref) == (guest.identity, True)


def test_a_site_that_gets_new_references_while_it_is_looked_at_is_looked_at_again_later(
    hypervisor: VsphereHypervisor, meddler: Meddler, world: Any
) -> None:
    before = hypervisor.check_sight()
    meddler.do_before("HasPrivilegeOnEntities", lambda: renumber(world))
    with pytest.raises(VsphereUnavailableError, match="no longer there"):
        hypervisor.check_sight()
    assert replace(hypervisor.check_sight(), event_key=before.event_key) == before


def test_a_clone_is_seen_coming_from_a_template_with_a_new_reference(
    vcenter: Simulated, hypervisor: VsphereHypervisor, world: Any
) -> None:
    clone(hypervisor, make_identity("first"))  # so that the template's reference is known
    renumber(world)
    world.settings.method_delays_s = {"CloneVM_Task": 0.7}
    other = vcenter.connect(OURS)
    order = make_order(other, make_identity())
    with ThreadPoolExecutor(1) as pool:
        sent = world.requests["CloneVM_Task"]
        coming = pool.submit(other.ensure_clone, order, lambda _: None)
        wait_until(lambda: world.requests["CloneVM_Task"] > sent)
        record = GuestRecord(order.identity, order.vm_name, "nonce", pin=order.pin)
        assert hypervisor.destroy_vm(record).result is DestroyResult.DESTROYED
        coming.exception()
    assert vcenter.list_names() == {"ana-mlops-first"}


def test_many_guests_boot_through_a_restart(hypervisor: VsphereHypervisor, world: Any) -> None:
    guests = [clone(hypervisor, make_identity(f"node{number}")) for number in range(4)]
    world.faults.add(
        {"method": "PowerOnVM_Task", "what": "restart", "nth": 3, "when": "after"},
        {"method": "WaitForUpdatesEx", "what": "restart", "nth": 4},
    )

    def boot(guest: Any) -> str:
        hypervisor.ensure_powered_on(guest.identity)
        return hypervisor.wait_for_address(guest.identity, guest.record.mac, ADDRESS_S)

    with ThreadPoolExecutor(4) as pool:
        addresses = list(pool.map(boot, guests))
    assert len(set(addresses)) == 4


def test_a_rollback_is_seen_by_the_events(
    vcenter: Simulated, hypervisor: VsphereHypervisor, world: Any
) -> None:
    guest = clone(hypervisor)
    before = hypervisor.check_sight()
    world.faults.add({"method": "FindByUuid", "what": "rollback"})
    assert hypervisor.find_vm(guest.identity) is None, "it is not shown, though its files are there"
    for look in (hypervisor.check_sight, hypervisor.observe_site):
        with pytest.raises(RolledBackError, match=str(before.event_key)):
            look()
    fresh = vcenter.connect(OURS).check_sight()
    assert fresh.vcenter_uuid == before.vcenter_uuid
    assert fresh.event_key < before.event_key, "another process compares with what is recorded"


def test_a_clone_is_not_sent_again_beside_the_files_of_one_that_a_rollback_took(
    vcenter: Simulated, hypervisor: VsphereHypervisor, world: Any
) -> None:
    tasks: list[str] = []
    order = make_order(hypervisor, make_identity())
    hypervisor.ensure_clone(order, tasks.append)
    roll_back(world, "start")
    vcenter.client = Client(vcenter.client.simulator)
    again = replace(order, vim_task=tasks[0])
    with pytest.raises(RolledBackError, match="shows no VM of it"):
        hypervisor.ensure_clone(again, tasks.append)
    assert len(tasks) == 1
    with world.changed:
        for path in [path for path in world.files if order.vm_name in path]:
            del world.files[path]
    assert hypervisor.ensure_clone(again, tasks.append).identity == order.identity


def test_a_slow_vcenter_is_waited_for(hypervisor: VsphereHypervisor, world: Any) -> None:
    assert Limits().request_s >= 90
    guest = clone(hypervisor)
    world.faults.add(
        {"method": "PowerOnVM_Task", "what": "delay", "seconds": 1.0},
        {"method": "RetrievePropertiesEx", "what": "delay", "seconds": 1.0},
    )
    hypervisor.ensure_powered_on(guest.identity)
    assert world.requests["PowerOnVM_Task"] == 1


class Relay:
    """A way to the simulator on which open connections can fall silent without an end."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.open: set[socket.socket] = set()
        self.silent: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        self.silent |= self.open

    def close(self) -> None:
        for one in (self.server, *self.open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.server.accept()
                far = socket.create_connection(self.target)
                self.open |= {near, far}
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if one not in self.silent:
                    other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(vcenter: Simulated) -> Iterator[Relay]:
    simulator = vcenter.client.simulator
    made = Relay((simulator.host, simulator.port))
    yield made
    made.close()


def test_a_half_open_connection_costs_one_deadline(
    vcenter: Simulated, relay: Relay, world: Any
) -> None:
    address = vcenter.make_site().vcenter.model_dump() | {"port": relay.port}
    limits = Limits(connect_s=1.0, request_s=1.5)
    hypervisor = vcenter.connect_within(limits, OURS, vcenter=address)
    guest = clone(hypervisor)
    hypervisor.ensure_powered_on(guest.identity)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(hypervisor.wait_for_guestinfo, guest.identity, KEY, ADDRESS_S)
        asked = world.requests["WaitForUpdatesEx"]
        wait_until(lambda: world.requests["WaitForUpdatesEx"] > asked)
        hypervisor.find_vm(guest.identity)  # on a second connection, which is then kept
        relay.fall_silent()
        started_s = time.monotonic()
        with pytest.raises(VsphereUnavailableError, match="no answer in time"):
            hypervisor.ensure_powered_off(guest.identity, grace_s=0)
        assert time.monotonic() - started_s < 2 * limits.request_s
        hypervisor.ensure_powered_off(guest.identity, grace_s=0)
        vcenter.set_option(guest.vm.moref, KEY, "ssh-ed25519 AAAA")
        assert heard.result() == "ssh-ed25519 AAAA"
    assert not vcenter.is_on(guest.vm.moref)
