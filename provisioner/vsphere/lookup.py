"""The site's named things at vCenter: found once, checked for type, and told in plain words."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pyVmomi import vim

from provisioner.errors import NotFoundError, TemplateChangedError
from provisioner.model.lab import TemplatePin
from provisioner.model.observed import ObservedDatastore, ObservedTemplate
from provisioner.model.spec import Site, VmTemplate
from provisioner.vsphere.devices import DEVICES_PATH, list_disks, list_nics
from provisioner.vsphere.machines import (
    MARK_PATH,
    POWER_PATH,
    SNAPSHOTS_PATH,
    UUID_PATH,
    read_option,
    walk_snapshots,
)
from provisioner.vsphere.properties import Reading, build_spec, get_moref, retrieve
from provisioner.vsphere.session import Session
from provisioner.vsphere.specs import Portgroup, Source

GIB = 1024**3
KIB_PER_GIB = 1024**2
SWITCH_PATH = "config.distributedVirtualSwitch"
VERSION_PATH = "config.changeVersion"
TEMPLATE_PATHS = (
    "config.template",
    UUID_PATH,
    VERSION_PATH,
    POWER_PATH,
    MARK_PATH,
    DEVICES_PATH,
    SNAPSHOTS_PATH,
)
STORE_PATHS = ("summary.name", "summary.accessible", "summary.maintenanceMode", "summary.freeSpace")
DISTRIBUTED = vim.dvs.DistributedVirtualPortgroup
CALLED: dict[Any, str] = {
    vim.Datacenter: "datacenter",
    vim.Folder: "folder",
    vim.ResourcePool: "resource pool",
    vim.Network: "portgroup",
    vim.VirtualMachine: "VM",
}
PLACEMENT = {
    "datacenter": vim.Datacenter,
    "folder": vim.Folder,
    "resource_pool": vim.ResourcePool,
}


@dataclass(frozen=True)
class Place:
    """What the site file names, as references. What could not be found is only in `problems`."""

    placement: Mapping[str, Any]
    portgroups: Mapping[str, Portgroup]
    templates: Mapping[str, Any]
    datastores: Mapping[str, Any]
    observed_datastores: tuple[ObservedDatastore, ...]
    observed_templates: tuple[ObservedTemplate, ...]
    problems: tuple[str, ...]

    def get(self, kind: str, name: str) -> Any:
        """Return one named thing. Raises NotFoundError with every problem of the site."""
        found: Mapping[str, Any] = getattr(self, kind)
        if name not in found:
            raise NotFoundError(
                f"the site has no usable {name} among its {kind}"
                + "".join(f"; {problem}" for problem in self.problems),
                hint="mend the site file, or what it names in vCenter",
            )
        return found[name]


class Lookup:
    """Resolves a site, and keeps what it found. Reads only."""

    def __init__(self, session: Session, site: Site) -> None:
        self.stores = site.placement.datastores
        self._session = session
        self._site = site
        self._place: Place | None = None
        self._lock = threading.Lock()

    def get_place(self, *, anew: bool = False) -> Place:
        """Find everything the site file names; what vCenter does not confirm becomes a problem.

        What was found before is returned as it is, unless it is to be found `anew`: references
        are no longer good when vCenter was restored.
        """
        with self._lock:
            if self._place is None or anew:
                self._place = self._session.read("look up the site", self._resolve)
            return self._place

    def list_names(self, folder: Any) -> tuple[str, ...]:
        """List the names in a folder."""
        spec = build_spec([folder], {vim.ManagedEntity: ["name"]}, (vim.Folder, "childEntity"))
        readings = self._session.retrieve("list the labs' folder", spec)
        return tuple(sorted(str(one.values["name"]) for one in readings if "name" in one.values))

    def pin_template(self, name: str) -> TemplatePin:
        """Read which VM a template's name means now. Raises NotFoundError when it is not fit."""
        return self._read_template(name)[2]

    def get_source(self, name: str, pin: TemplatePin) -> Source:
        """Read the snapshot that is cloned.

        Raises:
            NotFoundError: the template is gone or not fit.
            TemplateChangedError: it is not the pinned one.
        """
        reading, snapshot, found = self._read_template(name)
        if found != pin:
            raise TemplateChangedError(
                f"{self._session.title}: {self._site.vm_templates[name].path} changed since it was"
                f" pinned: {_tell_difference(pin, found)}",
                hint="nothing was cloned; provision again clones the template as it is now",
            )
        paths = [DEVICES_PATH, "config.extraConfig"]
        spec = build_spec([snapshot], {vim.vm.Snapshot: paths})
        held = self._session.retrieve(f"read the snapshot of {name}", spec)
        if not held:
            raise NotFoundError(
                f"{self._session.title}: the snapshot of {name} is gone",
                hint="somebody works on the template; run the same command again",
            )
        values = held[0].values
        return Source(
            template=reading.ref,
            snapshot=snapshot,
            nics=tuple(list_nics(values)),
            guestinfo_keys=tuple(str(one.key) for one in values.get("config.extraConfig", ())),
        )

    def _read_template(self, name: str) -> tuple[Reading, Any, TemplatePin]:
        """Read a template that is fit, its snapshot, and its pin."""
        wanted, readings = self._site.vm_templates[name], tuple[Reading, ...]()
        for anew in (False, True):
            ref = self.get_place(anew=anew).templates.get(name)
            if ref is not None:
                spec = build_spec([ref], {vim.VirtualMachine: TEMPLATE_PATHS})
                readings = self._session.retrieve(f"read the template {wanted.path}", spec)
            if readings:
                break
        problem = find_unfitness(readings[0].values, wanted) if readings else "it is gone"
        if problem:
            raise NotFoundError(
                f"{self._session.title}: cannot clone {wanted.path}: {problem}",
                hint="mend the template in vCenter, or name another one in the site file",
            )
        values = readings[0].values
        snapshot = _list_snapshots(values, wanted.snapshot)[0].snapshot
        pin = TemplatePin(
            instance_uuid=str(values[UUID_PATH]),
            change_version=str(values[VERSION_PATH]),
            snapshot=get_moref(snapshot),
            disk_count=len(list_disks(values)),
        )
        return readings[0], snapshot, pin

    def _resolve(self, content: Any) -> Place:
        site, problems = self._site, []

        def find(setting: str, path: str, kind: type) -> Any:
            ref = content.searchIndex.FindByInventoryPath(path.lstrip("/"))
            if isinstance(ref, kind) and not isinstance(ref, vim.OpaqueNetwork):
                return ref
            is_what = "nothing that this account can see" if ref is None else _call(ref)
            problems.append(f"{setting}: {path} is {is_what}, not a {CALLED[kind]}")
            return None

        def find_all(section: str, paths: Mapping[str, str], kind: type) -> dict[str, Any]:
            found = {name: find(f"{section}.{name}", paths[name], kind) for name in paths}
            return {name: ref for name, ref in found.items() if ref is not None}

        placement = {
            key: find(f"placement.{key}", getattr(site.placement, key), kind)
            for key, kind in PLACEMENT.items()
        }
        placement = {key: ref for key, ref in placement.items() if ref is not None}
        networks = find_all("networks", site.networks, vim.Network)
        paths = {name: template.path for name, template in site.vm_templates.items()}
        templates = find_all("vm_templates", paths, vim.VirtualMachine)
        values = _read_all(content, [*placement.values(), *templates.values()])
        folder = placement.get("folder")
        if folder and "VirtualMachine" not in values.get(get_moref(folder), {}).get(
            "childType", ()
        ):
            problems.append(f"placement.folder: {site.placement.folder} is not a folder of VMs")
        observed = tuple(
            _observe_template(name, wanted, templates.get(name), values)
            for name, wanted in site.vm_templates.items()
        )
        problems += [
            f"vm_templates.{one.name}: {one.path}: {one.problem}"
            for one in observed
            if not one.fit and one.name in templates
        ]
        datastores, observed_datastores = self._find_datastores(content, placement, problems)
        return Place(
            placement=placement,
            portgroups=describe_networks(content, site.networks, networks, problems),
            templates=templates,
            datastores=datastores,
            observed_datastores=observed_datastores,
            observed_templates=observed,
            problems=tuple(problems),
        )

    def _find_datastores(
        self, content: Any, placement: Mapping[str, Any], problems: list[str]
    ) -> tuple[dict[str, Any], tuple[ObservedDatastore, ...]]:
        """Find the site's datastores among those that the pool's hosts can reach."""
        pool = placement.get("resource_pool")
        if pool is None:
            return {}, ()
        steps = ((vim.ResourcePool, "owner"), (vim.ComputeResource, "datastore"))
        spec = build_spec([pool], {vim.Datastore: STORE_PATHS}, *steps)
        readings = {str(one.values.get("summary.name")): one for one in retrieve(content, spec)}
        observed = []
        for name in self._site.placement.datastores:
            if name not in readings:
                there = ", ".join(sorted(readings)) or "none"
                problems.append(
                    f"placement.datastores: the hosts of {self._site.placement.resource_pool} have"
                    f" no datastore {name}; they have: {there}"
                )
                continue
            values = readings[name].values
            usable = (
                bool(values.get("summary.accessible"))
                and values.get("summary.maintenanceMode", "normal") == "normal"
            )
            free_gib = int(values.get("summary.freeSpace", 0)) / GIB
            observed.append(ObservedDatastore(name=name, free_gib=free_gib, usable=usable))
        return {one.name: readings[one.name].ref for one in observed}, tuple(observed)


