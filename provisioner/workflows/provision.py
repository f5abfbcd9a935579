"""How a lab comes: from the recorded intent to a lab whose hire's own path works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from provisioner.errors import (
    CheckFailedError,
    GuestUnreachableError,
    LabctlError,
    NotFoundError,
    TemplateChangedError,
    VmGoneError,
)
from provisioner.model.lab import Desired, GuestRecord, GuestState, LabState, TemplatePin
from provisioner.model.observed import CheckResult, PlayProgress
from provisioner.model.spec import CheckKind, GuestSpec
from provisioner.ports import CloneOrder, Flow, PlayOrder
from provisioner.rules.ansible_inventory import build_inventory
from provisioner.rules.capacity import place_guests
from provisioner.rules.dossier import build_dossier
from provisioner.rules.ssh import ADMIN_USER
from provisioner.rules.userdata import HOST_KEY_INFO, build_guestinfo, parse_published_host_key
from provisioner.workflows.checks import run_checks
from provisioner.workflows.work import Toolbox, Work, build_target

FIRST_BOOT_S = 300.0
ADDRESS_S = 180.0
LOGIN_S = 120.0
CLOUD_INIT_S = 300.0


def provision(flow: Flow, tools: Toolbox, lab_id: str, generation: int) -> None:
    """Bring a recorded lab to `ready`; every step looks at the world before it acts.

    Raises the first error of a step; the lab is `failed` then, and another run continues.
    """
    work = Work(tools, "provision", lab_id, generation)
    specs = {guest.slot: guest for guest in work.get_lab().blueprint.guests}
    with _ending_ready_or_failed(work):
        (placement,) = flow.run(work.step("preflight", partial(_preflight, work)))
        for name, act in (
            ("clone", partial(_clone, work, specs, placement)),
            ("power-on", partial(power_on, work)),
            ("host-key", partial(_host_key, work)),
            ("address", partial(read_address, work)),
            ("login", partial(log_in, work)),
        ):
            flow.run(*(work.step(name, partial(act, slot), slot) for slot in specs))
        flow.run(work.step("converge", partial(_converge, work)))
        flow.run(*(work.step("trials", partial(_trials, work, slot), slot) for slot in specs))


def converge(flow: Flow, tools: Toolbox, lab_id: str, generation: int) -> None:
    """Bring the guests of a standing lab back to their blueprint, and prove it as `provision` does.

    Raises as `provision` does.
    """
    work = Work(tools, "converge", lab_id, generation)
    slots = [guest.slot for guest in work.get_lab().blueprint.guests]
    with _ending_ready_or_failed(work):
        flow.run(*(work.step("login", partial(log_in, work, slot), slot) for slot in slots))
        flow.run(work.step("converge", partial(_converge, work)))
        flow.run(*(work.step("trials", partial(_trials, work, slot), slot) for slot in slots))


@contextmanager
def _ending_ready_or_failed(work: Work) -> Iterator[None]:
    set_state = partial(work.tools.store.set_state, work.lab_id, work.generation)
    try:
        yield
    except LabctlError as error:
        if work.get_lab().desired is Desired.PRESENT:  # else a teardown has taken over
            set_state(LabState.FAILED, work.tools.clock.now(), note=error.what)
        raise
    set_state(LabState.READY, work.tools.clock.now())


def _preflight(work: Work) -> dict[str, str]:
    """Check that the site still is what the plan saw; choose datastores and pin the templates."""
    tools, lab = work.tools, work.get_lab()
    work.check_event_key(tools.hypervisor.check_sight().event_key)
    observed = tools.hypervisor.observe_site()
    if observed.problems:
        raise NotFoundError(
            "; ".join(observed.problems), hint=f"mend the site file of {tools.site.site}"
        )
    coming = {
        guest.identity.slot: guest
        for guest in work.list_guests()
        if guest.state is not GuestState.STANDING
    }
    specs = tuple(spec for spec in lab.blueprint.guests if spec.slot in coming)
    for spec in specs:
        guest = coming[spec.slot]
        if guest.state is GuestState.PLANNED:
            pin = tools.hypervisor.pin_template(spec.vm_template)
            tools.store.move_guest(guest.identity, GuestState.PLANNED, pin=pin)
    placement = tools.site.placement
    return dict(place_guests(specs, observed, placement.datastores, placement.reserve_gib))


def _clone(work: Work, specs: dict[str, GuestSpec], placement: dict[str, str], slot: str) -> str:
    """Bring the VM of a guest about: the journal is ahead of every call, and follows every answer.

    Raises VmGoneError when a VM that stood already is not there: it is never made a second time.
    """
    tools, guest = work.tools, work.get_guest(slot)
    if guest.state is GuestState.STANDING:
        return _find_standing(work, guest)
    if guest.state is not GuestState.PLANNED:  # an earlier try got further than its record
        work.check_event_key(tools.hypervisor.check_sight().event_key)
    pin = guest.pin or tools.hypervisor.pin_template(specs[slot].vm_template)
    if guest.state is GuestState.PLANNED:
        tools.store.move_guest(guest.identity, GuestState.INTENDED, pin=pin)
    order = _build_order(work, specs[slot], guest, pin, placement[slot])
    try:
        vm = tools.hypervisor.ensure_clone(
            order,
            lambda task: tools.store.move_guest(guest.identity, GuestState.CLONING, vim_task=task),
        )
    except TemplateChangedError:
        tools.store.move_guest(guest.identity, GuestState.PLANNED, vim_task="")
        raise
    tools.store.move_guest(
        guest.identity,
        GuestState.STANDING,
        moref=vm.moref,
        mac=vm.nics[0].mac,
        # Somebody may have attached a disk to one that was adopted: only its own are recorded.
        birth_disks=vm.find_birth_disks(pin.disk_count),
    )
    return f"{vm.name} is {vm.moref} on {placement[slot]}"


def _find_standing(work: Work, guest: GuestRecord) -> str:
    vm = work.tools.hypervisor.find_vm(guest.identity)
    if vm is None:
        raise VmGoneError(
            f"{guest.vm_name} stood, and vCenter does not show it any more",
            hint=f"labctl teardown {work.lab_id}, then provision it again",
        )
    return f"{vm.name} is {vm.moref}, as recorded"


def _build_order(
    work: Work, spec: GuestSpec, guest: GuestRecord, pin: TemplatePin, datastore: str
) -> CloneOrder:
    key = work.tools.credentials.ensure_lab_key(work.lab_id, work.generation)
    return CloneOrder(
        identity=guest.identity,
        vm_name=guest.vm_name,
        vm_template=spec.vm_template,
        cpus=spec.cpus,
        memory_mib=spec.memory_mib,
        networks=spec.networks,
        datastore=datastore,
        guestinfo=build_guestinfo(
            guest.identity,
            guest.vm_name,
            admin_public_key=key.public_key,
            nonce=guest.nonce,
        ),
        pin=pin,
        dossier=build_dossier(work.get_lab(), replace(guest, pin=pin)),
        may_be_coming=guest.state is not GuestState.PLANNED,
        vim_task=guest.vim_task,
    )


def power_on(work: Work, slot: str) -> str:
    """Bring a guest to powered on."""
    work.tools.hypervisor.ensure_powered_on(work.get_guest(slot).identity)
    return "powered on"


def _host_key(work: Work, slot: str) -> str:
    """Learn the guest's host key through vCenter, once; a pinned key is never learned again.

    It goes into the VM's dossier before it is pinned: an adopted guest is known by it.
    """
    guest = work.get_guest(slot)
    if guest.host_key:
        return "already pinned"
    text = work.tools.hypervisor.wait_for_guestinfo(guest.identity, HOST_KEY_INFO, FIRST_BOOT_S)
    host_key = parse_published_host_key(text, guest.nonce)
    dossier = build_dossier(work.get_lab(), replace(guest, host_key=host_key))
    work.tools.hypervisor.write_dossier(guest.identity, dossier)
    work.tools.store.update_guest(guest.identity, host_key=host_key)
    return "learned through vCenter and pinned"


def read_address(work: Work, slot: str) -> str:
    """Read the guest's address, on, whatever was recorded: it may have another one by now."""
    guest = work.get_guest(slot)
    work.tools.hypervisor.ensure_powered_on(guest.identity)
    address = work.tools.hypervisor.wait_for_address(guest.identity, guest.mac, ADDRESS_S)
    if address != guest.address:
        work.tools.store.update_guest(guest.identity, address=address)
    return address


