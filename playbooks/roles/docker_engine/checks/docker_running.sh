set -u
if ! systemctl -q is-active docker.service || ! systemctl -q is-enabled docker.service; then
    echo "docker.service is $(systemctl is-active docker.service) and $(systemctl is-enabled docker.service)"
    exit 1
fi
info=$(timeout 20 docker info --format '{{.ServerVersion}} {{.Driver}} {{.LoggingDriver}} {{.LiveRestoreEnabled}}' 2>&1) || { echo "the engine does not answer: $info"; exit 1; }
read -r version storage log live <<<"$info"
if [ "$log" != json-file ] || [ "$live" != true ]; then
    echo "the engine logs by $log and live-restore is $live; it must be json-file and true"
    exit 1
fi
# The engine tells the log options it gives to new containers to nobody: read what it read.
started=$(date -d "$(systemctl show -P ActiveEnterTimestamp docker.service)" +%s)
limits=$(python3 -c '
import json
options = json.load(open("/etc/docker/daemon.json")).get("log-opts", {})
print(options.get("max-size", "-"), options.get("max-file", "-"))') || { echo "/etc/docker/daemon.json cannot be read"; exit 1; }
read -r size files <<<"$limits"
if [ "$size" = - ] || [ "$files" = - ]; then
    echo "container logs have no limit in /etc/docker/daemon.json"
    exit 1
fi
if [ "$(stat -c %Y /etc/docker/daemon.json)" -gt "$started" ]; then
    echo "/etc/docker/daemon.json is newer than the running engine, which does not know it"
    exit 1
fi
compose=$(docker compose version --short 2>/dev/null) || { echo "the compose plugin does not answer"; exit 1; }
buildx=$(docker buildx version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)
[ -n "$buildx" ] || { echo "the buildx plugin does not answer"; exit 1; }
echo "Docker Engine $version on $storage, compose $compose, buildx $buildx, logs at most $files files of $size"
