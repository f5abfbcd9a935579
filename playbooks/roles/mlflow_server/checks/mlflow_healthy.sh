set -u
port=$(sed -n 's/^.*--port \([0-9]*\).*$/\1/p' /etc/systemd/system/mlflow.service)
if ! systemctl -q is-active mlflow.service || ! systemctl -q is-enabled mlflow.service; then
    echo "mlflow.service is $(systemctl is-active mlflow.service) and $(systemctl is-enabled mlflow.service)"
    exit 1
fi
if ! curl --noproxy '*' -fsS -m 20 "http://127.0.0.1:$port/health" >/dev/null 2>&1; then
    echo "mlflow.service runs, but http://127.0.0.1:$port/health does not answer"
    exit 1
fi
version=$(/opt/mlflow/bin/python -c 'import importlib.metadata as m; print(m.version("mlflow"))')
listening=$(ss -Hltn "sport = :$port" | awk '{print $4}' | sort -u | paste -sd ' ')
if [ "$listening" != "127.0.0.1:$port" ]; then
    echo "MLflow listens on $listening instead of 127.0.0.1:$port alone"
    exit 1
fi
cd /
tables=$(runuser -u postgres -- psql -XAtq -d mlflow -c "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public' AND table_name IN ('runs', 'registered_models')" 2>/dev/null)
users=$(runuser -u postgres -- psql -XAtq -d mlflow_auth -c 'SELECT count(*) FROM users' 2>/dev/null)
if [ "${tables:-0}" != 2 ] || [ "${users:-0}" -lt 1 ]; then
    echo "MLflow answers, but its runs or accounts are not in PostgreSQL"
    exit 1
fi
echo "MLflow $version on 127.0.0.1:$port, runs and $users accounts in PostgreSQL $(psql --version | cut -d' ' -f3)"
