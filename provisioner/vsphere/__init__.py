"""The Hypervisor port on pyVmomi, which nothing else but the simulator imports."""

from provisioner.vsphere.hypervisor import VsphereHypervisor

__all__ = ["VsphereHypervisor"]
