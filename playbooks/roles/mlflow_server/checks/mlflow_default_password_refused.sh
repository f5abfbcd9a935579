set -u
port=$(sed -n 's/^.*--port \([0-9]*\).*$/\1/p' /etc/systemd/system/mlflow.service)
# Public ones only, so they may stand here.
for password in password1234 password admin mlflow; do
    code=$(curl --noproxy '*' -s -m 20 -o /dev/null -w '%{http_code}' -u "admin:$password" "http://127.0.0.1:$port/api/2.0/mlflow/experiments/search?max_results=1")
    if [ "$code" != 401 ]; then
        echo "MLflow answered its admin with a public password with HTTP $code instead of 401"
        exit 1
    fi
done
echo "the password that older releases shipped and three more public ones are refused with HTTP 401"
