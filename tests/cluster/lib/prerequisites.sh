# What the machine has to bring: commands, root, kernel features.

# Each needed command and the Debian package that brings it.
needed_commands() {
  cat <<'TABLE'
awk mawk
find findutils
flock util-linux
go golang
ip iproute2
nsenter util-linux
openssl openssl
setsid util-linux
unshare util-linux
TABLE
}

check_prerequisites() {
  local command package missing=() packages=()
  while read -r command package; do
    command -v "$command" >/dev/null && continue
    missing+=("$command") packages+=("$package")
  done < <(needed_commands)
  if ((${#missing[@]} > 0)); then
    install_packages "${missing[*]}" "${packages[@]}"
  fi
  check_go
}

install_packages() {
  local names=$1
  shift
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    cannot "missing: $names" "install the packages that bring them (Debian: $*)"
  fi
  say "installing $* (for: $names)"
  apt-get update -qq >/dev/null || say "apt-get update failed; trying with the lists at hand"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null ||
    die "apt-get could not install $*"
}

# From 1.21 on, go fetches the toolchain that a go.mod asks for.
check_go() {
  local version
  version=$(go env GOVERSION)
  if ! [[ $version =~ ^go1\.([0-9]+) ]] || ((BASH_REMATCH[1] < 21)); then
    cannot "$version is too old" "go 1.21 or later is needed"
  fi
}

# Says which of root, namespaces and bridge device this machine refuses.
check_namespaces() {
  ((EUID == 0)) || cannot "namespaces and network devices need root" "run it as root"
  local kind
  for kind in net pid mount; do
    unshare "--$kind" --fork true 2>/dev/null || cannot "this kernel or container refuses a new $kind namespace"
  done
  unshare --net ip link add node0 type bridge 2>/dev/null || cannot "this kernel has no bridge device"
}

has_cgroup_namespaces() { unshare --cgroup true 2>/dev/null; }