def log_in(work: Work, slot: str) -> str:
    """Wait until a guest lets labctl in and its first boot is over.

    Raises GuestUnreachableError, HostKeyError.
    """
    tools, guest = work.tools, work.get_guest(slot)
    key = tools.credentials.get_lab_key(work.lab_id, work.generation)
    target = build_target(tools.site, guest, key.private_file)
    tools.shell.wait_for_login(target, LOGIN_S)
    result = tools.shell.run(target, "cloud-init status --wait --long", timeout_s=CLOUD_INIT_S)
    # 2 = done with recoverable errors (cloud-init 23.4 and later): a deprecation is no failure.
    if result.exit_status not in (0, 2):
        raise GuestUnreachableError(
            f"first boot of {guest.vm_name} failed: cloud-init says {result.stdout.strip()[-300:]}",
            hint="look at /var/log/cloud-init-output.log on the guest's console",
        )
    return f"{ADMIN_USER}@{guest.address}"


def _converge(work: Work) -> dict[str, dict[str, int]]:
    """Run Ansible; its recap is recorded as one line for each guest."""
    for guest in work.list_guests():
        read_address(work, guest.identity.slot)
    order = build_play_order(work)

    def on_event(event: PlayProgress) -> None:
        if event.status in ("started", "failed", "unreachable"):
            text = f"{event.role}: {event.play_task}" if event.role else event.play_task
            detail = f" {event.status}: {event.text}" if event.status != "started" else ""
            work.note("converge", text + detail, event.slot)

    recaps = work.tools.configurator.run_play(order, on_event, work.is_unwanted)
    for recap in recaps:
        text = f"recap: {recap.ok} ok, {recap.changed} changed, {recap.failed} failed"
        work.note("converge", text, recap.slot)
    return {recap.slot: {"ok": recap.ok, "changed": recap.changed} for recap in recaps}


