"""The use cases around labs: what a verb of the command line asks for."""

from __future__ import annotations

import getpass
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from provisioner.app.following import follow
from provisioner.app.wiring import House
from provisioner.errors import (
    InputError,
    PrivilegeError,
    RefusedError,
    VmGoneError,
)
from provisioner.files.request import load_request
from provisioner.files.site import load_site
from provisioner.model.lab import (
    AuditEntry,
    Desired,
    GuestIdentity,
    GuestRecord,
    GuestState,
    Hire,
    Lab,
    LabState,
    Lease,
    Progress,
    WorkItem,
    WorkStatus,
)
from provisioner.model.observed import CheckResult, ObservedVm
from provisioner.model.spec import Blueprint, CheckKind, Site
from provisioner.rules.lease import build_lease, refuse_expired
from provisioner.rules.naming import (
    build_lab_id,
    build_login,
    build_vm_name,
    check_email,
    check_login,
)
from provisioner.rules.plan import Plan, build_plan
from provisioner.rules.public_key import parse_public_key
from provisioner.rules.receipt import Receipt, from_json
from provisioner.rules.restored import refuse_when_restored
from provisioner.rules.ssh import get_address
from provisioner.rules.states import CLOSED_STATES
from provisioner.rules.work import TEARDOWN, check_free
from provisioner.workflows.checks import run_checks
from provisioner.workflows.provision import build_play_order
from provisioner.workflows.work import Work

OnRow = Callable[[Progress], None]


@dataclass(frozen=True)
class Request:
    """What IT asks for: a blueprint for a hire. `days` None means the blueprint's default."""

    blueprint: str
    email: str
    key_text: str
    days: int | None = None
    login: str | None = None


@dataclass(frozen=True)
class GuestStatus:
    """A guest as recorded, and as vCenter shows it now (None: no VM of that identity)."""

    record: GuestRecord
    vm: ObservedVm | None


