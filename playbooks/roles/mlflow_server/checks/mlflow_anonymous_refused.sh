set -u
port=$(sed -n 's/^.*--port \([0-9]*\).*$/\1/p' /etc/systemd/system/mlflow.service)
call() { curl --noproxy '*' -s -m 20 -o /dev/null -w '%{http_code}' "$@"; }
seen=
for path in '/api/2.0/mlflow/experiments/search?max_results=1' /api/2.0/mlflow/registered-models/search /api/2.0/mlflow/users/get?username=admin /; do
    code=$(call "http://127.0.0.1:$port$path")
    seen="$seen ${path%%\?*} $code"
    if [ "$code" != 401 ]; then
        echo "MLflow answered ${path%%\?*} without a login with HTTP $code instead of 401"
        exit 1
    fi
done
code=$(call -X POST -H 'Content-Type: application/json' -d '{}' "http://127.0.0.1:$port/api/2.0/mlflow/experiments/create")
if [ "$code" != 401 ]; then
    echo "MLflow answered a writing call without a login with HTTP $code instead of 401"
    exit 1
fi
echo "reading, writing and the page itself are refused with HTTP 401 without a login"
