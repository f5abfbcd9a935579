set -u
name=labctl-trial-$$-$RANDOM
scratch=$(mktemp -d) || exit 1
export DOCKER_CONFIG=$scratch/config # the client writes notes there
records() { docker buildx du --verbose 2>/dev/null | awk '/^ID:/ {print $2}' | sort; }
before=$(records)
cleanup() {
    docker rm -f "$name" >/dev/null 2>&1
    docker image rm -f "$name" >/dev/null 2>&1
    # Only what this build left in the build cache: the rest of it is the hire's.
    for record in $(comm -13 <(echo "$before") <(records)); do
        docker buildx prune -f --filter "id=$record" >/dev/null 2>&1
    done
}
trap 'cleanup; rm -rf "$scratch"' EXIT
# No registry is asked: the image is made of this guest's own shell and libraries.
mkdir "$scratch/root"
for file in /bin/sh $(ldd /bin/sh | grep -oE '/[^ )]+' | sort -u); do
    install -D "$(realpath "$file")" "$scratch/root$file"
done
printf 'FROM scratch\nCOPY root /\nCMD ["/bin/sh", "-c", "echo pid $$ says hello"]\n' >"$scratch/Dockerfile"
if ! docker build -q -t "$name" "$scratch" >"$scratch/log" 2>&1; then
    tail -n 10 "$scratch/log"
    echo "the image was not built"
    exit 1
fi
if ! said=$(docker run --name "$name" --network none "$name" 2>&1) || [ "$said" != 'pid 1 says hello' ]; then
    echo "the container said '$said' instead of 'pid 1 says hello'"
    exit 1
fi
limit=$(docker inspect --format '{{.HostConfig.LogConfig.Config}}' "$name")
case "$limit" in
    *max-size:*) ;;
    *)
        echo "the container ran, but its log has no limit ($limit)"
        exit 1
        ;;
esac
cleanup
trap 'rm -rf "$scratch"' EXIT
left="$(docker ps -aq --filter "name=$name")$(docker image ls -q "$name")$(comm -13 <(echo "$before") <(records))"
if [ -n "$left" ]; then
    echo "the container ran, but something of the trial stayed behind: $left"
    exit 1
fi
echo "built an image FROM scratch, its container said '$said', log limits ${limit#map}, all removed"
