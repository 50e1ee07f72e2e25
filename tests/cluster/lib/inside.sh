# The first process of a cluster's namespaces: network, control plane, objects every test finds.

first_process() {
  export PATH KUBECONFIG=$DIR/admin.kubeconfig
  PATH=$(path_of "$PROFILE")
  unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
  mount --rbind /proc "$DIR/host-proc"
  mount -t proc proc /proc
  read -r pid _ <"$DIR/host-proc/self/stat"
  printf '%s\n' "$pid" >"$DIR/pid/first"
  make_network
  start_control_plane
  make_objects
  touch "$DIR/ready"
  # A shell that waits also reaps what its descendants leave behind.
  while :; do
    sleep infinity &
    wait $! || true
  done
}

# The default route is there because service addresses are translated only after a route is found.
make_network() {
  ip link set lo up
  ip link add node0 type bridge
  ip address add 10.200.0.1/24 dev node0
  ip link set node0 up
  ip route add default via 10.200.0.254 dev node0
}

start_control_plane() {
  local part
  for part in "${PARTS[@]}"; do
    supervise "$part" &
    wait_for_part "$part"
  done
}

# `create`, for the larger CRDs do not fit into the annotation that client-side apply writes.
make_objects() {
  kubectl create --validate=false -f "$HERE/manifests/rights.yaml" -f "$HERE/manifests/nodes.yaml" \
    -f "$(part_folder operator-crds)" -f "$(part_folder keda-crds)"
  kubectl wait --for=condition=Established crd --all --timeout=30s
  kubectl wait --for=create serviceaccount/default --timeout=30s
  kubectl wait --for=condition=Ready node --all --timeout=30s
  wait_until 30 nodes_take_pods
}

# Every new node is tainted not-ready until the node controller has seen it.
nodes_take_pods() { ! kubectl get nodes -o jsonpath='{.items[*].spec.taints[*].key}' | grep -q node.kubernetes.io; }
