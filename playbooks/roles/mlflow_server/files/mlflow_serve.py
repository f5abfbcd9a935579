"""Run `mlflow server` in this one process, with its secrets read from files.

MLflow takes two secrets from its environment and hands them to a server process that it starts.
Any environment shows in /proc, so here they are set after the start, where /proc does not show
them, and the server runs in the same process. Managed by labctl.
"""

import os
import sys
from pathlib import Path
from typing import Any

import mlflow.server
import uvicorn
from mlflow.cli import cli

SECRETS = Path("/etc/mlflow/secrets")


def serve_here(command: list[str], *, extra_env: dict[str, str], **_: Any) -> None:
    """Take the place of MLflow's starter of a child process; never returns."""
    os.environ.update(extra_env)
    # command: an interpreter, -m, uvicorn, and what uvicorn is told.
    uvicorn.main(args=command[3:], prog_name="uvicorn")


def main() -> None:
    """Read the secrets and become MLflow's server."""
    for variable, name in (
        ("MLFLOW_AUTH_ADMIN_PASSWORD", "admin-password"),
        ("MLFLOW_FLASK_SERVER_SECRET_KEY", "flask-secret-key"),
    ):
        os.environ[variable] = (SECRETS / name).read_text(encoding="ascii").strip()
    mlflow.server._exec_cmd = serve_here  # noqa: SLF001 -- the locked release has no public seam
    cli(["server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
