set -u
# sshd leaves the key that opened this very session in a file that it names in the session's
# environment; sudo drops the name, so ask our own ancestors for it.
pid=$$ auth=
while [ "$pid" -gt 1 ] && [ -z "$auth" ]; do
    auth=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^SSH_USER_AUTH=//p')
    pid=$(awk '/^PPid:/ {print $2}' "/proc/$pid/status")
done
ours=$(awk '$1 == "publickey" {print $2, $3}' "$auth" 2>/dev/null)
if [ -z "$ours" ]; then
    echo "cannot see which key opened this session (ExposeAuthInfo of sshd)"
    exit 1
fi
file=$(getent passwd "${SUDO_USER:-labctl}" | cut -d: -f6)/.ssh/authorized_keys
keys=$(grep -vE '^[[:space:]]*(#|$)' "$file")
foreign=$(grep -cvF -- "$ours" <<<"$keys")
if [ "$foreign" -ne 0 ] || [ "$(wc -l <<<"$keys")" -ne 1 ]; then
    echo "$file holds $(wc -l <<<"$keys") keys, $foreign of them not labctl's"
    exit 1
fi
for other in /root/.ssh/authorized_keys /run/labctl/keys/root "/run/labctl/keys/${SUDO_USER:-labctl}"; do
    if [ -s "$other" ]; then
        echo "$other holds keys; nobody needs any there"
        exit 1
    fi
done
echo "one key in $file, the one that opened this session; none for root"
