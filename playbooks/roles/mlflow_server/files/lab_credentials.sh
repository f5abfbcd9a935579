#!/bin/bash
# Shows the hire's own logins to this guest's services. Managed by labctl.
set -euo pipefail

file=/var/lib/lab-credentials/$(id -un)
case "${1:-}" in
    '' | --shell) ;;
    *)
        echo 'usage: lab-credentials           show your logins
       lab-credentials --shell   print them for eval "$(lab-credentials --shell)"'
        [ "$1" = --help ] && exit 0 || exit 2
        ;;
esac
if [ ! -r "$file" ]; then
    echo "lab-credentials: $(id -un) has no logins here. They belong to the hire whose lab this is." >&2
    exit 1
fi
while IFS='=' read -r name value; do
    if [ "${1:-}" = --shell ]; then
        printf 'export %s=%q\n' "$name" "$value"
    else
        printf '%-26s %s\n' "$name" "$value"
    fi
done <"$file"
