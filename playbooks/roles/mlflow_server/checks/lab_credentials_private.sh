set -u
. /etc/labctl.env
file=/var/lib/lab-credentials/$HIRE_LOGIN
cd /
facts=$(stat -c '%U %a' "$file" 2>&1)
if [ "$facts" != "$HIRE_LOGIN 600" ]; then
    echo "$file: $facts; it must be ${HIRE_LOGIN}'s with mode 600"
    exit 1
fi
if [ "$(stat -c '%U %a' "${file%/*}")" != 'root 711' ]; then
    echo "${file%/*} is $(stat -c '%U %a' "${file%/*}"); it must be root's with mode 711"
    exit 1
fi
if runuser -u nobody -- cat "$file" >/dev/null 2>&1 || runuser -u nobody -- lab-credentials >/dev/null 2>&1; then
    echo "another user can read ${HIRE_LOGIN}'s credentials"
    exit 1
fi
names=$(runuser -u "$HIRE_LOGIN" -- lab-credentials --shell 2>/dev/null | sed -nE 's/^export ([A-Z_]+)=.+$/\1/p' | paste -sd ' ')
if [ "$names" != 'MLFLOW_TRACKING_URI MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD' ]; then
    echo "lab-credentials shows $HIRE_LOGIN '${names:-nothing}' instead of address, user and password"
    exit 1
fi
echo "$HIRE_LOGIN sees address, user and password; another user is refused; the file is ${HIRE_LOGIN}'s, mode 600"
