"""What this machine needs to reach the world, so that the simulator's guests can reach it too.

A guest of the simulator is a fresh Debian on this machine's network. Where the machine itself
goes through a proxy, trusts a CA of the company or installs from its mirrors, so must the guest.
Nothing secret is taken over: an address with a password in it is refused, not copied.
"""

from __future__ import annotations

import configparser
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from pydantic import TypeAdapter, ValidationError

from provisioner.errors import InputError
from provisioner.files.site import find_ca_fault
from provisioner.model.spec import HostName, Url

SITE = "sim"
RESOLVED_CONF = "run/systemd/resolve/resolv.conf"
PIP_SECTIONS = ("install", "global")  # of one file, the command's own section wins

# Debian's releases by name and by standing, with the suites that belong to every installation.
_SUITE = re.compile(
    r"(bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)"
    r"(?P<part>-updates|-security|/updates)?/?"
)
_ONE_LINE = re.compile(
    r"deb\s+(\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)"
)


@dataclass(frozen=True)
class HostSettings:
    """This machine's own settings; empty means that it has none.

    `ca_certificates` are files. The addresses are safe to write into a site file.
    """

    ca_certificates: tuple[str, ...] = ()
    apt_debian: str = ""
    apt_security: str = ""
    pip_index_url: str = ""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()


@dataclass(frozen=True)
class AptSource:
    """One enabled binary package source, of either format."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str


def read_host_settings(environ: Mapping[str, str], root: Path = Path("/")) -> HostSettings:
    """Read this machine's settings; `root` is where its file system begins.

    Raises:
        InputError: an address cannot serve guests: it holds a password, or is this machine's
            own loopback. All such addresses are named at once, without the password.
    """
    apt = _find_debian(list_apt_sources(root))
    proxies = {key: _get_either_case(environ, key) for key in ("http_proxy", "https_proxy")}
    addresses = {
        "the apt source of Debian": apt.get("debian", ""),
        "the apt source of Debian's security updates": apt.get("security", ""),
        "pip's index-url": find_pip_index(environ, root),
        **proxies,
    }
    faults = [f"{what}: {fault}" for what, url in addresses.items() if (fault := _find_fault(url))]
    if faults:
        raise InputError(
            "this machine's settings cannot be given to guests: " + "; ".join(faults),
            hint="set http_proxy, https_proxy or PIP_INDEX_URL for this one command to addresses "
            "that guests can use, or mend the apt source",
        )
    dns, search = find_dns(root)
    return HostSettings(
        ca_certificates=_find_ca_certificates(root),
        apt_debian=apt.get("debian", ""),
        apt_security=apt.get("security", ""),
        pip_index_url=addresses["pip's index-url"],
        http_proxy=proxies["http_proxy"],
        https_proxy=proxies["https_proxy"],
        no_proxy=_split_no_proxy(_get_either_case(environ, "no_proxy")),
        dns=dns,
        dns_search=search,
    )


def _get_either_case(environ: Mapping[str, str], key: str) -> str:
    """Return a proxy variable; lower case wins, as in curl, apt and pip."""
    return environ.get(key) or environ.get(key.upper(), "")


def _split_no_proxy(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[A-Za-z0-9.:*/_-]+", text))


def _find_fault(url: str) -> str:
    """Say why an address cannot be given to guests, without repeating it; empty when it can."""
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        secret = "@" in parts.netloc
    except ValueError:
        return "it is no address"
    if secret:
        return "it has a user name or password in it, and a secret is never copied"
    if _is_loopback(host):
        return f"{host} is this machine's own loopback, which no guest can reach"
    return "" if _fits(Url, url) else "it is no http:// or https:// address"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _fits(kind: Any, value: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def _find_ca_certificates(root: Path) -> tuple[str, ...]:
    """List the files that update-ca-certificates adds to this machine's own trust."""
    folder = root / "usr/local/share/ca-certificates"
    found = sorted(path for path in folder.rglob("*.crt") if path.is_file())
    return tuple(str(path) for path in found if not find_ca_fault(path))


# -- apt --------------------------------------------------------------------------------------


def list_apt_sources(root: Path) -> tuple[AptSource, ...]:
    """List the enabled `deb` sources of this machine, one for each suite, in apt's order."""
    folder = root / "etc/apt"
    parts = folder / "sources.list.d"
    files = [folder / "sources.list", *sorted([*parts.glob("*.list"), *parts.glob("*.sources")])]
    found: list[AptSource] = []
    for path in files:
        parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
        found += parse(_read(path))
    return tuple(found)


def parse_one_line(text: str) -> Iterator[AptSource]:
    """Parse `deb [options] uri suite component...` lines (sources.list(5))."""
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match:
            options = dict(re.findall(r"([A-Za-z-]+)=(\S+)", match["options"] or ""))
            yield AptSource(
                uri=match["uri"],
                suite=match["suite"],
                components=tuple(match["rest"].split()),
                signed_by=options.get("signed-by", ""),
            )