def _call(ref: Any) -> str:
    name = type(ref).__name__.rpartition(".")[2]
    return f"a {next((word for kind, word in CALLED.items() if isinstance(ref, kind)), name)}"


def _read_all(content: Any, refs: list[Any]) -> dict[str, Mapping[str, Any]]:
    if not refs:  # this account sees nothing of the site
        return {}
    paths = {vim.Folder: ["childType"], vim.VirtualMachine: TEMPLATE_PATHS}
    return {one.moref: one.values for one in retrieve(content, build_spec(refs, paths))}


def _tell_difference(pin: TemplatePin, found: TemplatePin) -> str:
    then, now = asdict(pin), asdict(found)
    return ", ".join(
        f"{name} was {then[name]}, is {now[name]}" for name in then if then[name] != now[name]
    )


def _list_snapshots(values: Mapping[str, Any], name: str) -> list[Any]:
    trees = walk_snapshots(values.get(SNAPSHOTS_PATH, ()))
    return [tree for tree in trees if tree.name == name]


def find_unfitness(values: Mapping[str, Any], wanted: VmTemplate) -> str:
    """Say why a VM cannot be the source of linked clones; empty when it can."""
    snapshots = len(_list_snapshots(values, wanted.snapshot))
    if values.get("config.template", True):
        return "it is marked as a template, which has no linked clones: convert it to a VM"
    if values.get(POWER_PATH) != vim.VirtualMachine.PowerState.poweredOff:
        return "it is not powered off"
    if read_option(values, MARK_PATH):
        return "it carries a labctl mark: it is, or was cloned from, a guest of a lab"
    if snapshots != 1:
        return f"it has {snapshots or 'no'} snapshots named {wanted.snapshot}; one is needed"
    return ""


