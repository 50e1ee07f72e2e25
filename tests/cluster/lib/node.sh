# The node of profile `node`: containerd, kubelet and kube-proxy, cluster DNS, GPUs that are only said to be there,
# and volumes. Its fixed paths are private: this file's mounts hide the machine's.

NODE=node-0
NODE_ADDRESS=10.200.0.1
DNS_ADDRESS=10.96.0.10
GPUS=8

# The group of this cluster's pods in every hierarchy. Two kubelets under one name would end each other's pods.
control_group() { printf 'tms-test-%s' "$(printf '%s' "$DIR" | sha256sum | head -c 12)"; }

prepare_node() {
  mkdir -p "$DIR"/data/{node,kubelet,volumes} "$DIR/log/pods"
  hide_machine_folders
  use_cluster_names
  settle_kernel
  make_control_groups
  echo 1 >/proc/sys/net/ipv4/ip_forward
  write_node_configuration
}

# containerd, kubelet and CNI plugins have paths that no option moves.
hide_machine_folders() {
  mount -t tmpfs -o mode=755 tmpfs /run
  local folder layers
  for folder in /var/lib /var/log; do
    layers=$DIR/data/hidden$folder
    mkdir -p "$layers"/{upper,work}
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$layers/upper,workdir=$layers/work" "$folder"
  done
}

# Whoever enters reaches Services by the names that pods use, and so do programs of the node: KEDA is told of Prometheus and
# of queues by such names. The machine's own names are of no use here.
use_cluster_names() {
  local file
  printf 'nameserver %s\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n' "$NODE_ADDRESS" >"$DIR/data/node/names.conf"
  file=$(readlink -m /etc/resolv.conf)
  # Where it leads into /run, the machine's file is hidden.
  mkdir -p "${file%/*}" && touch "$file"
  mount --bind "$DIR/data/node/names.conf" "$file"
}

# kubelet sets these for the whole machine, unless they are so already. Here it only reads that they are.
settle_kernel() {
  local name value file
  while read -r name value; do
    [[ -e /proc/sys/$name ]] || continue
    file=$DIR/data/node/${name//\//.}
    printf '%s\n' "$value" >"$file"
    mount --bind "$file" "/proc/sys/$name"
  done <<'TABLE'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
TABLE
}

# kubelet wants its root group to exist, in each hierarchy of version 1 or the one of version 2.
make_control_groups() {
  local hierarchy group
  for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [[ -e $hierarchy/cgroup.procs ]] || continue
    group=$hierarchy/$(control_group)
    mkdir -p "$group"
    copy_if_there "$hierarchy"/cpuset.{cpus,mems} "$group"
    [[ ! -e $hierarchy/cgroup.controllers ]] || delegate_controllers "$hierarchy"
  done
}
copy_if_there() {
  [[ -e $1 ]] || return 0
  cat "$1" >"$3/${1##*/}" && cat "$2" >"$3/${2##*/}"
}
delegate_controllers() {
  local controller
  for controller in $(<"$1/cgroup.controllers"); do echo "+$controller" >"$1/cgroup.subtree_control"; done
}

# From outside, when nothing runs in them any more. Fails while something does.
remove_control_groups() {
  local group
  for group in /sys/fs/cgroup/{,*/}"$(control_group)"; do
    [[ ! -d $group ]] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || return 1
  done
}

write_node_configuration() {
  local target=$DIR/data/node
  mkdir -p "$target/cni"
  : >"$target/resolv.conf"
  containerd_configuration >"$target/containerd.toml"
  network_configuration >"$target/cni/10-pods.conflist"
  kubelet_configuration >"$target/kubelet.yaml"
  proxy_configuration >"$target/kube-proxy.yaml"
  dns_configuration >"$target/Corefile"
}

# Without restrict_oom_score_adj no container starts where root lacks CAP_SYS_RESOURCE.
containerd_configuration() {
  cat <<TOML
version = 3
root = '$DIR/data/containerd'
state = '/run/containerd'
[plugins.'io.containerd.internal.v1.opt']
  path = '$DIR/data/opt'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'docker.io/local/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/usr/lib/cni']
    conf_dir = '$DIR/data/node/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '$(part_folder runc)/runc'
      SystemdCgroup = false
TOML
}

