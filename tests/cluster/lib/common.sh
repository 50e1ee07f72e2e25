# Words to the person, and small questions about processes.

say() { printf '%s\n' "$*" >&2; }

# die SENTENCE [HINT]
die() {
  say "cluster: $1"
  [[ -z ${2:-} ]] || say "  hint: $2"
  exit 1
}

# cannot SENTENCE [HINT]: what is missing is a property of the machine, not a fault of the harness.
cannot() {
  (die "$@") || exit 4
}

# The second field of a part's line in `versions` is its module, the third its version.
module_of() { awk -v part="$1" '$1 == part { print $2 }' "$HERE/versions"; }
version_of() { awk -v part="$1" '$1 == part { print $3 }' "$HERE/versions"; }

# Says a duration since $1 (microseconds of EPOCHREALTIME without its point) in seconds.
now_us() { printf '%s' "${EPOCHREALTIME/[.,]/}"; }
seconds_since() {
  local ms=$((($(now_us) - $1) / 1000))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

is_running() { [[ -n ${1:-} && -d /proc/$1 ]] && ! grep -q '^State:.[ZX]' "/proc/$1/status" 2>/dev/null; }

# wait_until SECONDS COMMAND…: polls COMMAND ten times a second.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

uses_existing() { [[ ${TMS_TEST_CLUSTER:-} == existing ]]; }
