set -u
missing= saw=
for tool in gcc g++ cmake make gdb git uv python3; do
    if version=$("$tool" --version 2>/dev/null); then
        saw="$saw, $tool $(head -n 1 <<<"$version" | grep -oE '[0-9]+\.[0-9.]*[0-9]' | tail -n 1)"
    else
        missing="$missing $tool"
    fi
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    echo "missing or broken:$missing"
    exit 1
fi
echo "${saw#, }"
