from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.errors import InputError, RefusedError
from provisioner.model.spec import GuestSettings, Site, Stack
from provisioner.rules.ansible_inventory import CA_VARIABLE, SITE_VARIABLES, build_inventory
from tests.fakes.samples import KEY, make_guests, make_lab, make_site

ROLES = Path(__file__).parents[2] / "playbooks" / "roles"
STACK = Stack.model_validate(
    {
        "stack": "team",
        "version": "1",
        "roles": {
            "mlflow_server": {"mlflow_server_version": "3.17.2"},
            "docker_engine": {"docker_engine_registry_mirrors": ["https://of-the-team.example"]},
        },
    }
)
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
WHOLE: dict[str, Any] = {
    "dns": ["192.0.2.53", "2001:db8::53"],
    "dns_search": ["example.com"],
    "ntp": ["ntp.example.com"],
    "proxy": {
        "http": "http://proxy.example.com:3128",
        "https": "http://proxy.example.com:3129",
        "no_proxy": [".example.com", "192.0.2.0/24"],
    },
    "apt": {
        "debian": "http://mirror.example.com/debian",
        "security": "http://mirror.example.com/security",
    },
    "pip_index_url": "https://pypi.example.com/simple",
    "docker_registry_mirrors": ["https://of-the-site.example"],
    "ssh_from": ["192.0.2.0/24", "2001:db8::/32"],
}
VALUES = {
    "linux_baseline_dns_servers": ["192.0.2.53", "2001:db8::53"],
    "linux_baseline_dns_search": ["example.com"],
    "linux_baseline_ntp_servers": ["ntp.example.com"],
    "linux_baseline_http_proxy": "http://proxy.example.com:3128",
    "linux_baseline_https_proxy": "http://proxy.example.com:3129",
    "linux_baseline_no_proxy": [".example.com", "192.0.2.0/24"],
    "linux_baseline_apt_debian_uri": "http://mirror.example.com/debian",
    "linux_baseline_apt_security_uri": "http://mirror.example.com/security",
    "linux_baseline_pip_index_url": "https://pypi.example.com/simple",
    "linux_baseline_ssh_from": ["192.0.2.0/24", "2001:db8::/32"],
    "docker_engine_registry_mirrors": ["https://of-the-site.example"],
    "docker_engine_http_proxy": "http://proxy.example.com:3128",
    "docker_engine_https_proxy": "http://proxy.example.com:3129",
    "docker_engine_no_proxy": [".example.com", "192.0.2.0/24"],
}
OF_LAB = {
    "labctl_lab_id": "ana-mlops",
    "labctl_hire_login": "ana",
    "labctl_hire_name": "ana@example.com",
    "labctl_hire_key": KEY,
    "labctl_lease_end": "2026-03-16",
}


def build(site: Site, ca_texts: tuple[str, ...] = (), stack: Stack = STACK, **paths: str) -> Any:
    lab = make_lab("ana-mlops", 1, "workbench", "tracking")
    paths = {"key_file": "/state/keys/1", "known_hosts_file": "/state/known_hosts", **paths}
    return build_inventory(lab, make_guests(lab), site, ca_texts, stack, **paths)


def build_vars(site: Site, *ca_texts: str) -> dict[str, Any]:
    found: dict[str, Any] = build(site, ca_texts)["all"]["vars"]
    return found


def read_specs() -> dict[str, str]:
    """Read every variable that a role specifies, with its type."""
    specs: dict[str, str] = {}
    for path in ROLES.glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            specs |= {name: option["type"] for name, option in entry["options"].items()}
    return specs


def test_every_variable_is_in_a_roles_spec_with_its_type() -> None:
    specs = read_specs()
    emitted = build_vars(make_site(guests=WHOLE), PEM)
    assert set(SITE_VARIABLES) | {CA_VARIABLE} | set(OF_LAB) <= set(emitted)
    kinds = {"list": list, "str": str, "int": int, "bool": bool, "dict": dict}
    for name, value in emitted.items():
        assert name in specs, f"no role knows {name}"
        assert isinstance(value, kinds[specs[name]]), name


def test_each_setting_of_a_site_reaches_its_variables() -> None:
    assert set(VALUES) == set(SITE_VARIABLES)
    found = build_vars(make_site(guests=WHOLE), PEM)
    assert {name: found[name] for name in VALUES} == VALUES
    assert found[CA_VARIABLE] == [PEM]


