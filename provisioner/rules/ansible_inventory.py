"""The Ansible inventory of a lab, as plain data without a secret."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from provisioner.errors import InputError
from provisioner.model.lab import GuestRecord, Lab
from provisioner.model.spec import GuestSettings, Site, Stack
from provisioner.rules.ssh import ADMIN_USER, build_jump, build_path_word, get_address

_Get = Callable[[GuestSettings], Any]


def _no_proxy(guests: GuestSettings) -> list[str]:
    return list(guests.proxy.no_proxy)


# Which setting of a site goes to which variables of the roles. What a site leaves open is not
# passed: the role's default holds. The CA certificates come as texts and are added below.
SITE_VARIABLES: dict[str, _Get] = {
    "linux_baseline_dns_servers": lambda guests: [str(address) for address in guests.dns],
    "linux_baseline_dns_search": lambda guests: list(guests.dns_search),
    "linux_baseline_ntp_servers": lambda guests: list(guests.ntp),
    "linux_baseline_http_proxy": lambda guests: guests.proxy.http,
    "linux_baseline_https_proxy": lambda guests: guests.proxy.https,
    "linux_baseline_no_proxy": _no_proxy,
    "linux_baseline_apt_debian_uri": lambda guests: guests.apt and guests.apt.debian,
    "linux_baseline_apt_security_uri": lambda guests: guests.apt and guests.apt.security,
    "linux_baseline_pip_index_url": lambda guests: guests.pip_index_url,
    "linux_baseline_ssh_from": lambda guests: [str(network) for network in guests.ssh_from],
    "docker_engine_registry_mirrors": lambda guests: list(guests.docker_registry_mirrors),
    "docker_engine_http_proxy": lambda guests: guests.proxy.http,
    "docker_engine_https_proxy": lambda guests: guests.proxy.https,
    "docker_engine_no_proxy": _no_proxy,
}
CA_VARIABLE = "linux_baseline_ca_certificates"


def build_inventory(
    lab: Lab,
    guests: tuple[GuestRecord, ...],
    site: Site,
    ca_texts: tuple[str, ...],
    stack: Stack,
    *,
    key_file: str,
    known_hosts_file: str,
) -> dict[str, Any]:
    """Build the inventory: a guest's name is its slot, its groups are the roles of its blueprint.

    A site's setting wins over the stack's: the stack says what the team wants, the site where
    that can be had.

    Raises:
        RefusedError: a guest has no address or no pinned key.
        InputError: a value would be a Jinja expression.
    """
    hosts = {
        guest.identity.slot: _build_host(guest, site, key_file, known_hosts_file)
        for guest in guests
    }
    place = {name: get(site.guests) for name, get in SITE_VARIABLES.items()}
    own = {
        **{name: value for name, value in place.items() if value},
        **({CA_VARIABLE: list(ca_texts)} if ca_texts else {}),
        "labctl_lab_id": lab.lab_id,
        "labctl_hire_login": lab.hire.login,
        "labctl_hire_name": lab.hire.email,
        "labctl_hire_key": lab.hire.public_key,
        "labctl_lease_end": f"{lab.lease.ends_at:%Y-%m-%d}",
    }
    _refuse_jinja(own, "the inventory")
    _refuse_jinja(hosts, "the inventory")
    of_stack = {name: value for role in stack.roles.values() for name, value in role.items()}
    groups: dict[str, Any] = {}
    for spec in lab.blueprint.guests:
        for role in spec.roles:
            groups.setdefault(role, {"hosts": {}})["hosts"][spec.slot] = {}
    return {"all": {"hosts": hosts, "children": groups, "vars": {**of_stack, **own}}}


def _build_host(
    guest: GuestRecord, site: Site, key_file: str, known_hosts_file: str
) -> dict[str, str]:
    options = {
        "HostKeyAlias": guest.vm_name,
        "UserKnownHostsFile": build_path_word(known_hosts_file),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
    }
    if site.jump_host:
        options["ProxyJump"] = build_jump(site.jump_host)
    return {
        "ansible_host": get_address(guest),
        "ansible_user": ADMIN_USER,
        "ansible_ssh_private_key_file": key_file,
        "ansible_ssh_common_args": " ".join(
            f"-o {shlex.quote(f'{name}={value}')}" for name, value in options.items()
        ),
    }


def _refuse_jinja(value: Any, where: str) -> None:
    """Ansible would execute it: nothing that IT or a hire wrote is meant as an expression."""
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_jinja(item, name)
    elif isinstance(value, list):
        for item in value:
            _refuse_jinja(item, where)
    elif any(mark in value for mark in ("{{", "{%", "{#")):
        raise InputError(
            f"{where} holds an opening brace that Ansible would read as an expression",
            hint="remove it from the site file, or from the file that it names",
        )