class Labs:
    """The use cases, over one wired house.

    `site_name` is what `--site` said, or None.
    """

    def __init__(self, house: House, site_name: str | None = None) -> None:
        self.house = house
        self.site_name = site_name

    # -- asking -------------------------------------------------------------------------------

    def get_site_for(self, request: Request) -> Site:
        """Return the site of a request, once all the files that it reads are sound."""
        return self._read_files(request)[0]

    def get_site_of(self, lab: Lab) -> Site:
        """Return the site a lab stands on. Raises InputError when `--site` says another."""
        if self.site_name not in (None, lab.site):
            raise InputError(
                f"lab {lab.lab_id} stands on site {lab.site}, not on {self.site_name}",
                hint=f"say --site {lab.site}, or leave it out",
            )
        return load_site(self.house.site_dirs, lab.site)

    def get_lab(self, lab_id: str) -> Lab:
        """Return a lab, closed or not. Raises UnknownLabError."""
        return self.house.store.get_lab(lab_id)

    def get_living_lab(self, lab_id: str) -> Lab:
        """Return a lab that is not closed. Raises RefusedError when it is."""
        lab = self.get_lab(lab_id)
        if lab.state in CLOSED_STATES:
            raise RefusedError(
                f"lab {lab_id} is {lab.state}", hint="provision it again to get a new one"
            )
        return lab

    def list_labs(self, *, closed: bool) -> tuple[Lab, ...]:
        """List labs, of one site when `--site` was given."""
        labs = self.house.store.list_labs(closed=closed)
        return tuple(lab for lab in labs if self.site_name in (None, lab.site))

    def list_guests(self, lab: Lab) -> tuple[GuestRecord, ...]:
        """List a lab's guests as recorded."""
        return self.house.store.list_guests(lab.lab_id, lab.generation)

    def observe_guests(self, lab: Lab) -> tuple[GuestStatus, ...]:
        """Ask vCenter for each guest of a lab."""
        hypervisor = self.house.get_hypervisor(self.get_site_of(lab))
        return tuple(
            GuestStatus(record, hypervisor.find_vm(record.identity))
            for record in self.list_guests(lab)
        )

    def list_progress(self, lab_id: str, slot: str, step: str) -> tuple[Progress, ...]:
        """List a lab's log."""
        return self.house.store.list_progress(lab_id, slot=slot, step=step)

    # -- deciding -----------------------------------------------------------------------------

    def plan(self, request: Request) -> Plan:
        """Say what `provision` would do, with zero writes."""
        return self._plan(request)[0]

    def _plan(self, request: Request) -> tuple[Plan, Blueprint, Hire, Lease, Site]:
        house = self.house
        site, blueprint = self._read_files(request)
        hire = self._read_hire(request)
        lease = build_lease(blueprint.lease, request.days, house.clock.now())
        lab_id = build_lab_id(hire.login, blueprint.short)
        existing = house.store.find_lab(lab_id)
        plan = build_plan(
            blueprint,
            site,
            house.get_hypervisor(site).observe_site(),
            hire=hire,
            lease=lease,
            existing=existing,
            standing=self._list_standing(existing),
            usual_s=lambda step: house.store.usual_s("provision", step),
        )
        return plan, blueprint, hire, lease, site

    def _list_standing(self, lab: Lab | None) -> frozenset[str]:
        guests = self.list_guests(lab) if lab else ()
        return frozenset(
            guest.identity.slot for guest in guests if guest.state is GuestState.STANDING
        )

    def _read_files(self, request: Request) -> tuple[Site, Blueprint]:
        house = self.house
        return load_request(
            house.site_dirs,
            self.site_name,
            house.labs_dir,
            house.playbooks_dir,
            request.blueprint,
        )

    def _read_hire(self, request: Request) -> Hire:
        email = check_email(request.email)
        login = check_login(request.login) if request.login else build_login(email)
        return Hire(email=email, login=login, public_key=parse_public_key(request.key_text))

    # -- acting -------------------------------------------------------------------------------

    def provision(self, request: Request, on_row: OnRow) -> tuple[Lab, bool]:
        """Bring the lab to ready and return it, and whether anything had to be done."""
        plan, blueprint, hire, lease, site = self._plan(request)
        lab = self.house.store.find_lab(plan.lab_id)
        if plan.nothing_to_do and lab is not None:
            self._refuse_missing(lab)
            return lab, False
        if lab is None or lab.state in CLOSED_STATES:
            item = self._record_intent(plan, blueprint, hire, lease, site)
        else:
            item = self._ask(lab, "provision", state=LabState.PROVISIONING)
        follow(self.house, item, on_row)
        return self.get_lab(plan.lab_id), True

    def converge(self, lab_id: str, on_row: OnRow) -> Lab:
        """Bring a ready lab's guests back to its blueprint, and prove it.

        Raises RefusedError when the lab was not ready: then `provision` continues it. One that has
        expired is refused as well.
        """
        lab = self.get_living_lab(lab_id)
        refuse_expired(lab)
        if lab.ready_at is None or lab.desired is not Desired.PRESENT:
            raise RefusedError(
                f"lab {lab_id} is {lab.state} and was never ready",
                hint="run the labctl provision that began it again: it continues",
            )
        self.get_site_of(lab)
        follow(self.house, self._ask(lab, "converge"), on_row)
        return self.get_lab(lab_id)

    def retry(self, lab_id: str, on_row: OnRow) -> Lab:
        """Ask again for the work that failed last; a provision continues at the step that failed.

        Work that is under way is followed. Raises RefusedError when the last work did not fail.
        """
        lab = self.get_living_lab(lab_id)
        self.get_site_of(lab)
        item = self.house.store.find_last_work(lab_id)
        if item is None or item.status is WorkStatus.DONE:
            raise RefusedError(
                f"nothing failed on lab {lab_id}: it is {lab.state}",
                hint=f"labctl logs {lab_id} shows what was done",
            )
        if item.status is WorkStatus.FAILED:
            state = {"provision": LabState.PROVISIONING, "teardown": LabState.TEARING_DOWN}
            item = self._ask(lab, item.workflow, state=state.get(item.workflow))
        follow(self.house, item, on_row)
        return self.get_lab(lab_id)

    def follow(self, lab_id: str, on_row: OnRow) -> None:
        """Follow the work under way on a lab, if there is any. Raises what it ended with."""
        item = self.house.store.find_last_work(self.get_lab(lab_id).lab_id)
        if item is not None:
            follow(self.house, item, on_row)

    def _refuse_missing(self, lab: Lab) -> None:
        """A lab recorded as ready is only left as it is when vCenter still shows its VMs."""
        missing = [status for status in self.observe_guests(lab) if status.vm is None]
        if missing:
            names = ", ".join(status.record.vm_name for status in missing)
            raise VmGoneError(
                f"lab {lab.lab_id} is recorded as ready, but vCenter does not show {names}",
                hint=f"labctl teardown {lab.lab_id}, then provision it again",
            )

    def _record_intent(
        self, plan: Plan, blueprint: Blueprint, hire: Hire, lease: Lease, site: Site
    ) -> WorkItem:
        house = self.house
        sight = house.get_hypervisor(site).check_sight()
        if sight.missing_privileges or sight.missing_objects:
            lacking = "; ".join((*sight.missing_privileges, *sight.missing_objects))
            raise PrivilegeError(
                f"the account of site {site.site} cannot work there: {lacking}",
                hint="docs/runbook.md lists the vSphere role that labctl needs",
            )
        now = house.clock.now()
        lab = Lab(
            lab_id=plan.lab_id,
            generation=plan.generation,
            site=site.site,
            vcenter_uuid=sight.vcenter_uuid,
            event_key=sight.event_key,
            blueprint=blueprint,
            hire=hire,
            lease=lease,
            desired=Desired.PRESENT,
            state=LabState.PROVISIONING,
            created_at=now,
        )
        guests = tuple(
            GuestRecord(
                identity=GuestIdentity(lab.lab_id, lab.generation, spec.slot, str(uuid.uuid4())),
                vm_name=build_vm_name(lab.lab_id, spec.slot),
                nonce=secrets.token_hex(16),
            )
            for spec in blueprint.guests
        )
        return house.store.add_lab(lab, guests, self._audit("provision", lab.lab_id))

    def teardown(self, lab_id: str, on_row: OnRow) -> None:
        """Remove a lab and keep its receipt. Already gone is a success.

        Raises TeardownIncompleteError when something is left; the receipt is kept all the same.
        """
        if self.get_lab(lab_id).state is LabState.GONE:
            return
        lab = self.get_living_lab(lab_id)
        self.get_site_of(lab)
        follow(self.house, self._ask(lab, "teardown", state=LabState.TEARING_DOWN), on_row)

    def find_receipt(self, lab_id: str) -> Receipt | None:
        """Return the receipt of a lab's newest generation; an older one's says nothing about it."""
        text = self.house.store.find_receipt(lab_id)
        receipt = from_json(text) if text else None
        if receipt is None or receipt.generation != self.get_lab(lab_id).generation:
            return None
        return receipt

    def forget(self, lab_id: str, reason: str) -> Lab:
        """Close a lab of a vCenter that no longer exists. It proves nothing."""
        lab = self.get_living_lab(lab_id)
        store, now = self.house.store, self.house.clock.now()
        audit = self._audit("forget", lab_id, reason)
        store.set_desired(lab_id, lab.generation, Desired.ABSENT, audit)
        note = f"forgotten without proof: {reason}"
        self.house.credentials.destroy_lab_keys(lab_id)  # once it is closed, a next one has keys
        store.set_state(lab_id, lab.generation, LabState.FORGOTTEN, now, note=note)
        return self.get_lab(lab_id)

    def verify(
        self,
        lab_id: str,
        *,
        trials: bool,
        names: tuple[str, ...],
        on_result: Callable[[CheckResult], None],
    ) -> tuple[CheckResult, ...]:
        """Run the checks (and trials) of every guest of a lab, or only those of some names."""
        lab = self.get_living_lab(lab_id)
        if trials:  # they would meet those of the work on the guest
            check_free("verify", lab_id, self._list_work(lab_id))
        tools = self.house.get_tools(self.get_site_of(lab), lab.blueprint)
        kinds = (CheckKind.CHECK, CheckKind.TRIAL) if trials else (CheckKind.CHECK,)
        known = {check.name for check in tools.checks}
        if unknown := sorted(set(names) - known):
            raise InputError(
                f"lab {lab_id} has no check {', '.join(unknown)[:120]}",
                hint=f"there are: {', '.join(sorted(known))}",
            )
        results: list[CheckResult] = []
        for guest in self.list_guests(lab):
            get_address(guest)  # refuses a guest that was never reached
            results += run_checks(
                tools, lab, guest, kinds=kinds, names=frozenset(names), on_result=on_result
            )
        return tuple(results)

    def build_inventory(self, lab_id: str) -> dict[str, object]:
        """Return the Ansible inventory of a lab, as labctl itself uses it."""
        lab = self.get_living_lab(lab_id)
        tools = self.house.get_tools(self.get_site_of(lab), lab.blueprint)
        return build_play_order(Work(tools, "inventory", lab_id, lab.generation)).inventory

    # -- how ----------------------------------------------------------------------------------

    def _list_work(self, lab_id: str) -> tuple[WorkItem, ...]:
        return tuple(one for one in self.house.store.list_open_work() if one.lab_id == lab_id)

    def _ask(self, lab: Lab, workflow: str, state: LabState | None = None) -> WorkItem:
        if workflow == TEARDOWN:
            refuse_when_restored(self.house.store)
        return self.house.store.ask_for_work(
            workflow,
            lab.lab_id,
            lab.generation,
            self._audit(workflow, lab.lab_id),
            desired=Desired.ABSENT if workflow == TEARDOWN else Desired.PRESENT,
            state=state,
        )

    def _audit(self, action: str, lab_id: str, detail: str = "") -> AuditEntry:
        return AuditEntry(
            at=self.house.clock.now(),
            actor=getpass.getuser(),
            action=action,
            lab_id=lab_id,
            outcome="asked",
            detail=detail,
        )


def read_text(path: Path, what: str) -> str:
    """Read a small text file that IT named. Raises InputError saying what could not be read."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the {what} {path}: {reason}") from error
    return text
