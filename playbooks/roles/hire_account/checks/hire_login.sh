set -u
. /etc/labctl.env
login=$(id -un)
if [ "$login" != "$HIRE_LOGIN" ]; then
    echo "logged in as $login, but the lab is $HIRE_LOGIN's"
    exit 1
fi
if [ "$(id -u)" -eq 0 ] || [ ! -O "$HOME" ] || [ ! -w "$HOME" ] || [ "$(stat -c %a "$HOME")" != 700 ]; then
    echo "$login has uid $(id -u) and $HOME is $(stat -c 'mode %a, owner %U' "$HOME"); it must be $login's own, mode 700"
    exit 1
fi
if sudo -n true 2>/dev/null; then
    echo "$login may use sudo without a password, which no lab gives"
    exit 1
fi
shell=$(getent passwd "$login" | cut -d: -f7)
echo "logged in as $login (uid $(id -u), groups $(id -Gn | tr ' ' ,)), shell $shell, home $HOME is private"
