# Builds each part once into $CACHE/parts/PART-VERSION. A part appears there whole or not at all, so an
# interrupted build goes on where it was.

GO_ENVIRONMENT=(GOCACHE="$CACHE/go/build" GOMODCACHE="$CACHE/go/mod" GOFLAGS='' GOWORK=off CGO_ENABLED=0)

PROFILES="control-plane, node, pipeline"

# The parts of a profile; a larger profile begins with the smaller one.
parts_of() {
  case $1 in
    control-plane) echo kubernetes etcd kwok grpcurl helm promtool autoscaler-replay operator-crds keda-crds ;;
    node) echo "$(parts_of control-plane)" kubernetes-node containerd runc coredns images ;;
    pipeline) echo "$(parts_of node)" prometheus prometheus-operator metrics-server keda pipeline-images ;;
    *) die "unknown profile $1" "profiles: $PROFILES" ;;
  esac
}

# Each part_NAME fills the folder $1. To add one: such a function, its name above, its version in `versions`.
part_kubernetes() { go_build kubernetes "$1" k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubectl}; }
part_kubernetes-node() { go_build kubernetes "$1" k8s.io/kubernetes/cmd/{kubelet,kube-proxy}; }
part_containerd() { go_build containerd "$1" github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}; }
# Without seccomp it refuses every pod that asks for the runtime's default profile.
part_runc() { CGO=1 go_build runc "$1/runc" -tags seccomp github.com/opencontainers/runc; }
part_coredns() { go_build coredns "$1/coredns" github.com/coredns/coredns; }
part_images() { make_images "$1"; }
part_pipeline-images() { make_pipeline_images "$1"; }
part_etcd() { go_build etcd "$1/etcd" go.etcd.io/etcd/server/v3; }
part_grpcurl() { go_build grpcurl "$1" github.com/fullstorydev/grpcurl/cmd/grpcurl; }
part_helm() { go_build helm "$1" helm.sh/helm/v4/cmd/helm; }
# Without the tag, the clients of every cloud are compiled in.
part_promtool() { go_build prometheus "$1" -tags remove_all_sd github.com/prometheus/prometheus/cmd/promtool; }
# Of all discoveries only that of Kubernetes, for the same reason.
part_prometheus() {
  go_build prometheus "$1" -tags remove_all_sd,enable_kubernetes_sd github.com/prometheus/prometheus/cmd/prometheus
}
part_prometheus-operator() {
  local commands=github.com/prometheus-operator/prometheus-operator/cmd
  go_build prometheus-operator "$1/prometheus-operator" "$commands/operator"
  go_build prometheus-operator "$1" "$commands/prometheus-config-reloader"
  documents_of_module prometheus-operator \
    example/rbac/{prometheus/prometheus,prometheus-operator/prometheus-operator}-cluster-role{,-binding}.yaml |
    sed 's/namespace: default/namespace: monitoring/' >"$1/rights.yaml"
  mkdir "$1/crds"
  # What the operator does not start without, though nobody here uses it.
  copy_from_module prometheus-operator example/prometheus-operator-crd/monitoring.coreos.com_probes.yaml "$1/crds"
}
part_metrics-server() {
  go_build metrics-server "$1" sigs.k8s.io/metrics-server/cmd/metrics-server
  documents_of_module metrics-server manifests/base/rbac.yaml >"$1/rights.yaml"
}
part_keda() {
  local name
  for name in operator adapter; do go_build keda "$1/keda-$name" "github.com/kedacore/keda/v2/cmd/$name"; done
  documents_of_module keda config/{{rbac,metrics-server}/role{,_binding},service_account/service_account}.yaml >"$1/rights.yaml"
}
part_kwok() {
  go_build kwok "$1" sigs.k8s.io/kwok/cmd/kwok
  local stages
  stages=$(in_module kwok go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage
  mkdir "$1/stages"
  cp "$stages"/node/fast/node-initialize.yaml "$stages"/pod/fast/pod-*.yaml "$1/stages/"
}
# The controller of the autoscaler as it is, with a test of ours in its package: Go lets nobody else in.
part_autoscaler-replay() {
  local source file work=$1/work
  source=$(in_module kubernetes go list -f '{{.Dir}}' k8s.io/kubernetes/pkg/controller/podautoscaler)
  mkdir "$work"
  for file in "$source"/*.go; do
    [[ $file == *_test.go ]] || cp "$file" "$work/"
  done
  cp "$HERE"/modules/kubernetes/go.{mod,sum} "$HERE/replay/replay_test.go" "$work/"
  (cd "$work" && env "${GO_ENVIRONMENT[@]}" go test -c -trimpath -ldflags '-s -w' -o "$1/autoscaler-replay" .)
  rm -rf "$work"
}
part_operator-crds() {
  local kind
  for kind in podmonitors prometheuses prometheusrules servicemonitors; do
    copy_from_module prometheus-operator "example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$1"
  done
}
part_keda-crds() { copy_from_module keda 'config/crd/bases/*.yaml' "$1"; }

# Where a part is. Two parts of one module have one version; images have that of the files they are made by.
part_folder() {
  local version
  case $1 in
    promtool) version=$(version_of prometheus) ;;
    operator-crds) version=$(version_of prometheus-operator) ;;
    keda-crds) version=$(version_of keda) ;;
    kubernetes-node) version=$(version_of kubernetes) ;;
    autoscaler-replay) version=$(version_of kubernetes)-$(sha256sum <"$HERE/replay/replay_test.go" | head -c 12) ;;
    images) version=$(cat "$HERE"/images/* | sha256sum | head -c 12) ;;
    pipeline-images) version=$(cat "$HERE"/{images/*,versions} | sha256sum | head -c 12) ;;
    *) version=$(version_of "$1") ;;
  esac
  printf '%s' "$CACHE/parts/$1-$version"
}

is_built() {
  local part
  for part in $(parts_of "$1"); do
    [[ -d $(part_folder "$part") ]] || return 1
  done
}

# The PATH that has the profile's binaries first.
path_of() {
  local part path=''
  for part in $(parts_of "$1"); do path+=$(part_folder "$part"):; done
  printf '%s' "$path$PATH"
}

build() {
  local profile=$1 part
  use_profile "$profile"
  ! is_built "$profile" || return 0
  check_prerequisites "$profile"
  lock_builds
  for part in $(parts_of "$profile"); do
    [[ -d $(part_folder "$part") ]] || build_part "$part"
  done
  remove_go_caches
  exec 9>&-
}

# One at a time, for they share the Go caches, and the last act of each is to remove them.
lock_builds() {
  mkdir -p "$CACHE/parts" "$CACHE/log"
  exec 9>"$CACHE/build.lock"
  flock --nonblock 9 || { say "another build runs; waiting for it" && flock 9; }
}

build_part() {
  local part=$1 folder new log start=$SECONDS
  folder=$(part_folder "$part") new=$CACHE/parts/.new-$part log=$CACHE/log/build-$part.log
  say "building ${folder##*/} …"
  # A second try, because downloads break off now and then; what is compiled stays in the cache.
  "$HERE/cluster" make-part "$part" "$new" >"$log" 2>&1 || "$HERE/cluster" make-part "$part" "$new" >>"$log" 2>&1 ||
    { tail -n 15 "$log" >&2 && die "could not build $part" "the whole log is $log"; }
  chmod -R u+w "$new"
  mv "$new" "$folder"
  say "  ${folder##*/}: $((SECONDS - start)) s"
}

