set -u
# sshd's own reading of all its files, as it applies to the account that is logged in.
effective=$(sshd -T -C user=nobody,host=localhost,addr=192.0.2.1) || { echo "sshd cannot read its own settings"; exit 1; }
wrong=
while read -r name value; do
    grep -qx "$name $value" <<<"$effective" || wrong="$wrong, $(grep "^$name " <<<"$effective") instead of $value"
done <<'END'
passwordauthentication no
kbdinteractiveauthentication no
permitemptypasswords no
permitrootlogin no
permituserenvironment no
x11forwarding no
allowtcpforwarding local
allowagentforwarding no
permittunnel no
gatewayports no
usepam yes
END
systemctl -q is-active ssh.service ssh.socket || wrong="$wrong, the SSH service is not running"
if [ -n "$wrong" ]; then
    echo "SSH is open wider than it should be: ${wrong#, }"
    exit 1
fi
echo "$(ssh -V 2>&1 | cut -d, -f1): keys only, no root login, forwarding from the hire's side only"