# A wire for each pod instead of a bridge: every packet passes the node, so that service addresses are translated
# both ways without br_netfilter. Nothing leaves the machine, hence no masquerade and no iptables.
network_configuration() {
  cat <<JSON
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": "/run/cni",
      "ranges": [[{"subnet": "10.244.0.0/22"}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
JSON
}

# Images are never collected: they cannot be pulled again. A pipeline is not to wait a minute until a changed Secret, which
# is how Prometheus gets its configuration, reaches its pod.
kubelet_configuration() {
  local pace=1m
  [[ $PROFILE != pipeline ]] || pace=5s
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$(control_group)
enforceNodeAllocatable: [pods]
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
readOnlyPort: 0
failSwapOn: false
oomScoreAdj: 0
resolvConf: $DIR/data/node/resolv.conf
clusterDomain: cluster.local
clusterDNS: [$DNS_ADDRESS]
podLogsDir: $DIR/log/pods
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
maxPods: 200
syncFrequency: $pace
YAML
}

# Limits of connection tracking are the machine's, and stay as they are.
proxy_configuration() {
  cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $NODE
oomScoreAdj: 0
clientConnection: {kubeconfig: $(kubeconfig_of system:kube-proxy)}
clusterCIDR: 10.244.0.0/16
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
}

# There is no world outside: names of other domains do not exist.
dns_configuration() {
  cat <<COREFILE
cluster.local:53 in-addr.arpa:53 {
  bind $NODE_ADDRESS
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $(kubeconfig_of system:coredns)
  }
}
.:53 {
  bind $NODE_ADDRESS
  template ANY ANY . {
    rcode NXDOMAIN
  }
}
COREFILE
}

run_containerd() { exec containerd --config "$DIR/data/node/containerd.toml"; }
run_kubelet() {
  exec kubelet --config "$DIR/data/node/kubelet.yaml" --kubeconfig "$(kubeconfig_of "system:node:$NODE")" \
    --root-dir "$DIR/data/kubelet" --hostname-override "$NODE" --node-ip "$NODE_ADDRESS" --node-labels tms.test/node=real
}
run_proxy() { exec kube-proxy --config "$DIR/data/node/kube-proxy.yaml"; }
run_dns() { exec coredns -conf "$DIR/data/node/Corefile"; }

# A kubelet that starts takes back what it knows nothing of.
run_gpus() {
  local count size="{\"nvidia.com/gpu\": \"$GPUS\"}"
  kubectl get node "$NODE" --watch -o jsonpath='{.status.allocatable.nvidia\.com/gpu}{"\n"}' | while read -r count; do
    [[ $count == "$GPUS" ]] || kubectl patch node "$NODE" --subresource status --type merge \
      --patch "{\"status\": {\"capacity\": $size, \"allocatable\": $size}}"
  done
}

wait_for_gpus() {
  kubectl wait --for=jsonpath='{.status.allocatable.nvidia\.com/gpu}'="$GPUS" "node/$NODE" --timeout=30s
}

# Gives each claim of class `local` a volume of its own: a folder of the node, which obeys fsGroup.
run_volumes() {
  local namespace name uid phase class size mode
  kubectl get persistentvolumeclaims --all-namespaces --watch -o jsonpath='{.metadata.namespace} {.metadata.name} {.metadata.uid} {.status.phase} {.spec.storageClassName} {.spec.resources.requests.storage} {.spec.accessModes[0]}{"\n"}' |
    while read -r namespace name uid phase class size mode; do
      [[ $phase == Pending && $class == local ]] || continue
      mkdir -p "$DIR/data/volumes/$uid"
      volume "$namespace" "$name" "$uid" "$size" "$mode" | kubectl create -f - || true
    done
}

# volume NAMESPACE NAME UID SIZE MODE, those of its claim.
volume() {
  cat <<YAML
apiVersion: v1
kind: PersistentVolume
metadata: {name: "pvc-$3"}
spec:
  storageClassName: local
  capacity: {storage: "$4"}
  accessModes: ["$5"]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: "$1", name: "$2", uid: "$3"}
  local: {path: "$DIR/data/volumes/$3"}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: tms.test/node, operator: In, values: [real]}]}]}}
YAML
}

containerd_answers() { ctr version >/dev/null 2>&1; }
