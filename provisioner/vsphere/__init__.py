"""The Hypervisor port on pyVmomi: the only place, beside the simulator, that knows vSphere's API."""

from provisioner.vsphere.hypervisor import VsphereHypervisor

__all__ = ["VsphereHypervisor"]
