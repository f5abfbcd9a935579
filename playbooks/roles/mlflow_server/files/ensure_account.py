"""Give one person an MLflow account without admin rights.

Runs on the guest as root, fed on standard input: `python3 - LOGIN PORT`. The password is made
here and kept in one file that only its owner can read; it is never printed. Prints `changed` when
it changed something.
"""

import base64
import json
import os
import pwd
import secrets
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

READY_S = 180
CALL_S = 30
ADMIN_PASSWORD = Path("/etc/mlflow/secrets/admin-password")
HOMES = Path("/var/lib/lab-credentials")
# MLflow is on loopback: no proxy of the site has a say here.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Login = tuple[str, str]


class Server:
    """MLflow's REST API on this guest."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def call(self, method: str, path: str, login: Login, **body: str | bool) -> tuple[int, Any]:
        """Return status and decoded answer of one call; a refusal is no exception."""
        proof = base64.b64encode(":".join(login).encode()).decode()
        request = urllib.request.Request(  # noqa: S310 -- the address is this guest's own
            f"{self.url}/api/2.0/mlflow/users/{path}",
            method=method,
            headers={"Authorization": f"Basic {proof}", "Content-Type": "application/json"},
            data=json.dumps(body).encode() if body else None,
        )
        try:
            with OPENER.open(request, timeout=CALL_S) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, {}

    def wait_until_healthy(self) -> None:
        """Return when MLflow answers; its first start makes its tables and takes a while."""
        deadline = time.monotonic() + READY_S
        while True:
            try:
                OPENER.open(f"{self.url}/health", timeout=CALL_S).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    give_up(f"MLflow did not answer within {READY_S} s ({error})")
                time.sleep(0.3)
            else:
                return


def give_up(why: str) -> NoReturn:
    """End the script with a message for IT."""
    sys.exit(f"{why}; on the guest see: journalctl -u mlflow")


def read_password(file: Path) -> str:
    """Return the password in a credentials file, or nothing."""
    if not file.exists():
        return ""
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines() if "=" in line)
    return lines.get("MLFLOW_TRACKING_PASSWORD", "")


def write_file(file: Path, owner: pwd.struct_passwd, url: str, password: str) -> bool:
    """Bring a credentials file to its contents, owner and mode; tell whether it was not so."""
    text = (
        f"MLFLOW_TRACKING_URI={url}\n"
        f"MLFLOW_TRACKING_USERNAME={owner.pw_name}\n"
        f"MLFLOW_TRACKING_PASSWORD={password}\n"
    )
    if file.exists():
        found = file.lstat()
        rights = (found.st_mode & 0o7777, found.st_uid)
        if rights == (0o600, owner.pw_uid) and file.read_text() == text:
            return False
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        os.fchown(out.fileno(), owner.pw_uid, owner.pw_gid)
    fresh.rename(file)
    return True


def ensure_account(server: Server, admin: Login, hire: Login) -> bool:
    """Bring the account to its password and to no admin rights; tell whether it was not so."""
    name, password = hire
    ask = f"get?username={name}"
    status, answer = server.call("GET", ask, admin)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        sys.exit(
            f"MLflow refuses its admin with the password in {ADMIN_PASSWORD}: somebody changed it. "
            "Put the present one into that file."
        )
    changed = False
    if status == HTTPStatus.NOT_FOUND:
        changed = True
        server.call("POST", "create", admin, username=name, password=password)
    elif status != HTTPStatus.OK:
        give_up(f"MLflow did not say whether {name} has an account: HTTP {status}")
    elif answer["user"]["is_admin"]:
        changed = True
        server.call("PATCH", "update-admin", admin, username=name, is_admin=False)
    if server.call("GET", ask, hire)[0] == HTTPStatus.UNAUTHORIZED:
        changed = True
        server.call("PATCH", "update-password", admin, username=name, password=password)
    status, answer = server.call("GET", ask, hire)
    if status != HTTPStatus.OK or answer["user"]["is_admin"]:
        give_up(f"MLflow did not make {name} an account of its own: HTTP {status}")
    return changed


def main() -> None:
    """Wait for MLflow, then bring file and account together; the file comes first."""
    owner, server = pwd.getpwnam(sys.argv[1]), Server(int(sys.argv[2]))
    HOMES.mkdir(mode=0o711, exist_ok=True)
    file = HOMES / owner.pw_name
    password = read_password(file) or secrets.token_urlsafe(24)
    server.wait_until_healthy()
    changed = write_file(file, owner, server.url, password)
    admin = ("admin", ADMIN_PASSWORD.read_text().strip())
    changed |= ensure_account(server, admin, (owner.pw_name, password))
    if changed:
        print("changed")


main()
