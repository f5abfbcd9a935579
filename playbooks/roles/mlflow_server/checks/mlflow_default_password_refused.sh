set -u
port=$(sed -n 's/^.*--port \([0-9]*\).*$/\1/p' /etc/systemd/system/mlflow.service)
# Public ones only, so they may stand here; the first is what older releases shipped.
public='password1234 password admin mlflow'
for password in $public; do
    code=$(curl --noproxy '*' -s -m 20 -o /dev/null -w '%{http_code}' -u "admin:$password" "http://127.0.0.1:$port/api/2.0/mlflow/experiments/search?max_results=1")
    if [ "$code" != 401 ]; then
        echo "MLflow answered its admin with a public password with HTTP $code instead of 401"
        exit 1
    fi
done
# This release refuses its old default whatever is stored, another would not: look at that too.
cd /
stored=$(runuser -u postgres -- psql -XAtq -d mlflow_auth -c 'SELECT username, password_hash FROM users') || { echo "the accounts cannot be read"; exit 1; }
weak=$(/opt/mlflow/bin/python -c '
import sys
from werkzeug.security import check_password_hash
for line in sys.stdin:
    name, stored = line.rstrip("\n").split("|", 1)
    if any(check_password_hash(stored, word) for word in sys.argv[1:]):
        print(name)' $public <<<"$stored" | paste -sd ' ') || { echo "the accounts cannot be examined"; exit 1; }
if [ -n "$weak" ]; then
    echo "a public password is stored for: $weak"
    exit 1
fi
echo "the password that older releases shipped and three more public ones are refused with HTTP 401, and none of $(wc -l <<<"$stored") accounts has one"
