"""A vCenter for machines without one: the real SOAP API, and guests behind its VMs.

Start it with ``python -m provisioner.simulator --state DIR``; it imports nothing else of labctl.
"""
