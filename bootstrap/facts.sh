# What this machine has: functions that look and change nothing. Sourced by the scripts beside it.
# shellcheck shell=bash disable=SC2034

NEEDED_DISK_GIB=12     # Docker's data: image of the guests, one lab and what its hire builds
USED_DISK_GIB=3        # the same once the image is there
NEEDED_MEMORY_MIB=3700 # a machine sold as 4 GiB shows a little less
OLDEST_PYTHON="3, 11"

# The state folder by the rule of `labctl` itself.
find_state_dir() {
    if [ -n "${LABCTL_STATE:-}" ]; then echo "$LABCTL_STATE"
    elif [ "$(id -u)" = 0 ]; then echo /var/lib/labctl
    else echo "${XDG_STATE_HOME:-$HOME/.local/state}/labctl"; fi
}

# Somebody who can type a password, even where our input is not the terminal.
has_terminal() { { : </dev/tty; } 2>/dev/null; }

# Run as root: as we are, or by sudo, which asks only where somebody can answer.
as_root() {
    local keep=DEBIAN_FRONTEND,http_proxy,https_proxy,no_proxy,HTTP_PROXY,HTTPS_PROXY,NO_PROXY
    if [ "$(id -u)" = 0 ]; then "$@"
    elif has_terminal; then sudo --preserve-env="$keep" "$@"
    else sudo -n --preserve-env="$keep" "$@"; fi
}

has() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps some commands where only root's PATH looks.
has_as_root() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" has "$1"; }

# Print "complete" for a Python that is new enough and makes virtual environments, "bare" for one
# that lacks the second, nothing for another.
judge_python() {
    "$1" -c "import sys; print('bare' if sys.version_info >= ($OLDEST_PYTHON) else '')
import ensurepip, venv; print('complete')" 2>/dev/null | tail -n 1
}

# Print a Python that is new enough, best one that makes virtual environments already.
find_python() {
    local python bare=""
    for python in .venv/bin/python ${PYTHON:-} python3 /usr/bin/python3; do
        has "$python" || continue
        case "$(judge_python "$python")" in
        complete) echo "$python" && return ;;
        bare) bare=/usr/bin/python3 ;; # python3-venv completes Debian's own
        esac
    done
    [ -z "$bare" ] || [ -z "$(judge_python $bare)" ] || echo $bare
}

is_in_docker_group() { id -nG "$(id -un)" | tr ' ' '\n' | grep -qx docker; }

# Run a command in group docker although this login is older than the membership.
in_docker_group() {
    local word words=""
    for word in "$@"; do words+="'${word//\'/\'\\\'\'}' "; done
    sg docker -c "$words"
}

reaches_engine() { [ -n "${DOCKER_HOST:-}" ] || [ -w /var/run/docker.sock ]; }

# Ask Docker, whether or not this login is in its group yet.
ask_docker() {
    if reaches_engine || ! is_in_docker_group; then docker "$@" 2>/dev/null
    else in_docker_group docker "$@" 2>/dev/null; fi
}
runs_engine() { has docker && ask_docker version >/dev/null; }

# Tell whether a process of that name lives. One that ended may stay listed as a zombie for ever,
# where no init system collects it.
has_process() {
    local file name state
    for file in /proc/[0-9]*/stat; do
        read -r _ name state _ 2>/dev/null <"$file" || continue
        if [ "$name" = "($1)" ] && [ "$state" != Z ]; then return; fi
    done
    return 1
}
has_engine_process() { has_process dockerd; }
has_engine() { has_as_root dockerd || has_engine_process || runs_engine; }
has_guest_image() { [ -n "$(ask_docker image ls --quiet labctl-guest)" ]; }
has_init() { [ -d /run/systemd/system ]; }
needs_apparmor() {
    [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] &&
        ! has_as_root apparmor_parser
}

# Print what is to be installed from Debian, one "package: what for" a line.
# usage: list_missing_packages [engine]
list_missing_packages() {
    local python
    python=$(find_python)
    if [ -z "$python" ]; then echo "python3: runs labctl"; fi
    if [ "$(judge_python "${python:-python3}")" != complete ]; then
        echo "python3-venv: makes the virtual environment"
    fi
    [ -e /etc/ssl/certs/ca-certificates.crt ] ||
        echo "ca-certificates: checks the certificates of package servers"
    [ "${1:-}" = engine ] || return 0
    if ! has_engine; then
        echo "docker.io: Docker Engine, runs the guests of the simulator"
        has_as_root iptables || echo "iptables: Docker's networks"
    fi
    # Debian 13 has the client in a package of its own, Debian 12 in docker.io.
    if ! has docker && [ "$(debian_version)" != 12 ]; then
        echo "docker-cli: Docker's command line"
    fi
    if needs_apparmor; then echo "apparmor: Docker's profile on this kernel"; fi
    has mmdebstrap || echo "mmdebstrap: builds the guests' Debian"
    if [ "$(id -u)" != 0 ] && ! has newuidmap; then echo "uidmap: the same without root"; fi
    { has ssh && has ssh-keygen; } || echo "openssh-client: reaches the guests"
}

# Print Debian's major version; nothing on another system.
debian_version() (
    ID="" VERSION_ID="" VERSION_CODENAME=""
    # shellcheck disable=SC1091
    [ ! -r /etc/os-release ] || . /etc/os-release
    [ "$ID" = debian ] || return 0
    echo "${VERSION_ID:-$VERSION_CODENAME}"
)
