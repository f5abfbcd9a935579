"""What the hire receives: how to reach the lab, in files for ssh and in plain words.

Nothing in it is secret: the hire's own key opens the lab, and passwords are read on the guest.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from provisioner.model.lab import GuestRecord, Lab
from provisioner.model.spec import JumpHost, Site
from provisioner.rules.ssh import build_jump, build_known_hosts, build_path_word, get_address

MLFLOW_PORT = 5000


def build_handover(
    lab: Lab, guests: tuple[GuestRecord, ...], site: Site, *, home: str
) -> tuple[tuple[str, str], ...]:
    """Build the handover's files as (name, text).

    Args:
        lab: the lab, ready.
        guests: its guests in the blueprint's order, each with address and pinned host key.
        site: the site it stands on.
        home: the folder that the files will be in, absolute or below `~/`: ssh_config works from
            any other folder.
    """
    ports = _choose_mlflow_ports(lab)
    return (
        ("ssh_config", _build_ssh_config(lab, guests, site.jump_host, home, ports)),
        ("known_hosts", build_known_hosts(guests)),
        ("README.md", "\n".join(_build_readme(lab, guests, site.jump_host, home, ports))),
    )


def _choose_mlflow_ports(lab: Lab) -> dict[str, int]:
    """Choose a port of the hire's own computer for each guest with MLflow, by slot."""
    slots = [spec.slot for spec in lab.blueprint.guests if "mlflow_server" in spec.roles]
    return {slot: MLFLOW_PORT + number for number, slot in enumerate(slots)}


def _build_ssh_config(
    lab: Lab,
    guests: tuple[GuestRecord, ...],
    jump_host: JumpHost | None,
    home: str,
    ports: dict[str, int],
) -> str:
    blocks = [f"# Lab {lab.lab_id}. Use it with: ssh -F {_shell_path(home, 'ssh_config')} SLOT\n"]
    for guest in guests:
        slot = guest.identity.slot
        lines = [
            f"HostName {get_address(guest)}",
            f"User {lab.hire.login}",
            f"HostKeyAlias {guest.vm_name}",
            f"UserKnownHostsFile {build_path_word(f'{home}/known_hosts')}",
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking yes",
            "ServerAliveInterval 30",
        ]
        if jump_host:
            lines.append(f"ProxyJump {build_jump(jump_host)}")
        if slot in ports:
            lines.append(f"LocalForward {ports[slot]} 127.0.0.1:{MLFLOW_PORT}")
            lines.append("ExitOnForwardFailure no")
        blocks.append("\n".join((f"Host {slot}", *(f"    {line}" for line in lines), "")))
    return "\n".join(blocks)


def _build_readme(
    lab: Lab,
    guests: tuple[GuestRecord, ...],
    jump_host: JumpHost | None,
    home: str,
    ports: dict[str, int],
) -> Iterator[str]:
    roles = {role for spec in lab.blueprint.guests for role in spec.roles}
    slot = guests[0].identity.slot
    config = _shell_path(home, "ssh_config")
    until = f"{lab.lease.ends_at:%Y-%m-%d %H:%M} UTC"
    machines = "one Linux machine" if len(guests) == 1 else f"{len(guests)} Linux machines"
    yield _WELCOME.format(title=lab.blueprint.title, id=lab.lab_id, machines=machines, until=until)
    if home.startswith("~/"):
        parent = _shell_path(home.rpartition("/")[0], "").rstrip("/")
        yield _UNPACK.format(parent=parent, archive=f"{lab.lab_id}.tar.gz")
    logins = "\n".join(f"    ssh -F {config} {guest.identity.slot}" for guest in guests)
    yield _LOG_IN.format(logins=logins, config=config, slot=slot, login=lab.hire.login)
    if jump_host:
        yield _JUMP.format(host=jump_host.host)
    if ports:
        yield _MLFLOW.format(pages="\n".join(_list_pages(ports)))
    if "toolchain" in roles:
        yield _TOOLCHAIN
    if "docker_engine" in roles:
        yield _DOCKER.format(example=_DOCKER_EXAMPLE if "toolchain" in roles else "")
    yield _END.format(id=lab.lab_id, until=until, config=config, slot=slot)


def _list_pages(ports: dict[str, int]) -> Iterator[str]:
    for slot, port in ports.items():
        yield f"- log in to `{slot}`, stay logged in, and visit <http://127.0.0.1:{port}>"


def _shell_path(home: str, name: str) -> str:
    """Build a path as a shell reads it: quoted where needed, a leading `~/` left to expand."""
    tilde, rest = ("~/", home[2:]) if home.startswith("~/") else ("", home)
    return tilde + shlex.quote(f"{rest}/{name}")


_WELCOME = """\
# {title}: lab {id}

Welcome! This lab is {machines} of your own. Nothing that you do there can break
anybody else's work, so try things out. Besides you only labctl can log in, the program by which
IT looks after the lab.

It is yours until **{until}**.
"""

_UNPACK = """\
## First, unpack it

The files find each other by their place, so put them there:

    mkdir -p {parent} && tar -xzf {archive} -C {parent}
"""

_LOG_IN = """\
## Log in

You log in with the SSH key whose public half you gave to IT; there is no password to type.

{logins}

Your name there is `{login}`. If your key is not in its usual place, say where it is:

    ssh -F {config} -i PATH-OF-YOUR-KEY {slot}

Nothing asks whether you trust the machine, because its key is in `known_hosts` already. Should
ssh ever warn you that the key has changed, stop there and tell IT.
"""

_JUMP = """\
The way leads over `{host}`.
About that one ssh does ask, the first time: compare the fingerprint with the one IT publishes.
"""

_MLFLOW = """\
## Open MLflow

MLflow listens inside the machine only. Your SSH connection brings its page to your computer:

{pages}

Your user name and password for it were made on the machine and are kept there, where only you
can read them. Type there:

    lab-credentials

Programs that you run there get them by

    eval "$(lab-credentials --shell)"

After that `mlflow.start_run()` just works, in a script run by `/opt/mlflow/bin/python` or in an
environment of your own.

When you log in a second time, ssh may say "Address already in use": the first connection brings
the page already, and all is well.
"""

_TOOLCHAIN = """\
## Compile C++

gcc, g++, cmake, gdb, git, Python and uv are installed. Try:

    printf '#include <iostream>\\nint main() { std::cout << "it works\\\\n"; }\\n' > hello.cpp
    g++ -O2 -static -o hello hello.cpp && ./hello
"""

_DOCKER = """\
## Run a container

Docker works without sudo.{example}

What that means: you are in the group `docker`, and whoever may talk to Docker is root on the
machine. A container can read and change every file of it. So run only images that you trust, and
let nobody else use your login. A port that you publish is open on the machine's own 127.0.0.1;
bring it to your computer with `-L PORT:127.0.0.1:PORT`.
"""

_DOCKER_EXAMPLE = """\
 This packs the program from above into an image and runs it; no
registry is needed:

    printf 'FROM scratch\\nCOPY hello /hello\\nCMD ["/hello"]\\n' > Dockerfile
    docker build -t hello . && docker run --rm hello"""

_END = """\
## When it ends

The lab ends on {until}. If you need it longer, write to IT before
that day and name the lab: `{id}`. From that day on IT may erase it.

Everything on it goes with it: your files, images and containers, MLflow's runs, models and
artifacts. There is no backup. Push your code to git, and copy what else matters to your computer
in time:

    scp -F {config} -r {slot}:FOLDER .
"""
