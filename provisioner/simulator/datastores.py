"""Datastores: which files there are, how much room they leave, and the browser that lists them."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from provisioner.simulator.tasks import TaskRun, task
from provisioner.simulator.world import DatastoreFile, Record, World, derives

if TYPE_CHECKING:
    from collections.abc import Iterable

GIB = 1024**3
DELTA_BYTES = 64 * 1024**2
"""What a new child disk takes before its guest writes to it."""
_PATH = re.compile(r"\[([^\]]+)\] ?(.*)")


def split_path(path: str) -> tuple[str, str]:
    """Split ``[datastore] folder/file`` in its datastore's name and the rest.

    Raises:
        vim.fault.InvalidDatastorePath: not of that form.
    """
    found = _PATH.fullmatch(path)
    if found is None or ".." in found[2].split("/"):
        raise vim.fault.InvalidDatastorePath(datastorePath=path, msg=f"Invalid path {path!r}")
    return found[1], found[2]


def get_datastore(world: World, path: str) -> Record:
    """Return the datastore that a path names.

    Raises:
        vim.fault.InvalidDatastorePath: no such datastore.
    """
    name, _ = split_path(path)
    for record in world.of_type(vim.Datastore):
        if record.props["name"] == name:
            return record  # type: ignore[no-any-return] # of_type yields records
    raise vim.fault.InvalidDatastorePath(
        datastorePath=path, msg=f"Datastore '{name}' does not exist"
    )


def free_bytes(world: World, datastore: Record) -> int:
    """Return how much room a datastore has."""
    prefix = f"[{datastore.props['name']}] "
    used = sum(one.size_bytes for path, one in world.files.items() if path.startswith(prefix))
    return int(datastore.props["capacity_bytes"]) - used


def add_file(world: World, path: str, file: DatastoreFile) -> str:
    """Make a file. Call it under the lock.

    Raises:
        vim.fault.FileAlreadyExists: there is one of that name.
        vim.fault.NoDiskSpace: it does not fit.
    """
    datastore = get_datastore(world, path)
    if path in world.files:
        raise vim.fault.FileAlreadyExists(file=path, msg=f"The file {path} already exists")
    if file.size_bytes > free_bytes(world, datastore):
        name = datastore.props["name"]
        raise vim.fault.NoDiskSpace(
            file=path, datastore=name, msg=f"Insufficient disk space on datastore '{name}'."
        )
    world.files[path] = file
    world.touch(datastore)
    return path


def remove_files(world: World, paths: Iterable[str]) -> None:
    """Delete files; those that are gone already do not matter. Call it under the lock."""
    for path in paths:
        if world.files.pop(path, None) is not None:
            world.touch(get_datastore(world, path))


@derives(vim.Datastore, "summary")
def _summary(world: World, record: Record) -> Any:
    name = record.props["name"]
    return vim.Datastore.Summary(
        datastore=record.ref,
        name=name,
        url=f"ds:///vmfs/volumes/{name}/",
        capacity=record.props["capacity_bytes"],
        freeSpace=free_bytes(world, record),
        accessible=True,
        multipleHostAccess=True,
        type="VMFS",
        maintenanceMode="normal",
    )


@derives(vim.Datastore, "info")
def _info(world: World, record: Record) -> Any:
    summary = _summary(world, record)
    return vim.host.VmfsDatastoreInfo(
        name=summary.name,
        url=summary.url,
        freeSpace=summary.freeSpace,
        maxFileSize=summary.capacity,
        maxVirtualDiskCapacity=summary.capacity,
    )


def _search(run: TaskRun, *, deep: bool) -> list[Any]:
    """Return the results of a datastore search, one for each folder that holds a match."""
    world, spec = run.world, run.args.searchSpec or vim.host.DatastoreBrowser.SearchSpec()
    with world.changed:
        datastore = get_datastore(world, run.args.datastorePath)
        _, start = split_path(run.args.datastorePath.rstrip("/"))
        folders: dict[str, list[Any]] = {start: []}
        for path, file in world.files.items():
            name, rest = split_path(path)
            folder, _, base = rest.rpartition("/")
            inside = folder == start or (deep and (not start or folder.startswith(f"{start}/")))
            if name != datastore.props["name"] or not inside:
                continue
            if any(fnmatch.fnmatchcase(base, one) for one in spec.matchPattern or ["*"]):
                kind = "VmDiskInfo" if base.endswith(".vmdk") else "FileInfo"
                info = getattr(vim.host.DatastoreBrowser, kind)(path=base, fileSize=file.size_bytes)
                folders.setdefault(folder, []).append(info)
    known = {split_path(path)[1].rpartition("/")[0] for path in world.files} | {""}
    if start not in known:
        raise vim.fault.FileNotFound(file=run.args.datastorePath, msg=f"File {start} was not found")
    prefix = f"[{datastore.props['name']}]"
    return [
        vim.host.DatastoreBrowser.SearchResults(
            datastore=datastore.ref, folderPath=f"{prefix} {folder}".strip(), file=files
        )
        for folder, files in folders.items()
    ]


@task(vim.host.DatastoreBrowser, "SearchDatastore_Task", exclusive=False)
def search_datastore(run: TaskRun) -> Any:
    """List the files of one folder."""
    return _search(run, deep=False)[0]


@task(vim.host.DatastoreBrowser, "SearchDatastoreSubFolders_Task", exclusive=False)
def search_datastore_sub_folders(run: TaskRun) -> Any:
    """List the files of a folder and of those below it."""
    return vim.host.DatastoreBrowser.SearchResults.Array(_search(run, deep=True))