def build_play_order(work: Work) -> PlayOrder:
    """Gather what one Ansible run over all guests of the lab needs."""
    tools, lab, guests = work.tools, work.get_lab(), work.list_guests()
    key = tools.credentials.get_lab_key(work.lab_id, work.generation)
    inventory = build_inventory(
        lab,
        guests,
        tools.site,
        tools.ca_texts,
        tools.stack,
        key_file=key.private_file,
        known_hosts_file=tools.write_known_hosts(lab, guests),
    )
    return PlayOrder(lab_id=work.lab_id, playbook="converge.yml", inventory=inventory)


def _trials(work: Work, slot: str) -> str:
    """Prove the hire's own path on one guest. Raises CheckFailedError with what was seen."""
    read_address(work, slot)
    guest: GuestRecord = work.get_guest(slot)
    results = run_checks(
        work.tools,
        work.get_lab(),
        guest,
        kinds=(CheckKind.CHECK, CheckKind.TRIAL),
        on_result=lambda result: work.note("trials", describe_result(result), slot),
    )
    failed = [result for result in results if not result.passed]
    if failed:
        raise CheckFailedError(
            f"{len(failed)} of {len(results)} checks failed on {slot}: "
            + "; ".join(f"{result.name}: {result.saw}" for result in failed),
            hint=failed[0].remedy,
        )
    return f"{len(results)} of {len(results)} passed"


def describe_result(result: CheckResult) -> str:
    """Say one check's result in a line."""
    return f"{'pass' if result.passed else 'FAIL'} {result.name}: {result.saw}"
