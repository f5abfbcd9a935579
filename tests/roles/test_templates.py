"""Templates as real machines would get them, rendered by Ansible itself on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.conftest import PLAYBOOKS, ROLES

SITE = {
    "linux_baseline_http_proxy": "http://proxy.corp.example:3128",
    "linux_baseline_no_proxy": [".corp.example"],
    "linux_baseline_ntp_servers": ["ntp1.corp.example", "ntp2.corp.example"],
    "linux_baseline_dns_servers": ["192.0.2.53", "2001:db8::53"],
    "linux_baseline_dns_search": ["corp.example"],
    "linux_baseline_apt_debian_uri": "http://mirror.corp.example/debian",
    "linux_baseline_apt_security_uri": "http://mirror.corp.example/debian-security",
    "linux_baseline_ssh_from": ["192.0.2.0/24", "2001:db8::/32"],
    "docker_engine_registry_mirrors": ["https://hub.corp.example"],
    "docker_engine_http_proxy": "http://proxy.corp.example:3128",
}


def render(tmp_path: Path, *, machine: list[str], **variables: Any) -> dict[str, str]:
    """Render every template of the two roles that carry a site's settings."""
    roles = [role for role in ROLES if role.name in {"docker_engine", "linux_baseline"}]
    out = tmp_path / "out"
    out.mkdir()
    values: dict[str, Any] = {}
    for role in roles:
        values |= role.read("defaults/main.yml") | (role.read("vars/main.yml") or {})
    facts = {"virtualization_tech_guest": machine, "distribution_release": "trixie"}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {**values, **variables, "ansible_facts": facts},
        "tasks": [
            {
                "name": "Render",
                "ansible.builtin.template": {
                    "src": "{{ item }}",
                    "dest": f"{out}/{{{{ item | basename }}}}",
                    "mode": "0600",
                },
                "loop": [str(file) for role in roles for file in role.path.glob("templates/*")],
            }
        ],
    }
    playbook = tmp_path / "render.yml"
    playbook.write_text(yaml.safe_dump([play]))
    # A template that reads another one looks beside the playbook.
    (tmp_path / "templates").symlink_to(PLAYBOOKS / "roles/linux_baseline/templates")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-c", "local", playbook],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.name: file.read_text() for file in out.iterdir()}


@pytest.fixture(scope="module")
def on_a_vm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("vm"), machine=["VMware"], **SITE)


@pytest.fixture(scope="module")
def in_a_container(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("container"), machine=["container", "docker"])


def test_a_vm_gets_all_kernel_settings(on_a_vm: dict[str, str]) -> None:
    assert "vm.swappiness = 10\n" in on_a_vm["sysctl.conf.j2"]
    assert "fs.inotify.max_user_instances = 512\n" in on_a_vm["sysctl.conf.j2"]
    assert "net.ipv4.conf.all.send_redirects = 0\n" in on_a_vm["sysctl.conf.j2"]


def test_a_container_gets_its_network_settings_alone(in_a_container: dict[str, str]) -> None:
    settings = [
        line
        for line in in_a_container["sysctl.conf.j2"].splitlines()
        if line and not line.startswith("#")
    ]
    assert settings
    assert all(line.startswith("net.") for line in settings)


def test_the_firewall_lets_in_what_the_site_says(
    on_a_vm: dict[str, str], in_a_container: dict[str, str]
) -> None:
    rules = on_a_vm["firewall.nft.j2"]
    assert "    ip saddr 192.0.2.0/24 tcp dport 22 accept\n" in rules
    assert "    ip6 saddr 2001:db8::/32 tcp dport 22 accept\n" in rules
    assert "\n    tcp dport 22 accept\n" not in rules
    assert "\n    tcp dport 22 accept\n" in in_a_container["firewall.nft.j2"]
    assert "flush ruleset" not in rules


def test_the_engine_gets_mirrors_and_proxies(
    on_a_vm: dict[str, str], in_a_container: dict[str, str]
) -> None:
    settings = json.loads(on_a_vm["daemon.json.j2"])
    assert settings["registry-mirrors"] == ["https://hub.corp.example"]
    assert settings["proxies"] == {"http-proxy": "http://proxy.corp.example:3128"}
    assert settings["log-opts"] == {"max-file": "3", "max-size": "20m"}
    plain = json.loads(in_a_container["daemon.json.j2"])
    assert not {"registry-mirrors", "proxies"} & plain.keys()


def test_a_sites_resolver_clock_and_mirrors(on_a_vm: dict[str, str]) -> None:
    assert "nameserver 192.0.2.53\nnameserver 2001:db8::53\n" in on_a_vm["resolv.conf.j2"]
    assert "search corp.example\n" in on_a_vm["resolv.conf.j2"]
    assert "DNS=192.0.2.53 2001:db8::53\n" in on_a_vm["resolved.conf.j2"]
    assert "NTP=ntp1.corp.example ntp2.corp.example\n" in on_a_vm["timesyncd.conf.j2"]
    sources = on_a_vm["debian.sources.j2"]
    assert "URIs: http://mirror.corp.example/debian\nSuites: trixie trixie-updates\n" in sources
    assert "URIs: http://mirror.corp.example/debian-security\nSuites: trixie-security\n" in sources


def test_a_site_without_settings_leaves_no_trace_of_any(in_a_container: dict[str, str]) -> None:
    assert in_a_container["environment.j2"].strip() == ""
    assert "Proxy" not in in_a_container["apt.conf.j2"]
    assert "Dir::Etc::sourcelist" not in in_a_container["apt.conf.j2"]


def test_services_get_the_proxy_that_logins_get(on_a_vm: dict[str, str]) -> None:
    for line in on_a_vm["environment.j2"].split():
        assert f'DefaultEnvironment="{line}"' in on_a_vm["system.conf.j2"]
    assert "http_proxy=http://proxy.corp.example:3128" in on_a_vm["environment.j2"]
    assert "no_proxy=localhost,127.0.0.1,::1,.corp.example" in on_a_vm["environment.j2"]
