"""A nested Docker Engine: it runs containers, and its data belongs to a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.guests.conftest import Bench, Guest

SET_UP = """
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y install --no-install-recommends docker.io docker-cli busybox-static
mkdir context && cp /bin/busybox context/
cat > context/Dockerfile <<'END'
FROM scratch
COPY busybox /bin/
CMD ["/bin/busybox", "echo", "hello from scratch"]
END
docker build -q -t mine context
"""


def test_nested_docker_works_and_is_in_the_snapshot(bench: Bench, fresh: Guest) -> None:
    vm_id = fresh.hardware.vm_id
    fresh.run_as_root(SET_UP)
    assert fresh.run("systemctl is-system-running") == "running"
    assert fresh.run("sudo docker info --format '{{.Driver}}'") == "overlay2"
    assert fresh.run("sudo docker run --rm mine") == "hello from scratch"
    assert fresh.run("sudo docker run --rm -m 64m --cpus 1 --pids-limit 20 -p 8080:80 mine")
    fresh.run("sudo docker run -d --name still mine /bin/busybox sleep 1000")
    assert fresh.run("sudo docker exec -u 1000 still /bin/busybox id -u") == "1000"
    assert any(nic.name == "docker0" for nic in fresh.states[-1].nics)
    disk = bench.runtime.snapshot(vm_id, "with-docker")
    fresh.run("sudo docker rm -f still && sudo docker rmi mine")
    assert fresh.ssh("sudo docker run --rm mine").returncode != 0
    bench.runtime.revert(vm_id, disk)
    fresh.power_on()
    assert fresh.run("sudo docker run --rm mine") == "hello from scratch"
    assert fresh.run("sudo docker start still") == "still"
