# The command line of each part that runs. A run_NAME replaces its shell by the program.

# The parts that run in a profile, in the order of their start. OPTIONAL are those that `up --start` chooses from and
# `start` adds: PARTS that are processes, and PODS, which the cluster runs itself.
use_profile() {
  PROFILE=$1 OPTIONAL=() PODS=()
  case $1 in
    control-plane) PARTS=(etcd apiserver controllers scheduler kwok) ;;
    node) PARTS=("${NODE_PARTS[@]}") ;;
    pipeline)
      OPTIONAL=(metrics-server operator keda keda-adapter rabbitmq) PODS=(prometheus dcgm)
      PARTS=("${NODE_PARTS[@]}" "${OPTIONAL[@]}")
      OPTIONAL+=("${PODS[@]}")
      ;;
    *) die "unknown profile $1" "profiles: $PROFILES" ;;
  esac
}
NODE_PARTS=(containerd etcd apiserver controllers scheduler kubelet proxy gpus volumes dns)
has_node() { [[ $PROFILE != control-plane ]]; }

run_etcd() {
  exec etcd --data-dir "$DIR/data/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
}

# The audit log never rotates within a test: tests count its lines.
run_apiserver() {
  local pki=$DIR/pki
  exec kube-apiserver --etcd-servers http://127.0.0.1:2379 \
    --secure-port 6443 --advertise-address 10.200.0.1 --service-cluster-ip-range 10.96.0.0/16 \
    --cert-dir "$DIR/data/apiserver" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
    --token-auth-file "$pki/tokens.csv" --authorization-mode Node,RBAC --allow-privileged \
    --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file "$pki/service-accounts.pub" \
    --service-account-signing-key-file "$pki/service-accounts.key" \
    --requestheader-client-ca-file "$pki/front-proxy-ca.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file "$pki/front-proxy.crt" --proxy-client-key-file "$pki/front-proxy.key" \
    --enable-aggregator-routing --kubelet-preferred-address-types InternalIP \
    --audit-policy-file "$HERE/manifests/audit-policy.yaml" --audit-log-path "$DIR/log/audit.log" \
    --audit-log-mode blocking --audit-log-format json --audit-log-maxsize 100000
}

# Nodes stay Ready however long nobody speaks for them: `unmanaged` has no kubelet, and kwok may be frozen.
# The default limit of 20 requests a second makes the start wait for the credentials of forty controllers.
run_controllers() {
  local kubeconfig
  kubeconfig=$(kubeconfig_of system:kube-controller-manager)
  exec kube-controller-manager --kubeconfig "$kubeconfig" --leader-elect=false --secure-port 0 \
    --use-service-account-credentials --service-account-private-key-file "$DIR/pki/service-accounts.key" \
    --root-ca-file "$DIR/pki/ca.crt" --kube-api-qps 1000 --kube-api-burst 2000 \
    --allocate-node-cidrs --cluster-cidr 10.244.0.0/16 --node-cidr-mask-size 22 \
    --node-monitor-grace-period 100000h \
    --horizontal-pod-autoscaler-sync-period 5s --horizontal-pod-autoscaler-initial-readiness-delay 5s \
    --horizontal-pod-autoscaler-cpu-initialization-period 10s
}

run_scheduler() {
  local kubeconfig
  kubeconfig=$(kubeconfig_of system:kube-scheduler)
  exec kube-scheduler --kubeconfig "$kubeconfig" --authentication-kubeconfig "$kubeconfig" \
    --authorization-kubeconfig "$kubeconfig" --leader-elect=false --secure-port 0
}

run_kwok() {
  local stage stages=()
  for stage in "$(part_folder kwok)"/stages/*.yaml; do stages+=(--config "$stage"); done
  exec kwok --kubeconfig "$(kubeconfig_of admin)" "${stages[@]}" --node-lease-duration-seconds 0 \
    --manage-all-nodes=false --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake
}

# supervise PART: runs it again whenever it ends, as a kubelet would, except while $DIR/stopped/PART is there.
# The id in $DIR/pid/PART is the one the host sees, for the host's /proc is kept at $DIR/host-proc.
supervise() {
  while :; do
    while [[ -e $DIR/stopped/$1 ]]; do sleep 0.1; done
    (
      read -r pid _ <"$DIR/host-proc/self/stat"
      printf '%s\n' "$pid" >"$DIR/pid/$1"
      "run_$1"
    ) </dev/null >>"$DIR/log/$1.log" 2>&1 || sleep 0.3
  done
}

# Returns when a part that others need answers; the rest is given no time.
wait_for_part() {
  case $1 in
    etcd) wait_until 20 port_is_open 2379 ;;
    apiserver) wait_until 60 apiserver_is_ready ;;
    containerd) wait_until 60 containerd_answers ;;
    dns) wait_until 60 answers 8181 /ready ;;
    metrics-server) wait_until 60 node_is_measured ;;
    operator) wait_until 60 answers 9801 /healthz ;;
    keda) wait_until 60 keda_is_ready ;;
    keda-adapter) wait_until 60 is_available external.metrics.k8s.io ;;
    rabbitmq) wait_until 60 rabbitmq_is_ready ;;
    prometheus | dcgm) wait_for_pod "$1" ;;
  esac
}

port_is_open() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# answers PORT PATH: by HTTP, with 200.
answers() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3 && grep -q '^HTTP/1.* 200 ' <&3) 2>/dev/null
}
apiserver_is_ready() { port_is_open 6443 && [[ $(kubectl get --raw /readyz 2>/dev/null) == ok ]]; }
