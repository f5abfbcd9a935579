"""What the account must be allowed on vCenter, and what of it is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from provisioner.errors import NotFoundError, VmGoneError, VsphereUnavailableError
from provisioner.vsphere.lookup import Place
from provisioner.vsphere.properties import get_moref
from provisioner.vsphere.session import Session


@dataclass(frozen=True)
class Needed:
    """Privileges, on which of the site's objects they are needed, and what for."""

    where: str
    what_for: str
    privileges: tuple[str, ...]


FOLDER, POOL, STORE, NETWORK, TEMPLATE = (
    "the labs' folder",
    "the resource pool",
    "each datastore",
    "each portgroup",
    "each VM template",
)
NEEDED: tuple[Needed, ...] = (
    Needed(FOLDER, "to see the labs' VMs", ("System.Read", "System.View")),
    Needed(
        FOLDER,
        "to clone guests into it, with size, networks, mark and guestinfo",
        (
            "VirtualMachine.Inventory.CreateFromExisting",
            "VirtualMachine.Config.AddNewDisk",
            "VirtualMachine.Config.CPUCount",
            "VirtualMachine.Config.Memory",
            "VirtualMachine.Config.AddRemoveDevice",
            "VirtualMachine.Config.EditDevice",
            "VirtualMachine.Config.AdvancedConfig",
            "VirtualMachine.Config.Settings",
        ),
    ),
    Needed(
        FOLDER,
        "to cut and connect guests' networks",
        ("VirtualMachine.Interact.DeviceConnection",),
    ),
    Needed(
        FOLDER,
        "to power guests on and off",
        ("VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff"),
    ),
    Needed(FOLDER, "to remove guests", ("VirtualMachine.Inventory.Delete",)),
    Needed(POOL, "to place guests", ("Resource.AssignVMToPool",)),
    Needed(
        STORE,
        "to give guests disks and to prove them gone",
        ("Datastore.AllocateSpace", "Datastore.Browse"),
    ),
    Needed(NETWORK, "to connect guests", ("Network.Assign",)),
    Needed(TEMPLATE, "to clone it", ("System.Read", "VirtualMachine.Provisioning.Clone")),
)
"""The whole vSphere role of labctl; docs/runbook.md prints it."""


def list_missing_privileges(session: Session, place: Place) -> tuple[str, ...]:
    """List what the account lacks, as "privilege on object", in the order of the table.

    Raises:
        VsphereUnavailableError: the site's objects got new references since they were looked up.
    """
    entities = {where: refs for where, refs in _list_entities(place).items() if refs}
    wanted = sorted({name for row in NEEDED for name in row.privileges})

    def ask(content: Any) -> set[tuple[str, str]]:
        refs = [ref for found in entities.values() for ref in found.values()]
        answer = _ask(content, session.login.key, refs, wanted)
        return {
            (get_moref(one.entity), each.privId)
            for one in answer
            for each in one.privAvailability
            if each.isGranted
        }

    try:
        granted = session.read("ask for the account's privileges", ask) if entities else set()
    except (NotFoundError, VmGoneError) as error:
        raise VsphereUnavailableError(
            error.what, hint="it was there a moment before: run the same command again"
        ) from error
    missing = (
        f"{name} on {title}"
        for row in NEEDED
        for title, ref in entities.get(row.where, {}).items()
        for name in row.privileges
        if (get_moref(ref), name) not in granted
    )
    return tuple(dict.fromkeys(missing))


def _ask(content: Any, session_key: str, refs: list[Any], wanted: list[str]) -> Any:
    """Ask for privileges on objects; of one that may not even be read, nothing is answered."""
    while refs:
        try:
            return content.authorizationManager.HasPrivilegeOnEntities(
                entity=refs, sessionId=session_key, privId=wanted
            )
        except vim.fault.NoPermission as fault:
            readable = [ref for ref in refs if get_moref(ref) != get_moref(fault.object)]
            if len(readable) == len(refs):
                raise
            refs = readable
    return ()


def _list_entities(place: Place) -> dict[str, dict[str, Any]]:
    def one(key: str, title: str) -> dict[str, Any]:
        return {title: place.placement[key]} if key in place.placement else {}

    return {
        FOLDER: one("folder", FOLDER),
        POOL: one("resource_pool", POOL),
        STORE: {f"datastore {name}": ref for name, ref in place.datastores.items()},
        NETWORK: {f"portgroup {name}": net.ref for name, net in place.portgroups.items()},
        TEMPLATE: {f"VM template {name}": ref for name, ref in place.templates.items()},
    }
