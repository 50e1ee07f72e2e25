# The parts that profile `pipeline` adds: what measures, and what scales by it. Each is started by itself, and brings its
# objects then: an APIService that nobody serves would hold up the deletion of every namespace.

MONITORING=monitoring
PROMETHEUS_ADDRESS=10.96.0.90

# The wanted parts of a list with commas, with what they need, in the order of their start.
optional_parts() {
  local wanted=" ${1//,/ } " part
  [[ $1 != all ]] || wanted=" ${OPTIONAL[*]} "
  [[ $wanted != *" prometheus "* ]] || wanted+="operator "
  [[ $wanted != *" keda-adapter "* ]] || wanted+="keda "
  for part in "${OPTIONAL[@]}"; do
    [[ $wanted != *" $part "* ]] || echo "$part"
  done
}

check_optional_parts() {
  local part
  for part in ${1//,/ }; do
    [[ " ${OPTIONAL[*]} all none " == *" $part "* ]] ||
      die "profile $PROFILE has no part '$part' to start" "parts: ${OPTIONAL[*]:-none}; with profile pipeline"
  done
}

# start PART…: starts parts of a running pipeline, and returns when they are of use.
start() {
  require_cluster
  (($# > 0)) || die "start needs a part" "parts: ${OPTIONAL[*]}"
  check_optional_parts "$*"
  lock
  (exec_inside "$HERE/cluster" start-inside --dir "$DIR" "$@")
  write_state
}

# The same from inside.
start_inside() {
  use_profile "$(<"$DIR/profile")"
  start_optional_parts "$*"
}

# All come up at the same time; then each is waited for.
start_optional_parts() {
  local part parts
  mapfile -t parts < <(optional_parts "$*")
  for part in "${parts[@]}"; do begin_part "$part"; done
  for part in "${parts[@]}"; do
    wait_for_part "$part" || die "$part is of no use yet" "its log is $DIR/log/$part.log"
  done
}

begin_part() {
  [[ -e $DIR/stopped/$1 ]] || return 0
  "objects_of_$1" | kubectl apply --server-side --force-conflicts --field-manager tms-test -f - >>"$DIR/log/objects.log"
  rm -f "$DIR/pid/$1" "$DIR/stopped/$1"
}

is_optional() { [[ " ${OPTIONAL[*]} " == *" $1 "* ]]; }
is_pod() { [[ " ${PODS[*]} " == *" $1 "* ]]; }

run_metrics-server() {
  local kubeconfig
  kubeconfig=$(kubeconfig_of system:serviceaccount:kube-system:metrics-server)
  exec metrics-server --kubeconfig "$kubeconfig" --authentication-kubeconfig "$kubeconfig" --authorization-kubeconfig "$kubeconfig" \
    --secure-port 6445 --cert-dir "$DIR/data/metrics-server" --kubelet-insecure-tls \
    --kubelet-preferred-address-types InternalIP --kubelet-request-timeout 5s --metric-resolution 10s
}
objects_of_metrics-server() {
  cat "$(part_folder metrics-server)/rights.yaml"
  service_of_node kube-system metrics-server 443:6445
  api_service metrics.k8s.io kube-system metrics-server
}
node_is_measured() { kubectl get --raw /apis/metrics.k8s.io/v1beta1/nodes/node-0 >/dev/null 2>&1; }

run_operator() {
  KUBECONFIG=$(kubeconfig_of "system:serviceaccount:$MONITORING:prometheus-operator") exec prometheus-operator \
    --prometheus-config-reloader "docker.io/local/prometheus-config-reloader:$(version_of prometheus-operator)" \
    --config-reloader-cpu-request 10m --kubelet-endpoints=false --web.listen-address 127.0.0.1:9801
}
objects_of_operator() {
  namespace "$MONITORING"
  cat "$(part_folder prometheus-operator)"/{rights.yaml,crds/*.yaml}
}

# The certificate of the operator's own service, on which the adapter depends.
run_keda() {
  KUBECONFIG=$(kubeconfig_of system:serviceaccount:keda:keda-operator) KEDA_CLUSTER_OBJECT_NAMESPACE=keda POD_NAMESPACE=keda \
    WATCH_NAMESPACE='' exec keda-operator --cert-dir "$DIR/pki/keda" --enable-cert-rotation=false --enable-apiservice-patching=false \
    --enable-webhook-patching=false --metrics-bind-address 127.0.0.1:9802 --health-probe-bind-address 127.0.0.1:9803 \
    --metrics-service-bind-address 127.0.0.1:9666
}
objects_of_keda() {
  namespace keda
  cat "$(part_folder keda)/rights.yaml"
}
keda_is_ready() { answers 9803 /readyz && port_is_open 9666; }

run_keda-adapter() {
  local kubeconfig certificates=$DIR/pki/keda
  kubeconfig=$(kubeconfig_of system:serviceaccount:keda:keda-operator)
  POD_NAMESPACE=keda WATCH_NAMESPACE='' exec keda-adapter --kubeconfig "$kubeconfig" --lister-kubeconfig "$kubeconfig" \
    --authentication-kubeconfig "$kubeconfig" --authorization-kubeconfig "$kubeconfig" --secure-port 6446 \
    --cert-dir "$certificates" --tls-cert-file "$certificates/tls.crt" --tls-private-key-file "$certificates/tls.key" \
    --metrics-service-address 127.0.0.1:9666 --metrics-service-grpc-authority keda-operator.keda.svc --port 9804
}
objects_of_keda-adapter() {
  service_of_node keda keda-metrics-apiserver 443:6446
  api_service external.metrics.k8s.io keda keda-metrics-apiserver
}

# Its scripts let the program take their place only where they believe to be run by systemd.
run_rabbitmq() {
  local folder=$DIR/data/rabbitmq
  mkdir -p "$folder"
  printf 'loopback_users = none\nlisteners.tcp.default = %s:5672\nmanagement.tcp.ip = %s\n' "$NODE_ADDRESS" "$NODE_ADDRESS" >"$folder/rabbitmq.conf"
  printf '[rabbitmq_management].\n' >"$folder/plugins"
  exec env HOME="$folder" RUNNING_UNDER_SYSTEMD=1 RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME=rabbit@localhost \
    RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf" RABBITMQ_ENABLED_PLUGINS_FILE="$folder/plugins" \
    RABBITMQ_MNESIA_BASE="$folder" RABBITMQ_LOG_BASE="$folder" RABBITMQ_LOGS=- RABBITMQ_PID_FILE="$folder/pid" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 1 +sbwt none +sbwtdcpu none +sbwtdio none' \
    /usr/lib/rabbitmq/bin/rabbitmq-server
}
objects_of_rabbitmq() {
  namespace rabbitmq
  service_of_node rabbitmq rabbitmq 5672:5672 15672:15672
}
rabbitmq_is_ready() { { : <"/dev/tcp/$NODE_ADDRESS/5672" && : <"/dev/tcp/$NODE_ADDRESS/15672"; } 2>/dev/null; }

# Selects what carries the label `release: prometheus`, as the common chart does, in every namespace. Its first probe is
# quicker than the operator's, which looks every 15 s; its probe of life is patient, so that it can be frozen.
# The reloader sometimes misses that its files change, and would look by itself after three minutes.
objects_of_prometheus() {
  local version
  version=$(prometheus_version)
  cat <<YAML
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: $MONITORING}
---
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {name: prometheus, namespace: $MONITORING}
spec:
  replicas: 1
  image: docker.io/local/prometheus:$version
  version: $version
  serviceAccountName: prometheus
  podMetadata: {labels: {tms.test/part: prometheus}}
  securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  resources: {requests: {cpu: 20m, memory: 100Mi}}
  terminationGracePeriodSeconds: 2
  scrapeInterval: 5s
  scrapeTimeout: 4s
  evaluationInterval: 5s
  podMonitorSelector: {matchLabels: {release: prometheus}}
  podMonitorNamespaceSelector: {}
  serviceMonitorSelector: {matchLabels: {release: prometheus}}
  serviceMonitorNamespaceSelector: {}
  ruleSelector: {matchLabels: {release: prometheus}}
  ruleNamespaceSelector: {}
  containers:
  - name: prometheus
    startupProbe: {httpGet: {path: /-/ready, port: web}, periodSeconds: 1, timeoutSeconds: 3, failureThreshold: 300}
    livenessProbe: {httpGet: {path: /-/healthy, port: web}, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 1000}
  - name: config-reloader
    args:
    - --listen-address=:8080
    - --reload-url=http://localhost:9090/-/reload
    - --config-file=/etc/prometheus/config/prometheus.yaml.gz
    - --config-envsubst-file=/etc/prometheus/config_out/prometheus.env.yaml
    - --watched-dir=/etc/prometheus/rules/prometheus-prometheus-rulefiles-0
    - --watch-interval=3s
---
apiVersion: v1
kind: Service
metadata: {name: prometheus, namespace: $MONITORING}
spec:
  clusterIP: $PROMETHEUS_ADDRESS
  selector: {tms.test/part: prometheus}
  ports: [{name: web, port: 9090, targetPort: web}]
YAML
}

# The program is a ConfigMap, for its image is that of every client.
objects_of_dcgm() {
  namespace "$MONITORING"
  cat "$HERE/manifests/dcgm.yaml"
  echo ---
  kubectl create configmap dcgm-exporter --namespace "$MONITORING" --from-file "$HERE/manifests/dcgm.py" --dry-run=client --output yaml
}

# What makes the pods of a part, as kubectl names it.
maker_of() {
  case $1 in
    prometheus) echo statefulset/prometheus-prometheus ;;
    dcgm) echo daemonset/dcgm-exporter ;;
  esac
}
wait_for_pod() {
  kubectl wait --for=create "$(maker_of "$1")" --namespace "$MONITORING" --timeout=60s
  kubectl rollout status "$(maker_of "$1")" --namespace "$MONITORING" --timeout=120s
} >>"$DIR/log/objects.log"

fault_pod() {
  case $1 in
    stop) stop_pod "$2" ;;
    freeze) signal_pod SIGSTOP "$2" ;;
    thaw) signal_pod SIGCONT "$2" ;;
    restart) stop_pod "$2" && start "$2" ;;
    *) die "unknown fault '$1'" "faults: stop, freeze, thaw, restart" ;;
  esac
}

# Both the wish and what was made of it, for the operator may be away.
stop_pod() {
  [[ ! -e $DIR/stopped/$1 ]] || return 0
  touch "$DIR/stopped/$1"
  case $1 in
    prometheus)
      inside kubectl patch prometheus prometheus --namespace "$MONITORING" --type merge --patch '{"spec": {"replicas": 0}}'
      inside kubectl scale statefulset prometheus-prometheus --namespace "$MONITORING" --replicas 0
      ;;
    dcgm) inside kubectl delete daemonset dcgm-exporter --namespace "$MONITORING" ;;
  esac
  inside kubectl wait --for=delete pod --selector "tms.test/part=$1" --namespace "$MONITORING" --timeout=30s
} >>"$DIR/log/objects.log"

# The first process of a container takes such signals only from outside.
signal_pod() {
  local id
  id=$(inside kubectl get pods --namespace "$MONITORING" --selector "tms.test/part=$2" \
    -o "jsonpath={.items[0].status.containerStatuses[?(@.name=='$2')].containerID}") || die "$2 does not run"
  inside ctr --namespace k8s.io tasks kill --signal "$1" "${id#containerd://}" 2>>"$DIR/log/objects.log" || die "$2 takes no $1"
}

condition_of_pod() {
  local ready
  ready=$(inside kubectl get pods --namespace "$MONITORING" --selector "tms.test/part=$1" \
    -o "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}")
  case $ready in
    '') echo stopped ;;
    True) echo ready ;;
    *) echo 'not ready' ;;
  esac
}

inside() { (exec_inside "$@"); }

namespace() { printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n---\n' "$1"; }

# service_of_node NAMESPACE NAME PORT:TARGET…: a Service of what runs on the node, outside pods.
service_of_node() {
  local ports='' targets='' port namespace=$1 name=$2
  shift 2
  for port in "$@"; do
    ports+="{name: port-${port%:*}, port: ${port%:*}}, "
    targets+="{name: port-${port%:*}, port: ${port#*:}}, "
  done
  cat <<YAML
---
apiVersion: v1
kind: Service
metadata: {name: $name, namespace: $namespace}
spec:
  ports: [$ports]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $name, namespace: $namespace, labels: {kubernetes.io/service-name: $name}}
addressType: IPv4
endpoints: [{addresses: [$NODE_ADDRESS], conditions: {ready: true}}]
ports: [$targets]
---
YAML
}

# api_service GROUP NAMESPACE SERVICE, of version v1beta1.
api_service() {
  cat <<YAML
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.$1}
spec:
  group: $1
  version: v1beta1
  service: {namespace: $2, name: $3}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
YAML
}
is_available() { [[ $(kubectl get apiservice "v1beta1.$1" -o "jsonpath={.status.conditions[?(@.type=='Available')].status}") == True ]]; }