def test_no_setting_of_a_site_is_forgotten() -> None:
    empty = build_vars(make_site())
    for setting in set(GuestSettings.model_fields) - {"ca_certificates"}:
        changed = build_vars(make_site(guests={setting: WHOLE[setting]}))
        assert changed != empty, f"{setting} of a site file reaches no role"


def test_what_a_site_leaves_open_is_left_to_the_roles() -> None:
    of_stack = {name: value for role in STACK.roles.values() for name, value in role.items()}
    assert build_vars(make_site()) == {**of_stack, **OF_LAB}


def test_the_site_knows_better_than_the_stack_where_things_are() -> None:
    name = "docker_engine_registry_mirrors"
    assert build_vars(make_site())[name] == ["https://of-the-team.example"]
    assert build_vars(make_site(guests=WHOLE))[name] == ["https://of-the-site.example"]


def test_guests_are_in_the_groups_of_their_roles() -> None:
    groups = build(make_site())["all"]["children"]
    both: dict[str, Any] = {"hosts": {"workbench": {}, "tracking": {}}}
    assert groups == dict.fromkeys(
        ("linux_baseline", "hire_account", "docker_engine", "mlflow_server"), both
    )


def test_a_guest_is_reached_by_labctls_key_and_its_pinned_host_key() -> None:
    host = build(make_site())["all"]["hosts"]["tracking"]
    assert host["ansible_host"] == "192.0.2.10"
    assert host["ansible_user"] == "labctl"
    assert host["ansible_ssh_private_key_file"] == "/state/keys/1"
    assert host["ansible_ssh_common_args"] == (
        "-o HostKeyAlias=ana-mlops-tracking -o UserKnownHostsFile=/state/known_hosts "
        "-o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    )


@pytest.mark.parametrize(
    ("jump_host", "expected"),
    [
        ({"host": "jump.example.com", "user": "lab"}, "ProxyJump=lab@jump.example.com:22"),
        ({"host": "2001:db8::1", "user": "lab", "port": 2222}, "ProxyJump=lab@[2001:db8::1]:2222"),
    ],
)
def test_the_way_leads_over_the_jump_host(jump_host: dict[str, Any], expected: str) -> None:
    args = build(make_site(jump_host=jump_host))["all"]["hosts"]["workbench"]
    assert shlex.split(args["ansible_ssh_common_args"])[-1] == expected


def test_odd_paths_stay_one_word() -> None:
    host = build(make_site(), known_hosts_file="/my state/100%/known_hosts")["all"]["hosts"]
    words = shlex.split(host["workbench"]["ansible_ssh_common_args"])
    assert 'UserKnownHostsFile="/my state/100%%/known_hosts"' in words
    with pytest.raises(InputError, match="cannot be written into ssh's configuration"):
        build(make_site(), known_hosts_file='/state"/known_hosts')


def test_it_is_plain_data_without_a_private_key() -> None:
    text = json.dumps(build(make_site(guests=WHOLE), (PEM,)))
    assert "PRIVATE" not in text
    assert json.loads(text) == build(make_site(guests=WHOLE), (PEM,))


@pytest.mark.parametrize("mark", ["{{ lookup('pipe', 'id') }}", "{% if true %}", "{# x #}"])
def test_what_ansible_would_execute_is_refused(mark: str) -> None:
    with pytest.raises(InputError, match=f"{CA_VARIABLE} holds an opening brace"):
        build(make_site(), (f"{PEM}{mark}",))
    with pytest.raises(InputError, match="opening brace"):
        build(make_site(), key_file=f"/state/{mark}")
    lab = make_lab()
    lab = replace(lab, hire=replace(lab.hire, public_key=f"{KEY} {mark}"))
    with pytest.raises(InputError, match="labctl_hire_key holds an opening brace"):
        build_inventory(
            lab, make_guests(lab), make_site(), (), STACK, key_file="/k", known_hosts_file="/h"
        )


@pytest.mark.parametrize(
    ("hints", "text"),
    [
        ({"address": ""}, "was never reached"),
        ({"host_key": ""}, "was never reached"),
        ({"address": "192.0.2.1 -oProxyCommand=id"}, "which is no IP address"),
        ({"address": "guest.example.com"}, "which is no IP address"),
    ],
)
def test_a_guest_that_cannot_be_reached_is_refused(hints: dict[str, str], text: str) -> None:
    lab = make_lab()
    guests = make_guests(lab, **hints)
    with pytest.raises(RefusedError, match=text):
        build_inventory(lab, guests, make_site(), (), STACK, key_file="/k", known_hosts_file="/h")
