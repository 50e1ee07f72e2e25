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
  ! has_node || prepare_node
  start_parts
  wait_for_objects
  ! has_node || wait_for_images
  start_optional_parts "$START"
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

# Images are imported while everything else starts, and objects are there before the parts that look for them.
start_parts() {
  local part
  for part in "${PARTS[@]}"; do
    supervise "$part" &
    [[ -e $DIR/stopped/$part ]] || wait_for_part "$part"
    case $part in
      containerd) import_images & IMAGES=$! ;;
      apiserver) make_objects ;;
    esac
  done
}
wait_for_images() { wait "$IMAGES" || { tail -n 5 "$DIR/log/images.log" && exit 1; }; }

# `create`, for the larger CRDs do not fit into the annotation that client-side apply writes.
make_objects() {
  local nodes=nodes.yaml
  ! has_node || nodes=node.yaml
  kubectl create --validate=false -f "$HERE/manifests/rights.yaml" -f "$HERE/manifests/$nodes" \
    -f "$(part_folder operator-crds)" -f "$(part_folder keda-crds)"
}

wait_for_objects() {
  kubectl wait --for=condition=Established crd --all --timeout=30s
  kubectl wait --for=create serviceaccount/default --timeout=30s
  ! has_node || kubectl wait --for=create "node/$NODE" --timeout=60s
  kubectl wait --for=condition=Ready node --all --timeout=60s
  wait_until 30 nodes_take_pods
  ! has_node || wait_for_gpus
}

# Every new node is tainted not-ready until the node controller has seen it.
nodes_take_pods() { ! kubectl get nodes -o jsonpath='{.items[*].spec.taints[*].key}' | grep -q node.kubernetes.io; }
