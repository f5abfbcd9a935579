set -u
. /etc/labctl.env
# labctl says which key it expects; by hand, the guest's own record does.
expected=$(awk '{print $1, $2}' <<<"${2:-$HIRE_KEY}")
file=$(getent passwd "$HIRE_LOGIN" | cut -d: -f6)/.ssh/authorized_keys
if [ ! -f "$file" ]; then
    echo "$file does not exist: the hire cannot log in"
    exit 1
fi
# A key's options would come before its type, so they show as a difference too.
keys=$(grep -vE '^[[:space:]]*(#|$)' "$file" | awk '{print $1, $2}')
if [ "$keys" != "$expected" ]; then
    echo "$file holds $(grep -c . <<<"$keys") keys, $(grep -cvxF -- "$expected" <<<"$keys") of them foreign or with options"
    exit 1
fi
for other in "${file}2" /root/.ssh/authorized_keys; do
    if [ -s "$other" ]; then
        echo "$other holds keys that labctl did not put there"
        exit 1
    fi
done
echo "one key in $file, $(ssh-keygen -lf "$file" | awk '{print $2, $NF}')"
