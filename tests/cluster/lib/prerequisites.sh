# What the machine has to bring: commands, root, kernel features.

# Each command or file that a profile needs, and the Debian package that brings it.
needed_by() {
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
  [[ $1 == control-plane ]] || cat <<'TABLE'
/bin/busybox busybox-static
/etc/ssl/certs/ca-certificates.crt ca-certificates
/usr/bin/python3.11 python3.11
/usr/include/seccomp.h libseccomp-dev
/usr/include/stdio.h libc6-dev
/usr/lib/cni/ptp containernetworking-plugins
/usr/lib/python3/dist-packages/pip/__init__.py python3-pip
/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0 libpython3.11
gcc gcc
ldd libc-bin
nft nftables
pkg-config pkg-config
strip binutils
TABLE
  [[ $1 != pipeline ]] || echo /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server
}

has_prerequisites() { [[ -z $(missing_for "$1") ]]; }

missing_for() {
  local needed package
  while read -r needed package; do
    is_there "$needed" || printf '%s ' "$needed"
  done < <(needed_by "$1")
}

is_there() { if [[ $1 == /* ]]; then [[ -e $1 ]]; else command -v "$1" >/dev/null; fi; }

check_prerequisites() {
  local profile=$1 missing
  missing=$(missing_for "$profile")
  if [[ -n $missing ]]; then
    # shellcheck disable=SC2046 # one word for each package
    install_packages "$missing" $(packages_of "$profile")
  fi
  check_go
}

packages_of() {
  local needed package
  while read -r needed package; do
    is_there "$needed" || echo "$package"
  done < <(needed_by "$1") | sort -u
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