def parse_deb822(text: str) -> Iterator[AptSource]:
    """Parse stanzas of `Types:`, `URIs:`, `Suites:`, `Components:` (sources.list(5))."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n[ \t]*\n", "\n".join(lines)):
        fields = {
            name.lower(): " ".join(value.split())
            for name, value in re.findall(
                r"^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE
            )
        }
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off", "without")
        if not enabled or "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield AptSource(
                    uri=uri,
                    suite=suite,
                    components=tuple(fields.get("components", "").split()),
                    signed_by=fields.get("signed-by", ""),
                )


def _find_debian(sources: tuple[AptSource, ...]) -> dict[str, str]:
    """Find Debian's own mirrors: the first for packages, and the first for security updates."""
    found: dict[str, str] = {}
    for source in sources:
        suite = _SUITE.fullmatch(source.suite)
        if suite and _is_debian(source):
            part = suite["part"] or ""
            kind = "security" if part in ("-security", "/updates") else "debian"
            found.setdefault(kind, source.uri.rstrip("/"))
    return found


def _is_debian(source: AptSource) -> bool:
    """Tell Debian's own archive from a third party's that uses its release names.

    Debian's key decides where one is named; without one, the path must speak of Debian.
    """
    if "main" not in source.components or not source.uri.startswith(("http://", "https://")):
        return False
    if source.signed_by:
        return "debian-archive" in source.signed_by
    return "debian" in urlsplit(source.uri).path


# -- pip --------------------------------------------------------------------------------------


def find_pip_index(environ: Mapping[str, str], root: Path) -> str:
    """Find the index that pip on this machine uses: the environment, then pip's files.

    The order of the files is pip's own: $PIP_CONFIG_FILE, the user's, the machine's.
    """
    if index := environ.get("PIP_INDEX_URL"):
        return index.rstrip("/")
    home = Path(environ.get("HOME", "/nonexistent"))
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    chosen = environ.get("PIP_CONFIG_FILE", "")
    user = [config_home / "pip/pip.conf", home / ".pip/pip.conf"]
    machine = [root / "etc/pip.conf", root / "etc/xdg/pip/pip.conf"]
    files = [] if chosen == "/dev/null" else [*([Path(chosen)] if chosen else []), *user, *machine]
    return next((index for path in files if (index := _read_pip_index(path))), "")


def _read_pip_index(path: Path) -> str:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(_read(path))
    except configparser.Error:
        return ""
    for section in PIP_SECTIONS:
        for key in ("index-url", "index_url"):
            if value := parser.get(section, key, fallback=""):
                return value.strip().rstrip("/")
    return ""


# -- DNS --------------------------------------------------------------------------------------


def find_dns(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find name servers that guests can reach too, and search domains.

    A resolver on this machine's loopback is no use to a guest: then the servers behind it are
    asked, as systemd-resolved lists them.
    """
    for path in (root / "etc/resolv.conf", root / RESOLVED_CONF):
        text = _read(path)
        servers = tuple(filter(_is_reachable, _take_words(text, "nameserver")))
        if servers:
            search = dict.fromkeys(_take_words(text, "search"))
            return servers, tuple(name for name in search if _fits(HostName, name))
    return (), ()


def _take_words(text: str, keyword: str) -> Iterator[str]:
    for line in text.splitlines():
        words = re.split(r"[#;]", line)[0].split()
        if words and words[0] == keyword:
            yield from words[1:]


def _is_reachable(server: str) -> bool:
    try:
        address = ipaddress.ip_address(server)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


# -- the site ---------------------------------------------------------------------------------


def build_simulator_site(settings: HostSettings, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Build the simulator's site as plain data, from its endpoint file and this machine."""
    return {
        "site": SITE,
        "title": "the simulated vCenter of this machine",
        "vcenter": {
            "host": endpoint["host"],
            "port": endpoint["port"],
            "username": endpoint["username"],
            "password_file": endpoint["password_file"],
            "thumbprint_sha256": _with_colons(endpoint["thumbprint_sha256"]),
        },
        "placement": {
            "datacenter": "/DC0",
            "folder": "/DC0/vm/labs",
            "resource_pool": "/DC0/host/cluster-0/Resources",
            "datastores": ["datastore-0", "datastore-1"],
        },
        "networks": {"lab": "/DC0/network/lab", "sealed": "/DC0/network/sealed"},
        "vm_templates": {
            "debian-13": {"path": "/DC0/vm/templates/debian-13", "snapshot": "labctl-base"}
        },
        "guests": _build_guests(settings),
    }


def _with_colons(digest: str) -> str:
    digest = digest.replace(":", "").upper()
    return ":".join(re.findall("..", digest))


def _build_guests(settings: HostSettings) -> dict[str, Any]:
    proxy = {
        "http": settings.http_proxy,
        "https": settings.https_proxy,
        "no_proxy": list(settings.no_proxy),
    }
    apt = {"debian": settings.apt_debian, "security": settings.apt_security}
    guests = {
        "ca_certificates": list(settings.ca_certificates),
        "dns": list(settings.dns),
        "dns_search": list(settings.dns_search),
        "proxy": _drop_empty(proxy) if proxy["http"] or proxy["https"] else {},
        "apt": _drop_empty(apt) if apt["debian"] else {},
        "pip_index_url": settings.pip_index_url,
    }
    return _drop_empty(guests)


def _drop_empty(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value}


def write_site(path: Path, data: Mapping[str, Any]) -> None:
    """Write a site file, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = (
        "# Written by `labctl sim up` from this machine's own settings; written anew each time.\n"
    )
    text += yaml.safe_dump(dict(data), sort_keys=False)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