def _observe_template(
    name: str, wanted: VmTemplate, ref: Any, values: Mapping[str, Mapping[str, Any]]
) -> ObservedTemplate:
    if ref is None:
        return ObservedTemplate(name, wanted.path, fit=False, disk_gib=0, problem="not found")
    read = values.get(get_moref(ref), {})
    problem = find_unfitness(read, wanted)
    disk_gib = sum(int(disk.capacityInKB) for disk in list_disks(read)) / KIB_PER_GIB
    return ObservedTemplate(name, wanted.path, fit=not problem, disk_gib=disk_gib, problem=problem)


def describe_networks(
    content: Any, paths: Mapping[str, str], found: Mapping[str, Any], problems: list[str]
) -> dict[str, Portgroup]:
    """Describe portgroups: those of distributed switches need their key and the switch's UUID."""
    # A standard portgroup's name is the end of its path: site files have nothing to escape there.
    portgroups = {
        name: Portgroup(ref=ref, name=paths[name].rpartition("/")[2]) for name, ref in found.items()
    }
    distributed = {name: ref for name, ref in found.items() if isinstance(ref, DISTRIBUTED)}
    if not distributed:
        return portgroups
    spec = build_spec(distributed.values(), {DISTRIBUTED: ["key", SWITCH_PATH]})
    values = {one.moref: one.values for one in retrieve(content, spec)}
    switches = {moref: read.get(SWITCH_PATH) for moref, read in values.items()}
    readable = {get_moref(switch): switch for switch in switches.values() if switch is not None}
    uuids: dict[str, str] = {}
    if readable:
        spec = build_spec(readable.values(), {vim.DistributedVirtualSwitch: ["uuid"]})
        uuids = {one.moref: str(one.values.get("uuid", "")) for one in retrieve(content, spec)}
    for name, ref in distributed.items():
        switch = switches.get(get_moref(ref))
        uuid = uuids.get(get_moref(switch), "") if switch is not None else ""
        key = str(values.get(get_moref(ref), {}).get("key", ""))
        if not (key and uuid):
            problems.append(
                f"networks.{name}: {paths[name]}: the account needs System.Read on it and on its"
                " distributed switch"
            )
            del portgroups[name]
            continue
        portgroups[name] = replace(portgroups[name], key=key, switch_uuid=uuid)
    return portgroups