# A process of its own, so that the first failing command ends it.
make_part() {
  rm -rf "$2" && mkdir "$2"
  "part_$1" "$2"
}

in_module() {
  local module=$1
  shift
  (set -e && cd "$HERE/modules/$module" && env "${GO_ENVIRONMENT[@]}" "$@")
}

# go_build MODULE TARGET [FLAG…] PACKAGE…: TARGET is a folder, or the binary's path.
go_build() {
  local module=$1 target=$2
  shift 2
  in_module "$module" env "CGO_ENABLED=${CGO:-0}" go build -trimpath -ldflags "-s -w $(linker_flags "$module")" -o "$target" "$@"
}

# Kubernetes takes its version from the linker; without it a server calls itself v0.0.0-master.
linker_flags() {
  [[ $1 == kubernetes ]] || return 0
  local version package major minor
  version=$(version_of kubernetes)
  IFS=. read -r major minor _ <<<"${version#v}"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- '-X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s ' \
      "$package" "$version" "$package" "$major" "$package" "$minor"
  done
}

# copy_from_module PART GLOB FOLDER
copy_from_module() {
  local folder
  folder=$(folder_of_module "$1")
  # shellcheck disable=SC2086 # the pattern is to be expanded
  (cd "$folder" && cp $2 "$3/")
}

# documents_of_module PART FOLDER/FILE…: prints YAML files as one.
documents_of_module() {
  local folder file
  folder=$(folder_of_module "$1")
  shift
  for file in "$@"; do
    echo ---
    cat "$folder/$file"
  done
}

folder_of_module() {
  in_module "$1" go mod download "$(module_of "$1")"
  in_module "$1" go list -m -f '{{.Dir}}' "$(module_of "$1")"
}

remove_go_caches() {
  [[ -d $CACHE/go ]] || return 0
  chmod -R u+w "$CACHE/go"
  rm -rf "$CACHE/go"
}

# pin PART: for maintainers, after a change of `versions`.
pin() {
  local part=$1 module version folder=$HERE/modules/$1
  module=$(module_of "$part") version=$(version_of "$part")
  [[ -n $module ]] || die "$part has no line in versions"
  mkdir -p "$folder"
  lock_builds
  case $part in
    kubernetes)
      sed -i "s/^\(\tk8s.io\/.* => .*\) v.*/\1 v0.${version#v1.}/" "$folder/go.mod"
      in_module "$part" go mod edit -require "$module@$version"
      in_module "$part" go mod tidy
      ;;
    # Tidying would ask for modules that only tests of other systems need.
    prometheus | prometheus-operator | keda | metrics-server) get_tools "$part" "$module" "$version" ;;
    *)
      in_module "$part" go mod edit -require "$module@$version"
      in_module "$part" go mod tidy
      ;;
  esac
  remove_go_caches
}

# get_tools PART MODULE VERSION: as many tools as its go.mod names already.
get_tools() {
  local tools
  mapfile -t tools < <(in_module "$1" go list -f '{{.ImportPath}}' tool)
  in_module "$1" go get -tool "${tools[@]/%/@$3}"
}
