"""Do the hire's work with MLflow, read it back and leave nothing behind.

Runs as root, because MLflow lets only its server's side delete for good; the work itself runs
with the hire's account, login and rights.
"""

import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

UNIT = Path("/etc/systemd/system/mlflow.service")

HIRES_WORK = r"""
import os, shlex, subprocess, sys, tempfile
from pathlib import Path

for line in subprocess.run(
    ["lab-credentials", "--shell"], check=True, capture_output=True, text=True
).stdout.splitlines():
    name, value = shlex.split(line)[1].split("=", 1)
    os.environ[name] = value
os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="2", MLFLOW_HTTP_REQUEST_TIMEOUT="30",
                  MLFLOW_DISABLE_TELEMETRY="true", GIT_PYTHON_REFRESH="quiet", NO_PROXY="127.0.0.1")

import mlflow
from sklearn.linear_model import LogisticRegression

name = sys.argv[1]
client = mlflow.MlflowClient()
experiment = mlflow.create_experiment(name)
print("experiment", experiment, flush=True)
try:
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note.txt"
        note.write_text("trial " + name)
        model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.log_metric("accuracy", 0.75)
            mlflow.log_artifact(str(note))
            mlflow.sklearn.log_model(
                model, name="model", registered_model_name=name, pip_requirements=["scikit-learn"]
            )
    run_id = run.info.run_id
    read = client.get_run(run_id)
    assert read.data.metrics == {"accuracy": 0.75}, read.data.metrics
    assert mlflow.artifacts.load_text(read.info.artifact_uri + "/note.txt") == "trial " + name
    loaded = mlflow.sklearn.load_model(f"models:/{name}/1")
    assert list(loaded.predict([[0.0], [3.0]])) == [0, 1]
    print("read", mlflow.__version__, os.environ["MLFLOW_TRACKING_USERNAME"], flush=True)
finally:
    for found in client.search_registered_models(filter_string=f"name = '{name}'"):
        client.delete_registered_model(found.name)
    for found in client.search_runs([experiment]):
        client.delete_run(found.info.run_id)
    client.delete_experiment(experiment)
"""

# What `mlflow gc` does, for these ids alone: gc itself cannot be told "no run" or "no model", and
# without ids it would take what the hire deleted and may want back.
SERVERS_WORK = r"""
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

uri, destination, experiment, runs, models = sys.argv[1:]
store = SqlAlchemyStore(uri, destination)
for model in models.split():
    store._hard_delete_logged_model(model)
for run in runs.split():
    store._hard_delete_run(run)
if store.get_experiment(experiment).lifecycle_stage == "active":
    store.delete_experiment(experiment)
store._hard_delete_experiment(experiment)
"""


def run_as(login: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program with an account's rights, in a clean environment and a scratch home."""
    account = pwd.getpwnam(login)
    with tempfile.TemporaryDirectory(prefix="labctl-trial-") as scratch:
        os.chown(scratch, account.pw_uid, account.pw_gid)
        return subprocess.run(
            [
                "runuser",
                "-u",
                login,
                "--",
                "env",
                "-i",
                f"HOME={scratch}",
                f"TMPDIR={scratch}",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                sys.executable,
                "-",
                *arguments,
            ],
            input=program,
            capture_output=True,
            text=True,
            cwd=scratch,
            check=False,
        )


def get_option(name: str) -> str:
    """Return the value of an option of the service's command line."""
    words = shlex.split(UNIT.read_text().split("ExecStart=")[1].replace("\\\n", " "))
    return words[words.index(name) + 1]


def sql(database: str, query: str, **values: str) -> str:
    """Run SQL in PostgreSQL, with psql quoting the values (`:'name'`); return what it printed."""
    quoted = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    return subprocess.run(
        ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database, *quoted],
        input=query,
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
    ).stdout.strip()


def destroy(experiment: str) -> str:
    """Delete for good what the hire's work left of an experiment; return what went wrong."""
    destination = get_option("--artifacts-destination")
    runs, models = (
        sql("mlflow", f"{query} WHERE experiment_id = :'experiment'::int", experiment=experiment)
        for query in ("SELECT run_uuid FROM runs", "SELECT model_id FROM logged_models")
    )
    uri = get_option("--backend-store-uri")
    done = run_as("mlflow", SERVERS_WORK, uri, destination, experiment, runs, models)
    shutil.rmtree(Path(destination) / experiment, ignore_errors=True)
    # MLflow 3.17 forgets these two when it deletes for good.
    for key in (*runs.split(), *models.split()):
        sql(
            "mlflow",
            "DELETE FROM inputs WHERE source_id = :'key' OR destination_id = :'key'",
            key=key,
        )
    sql(
        "mlflow_auth",
        "DELETE FROM role_permissions"
        " WHERE resource_type = 'experiment' AND resource_pattern = :'experiment'",
        experiment=experiment,
    )
    return "" if done.returncode == 0 else done.stderr.strip()


def find_left(name: str, experiment: str) -> str:
    """Tell what of the trial MLflow's databases and disk still hold."""
    left = sql(
        "mlflow",
        "SELECT 'experiment' FROM experiments WHERE name = :'name'"
        " UNION SELECT 'registered model' FROM registered_models WHERE name = :'name'"
        " UNION SELECT 'run' FROM runs WHERE experiment_id = :'experiment'::int"
        " UNION SELECT 'logged model' FROM logged_models"
        " WHERE experiment_id = :'experiment'::int",
        name=name,
        experiment=experiment,
    ).splitlines()
    if (Path(get_option("--artifacts-destination")) / experiment).exists():
        left.append("artifacts")
    return ", ".join(left)


def read_hire() -> str:
    """Return the hire's login."""
    lines = Path("/etc/labctl.env").read_text().splitlines()
    return next(line.split("=", 1)[1] for line in lines if line.startswith("HIRE_LOGIN="))


def main() -> int:
    """Work, read back, clean up; the last line says what was seen."""
    hire, name = read_hire(), f"labctl-trial-{secrets.token_hex(4)}"
    work = run_as(hire, HIRES_WORK, name)
    noted: dict[str, list[str]] = {"experiment": [], "read": []}
    for line in work.stdout.splitlines():
        word, _, rest = line.partition(" ")
        noted.setdefault(word, []).append(rest)
    wrong = left = ""
    for experiment in noted["experiment"]:
        wrong = destroy(experiment)
        left = find_left(name, experiment)
    if work.returncode != 0:
        print((work.stderr.strip().splitlines() or ["no message"])[-1])
        print(
            f"the client's work as {hire} failed" + (f", and left behind: {left}" if left else "")
        )
        return 1
    if left:
        print((wrong.splitlines() or ["no message"])[-1])
        print(f"the client's work succeeded, but the trial left behind: {left}")
        return 1
    version, user = noted["read"][0].split()
    print(
        f"MLflow client {version} as {user}: a run with metric, artifact and registered model "
        "logged, read back and deleted"
    )
    return 0


sys.exit(main())
