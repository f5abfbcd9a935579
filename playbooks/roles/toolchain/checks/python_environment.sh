set -u
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
if ! python3 -m venv "$scratch/venv" >"$scratch/log" 2>&1; then
    tail -n 5 "$scratch/log"
    echo "python3 -m venv failed"
    exit 1
fi
if ! UV_CACHE_DIR=$scratch/cache uv -q venv --offline --python /usr/bin/python3 "$scratch/uv" 2>"$scratch/log"; then
    tail -n 5 "$scratch/log"
    echo "uv venv failed"
    exit 1
fi
for home in venv uv; do
    if [ "$("$scratch/$home/bin/python" -c 'import sys; print(sys.prefix)')" != "$scratch/$home" ]; then
        echo "the environment made with $home does not work"
        exit 1
    fi
done
echo "venv with $("$scratch/venv/bin/pip" --version | cut -d' ' -f1,2) and $(uv --version | cut -d' ' -f1,2), both on $(python3 --version)"
