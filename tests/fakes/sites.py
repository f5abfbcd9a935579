"""A site as vCenter might show it."""

from __future__ import annotations

from provisioner.model.observed import ObservedDatastore, ObservedSite, ObservedTemplate
from tests.fakes.samples import VCENTER


def make_observed(
    *datastores: ObservedDatastore,
    templates: tuple[ObservedTemplate, ...] | None = None,
    vm_names: tuple[str, ...] = (),
    problems: tuple[str, ...] = (),
) -> ObservedSite:
    if templates is None:
        path = "/DC0/vm/templates/debian-13"
        templates = (ObservedTemplate("debian-13", path, fit=True, disk_gib=32),)
    return ObservedSite(
        vcenter_uuid=VCENTER,
        vcenter_name="vcenter.example.com",
        datastores=datastores or (ObservedDatastore("datastore-0", 500, usable=True),),
        templates=templates,
        vm_names=vm_names,
        problems=problems,
    )
