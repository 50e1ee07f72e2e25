# The life of a cluster, seen from outside its namespaces. All state is in $DIR:
#   pid/outer    the `unshare` process; its death by SIGKILL ends everything
#   pid/first    the first process of the namespaces (like all ids here, as the host sees it)
#   pid/PART     each part; stopped/PART is there while it is meant to stay down
#   state.json   the same for programs
#   log/         outlives `down`

up() {
  if uses_existing; then
    say "using the cluster of KUBECONFIG=${KUBECONFIG:?names the existing cluster}; nothing is started"
    return
  fi
  is_built "$PROFILE" || cannot "profile $PROFILE is not built" "tests/cluster/cluster build $PROFILE"
  check_namespaces
  has_prerequisites "$PROFILE" || cannot "missing: $(missing_for "$PROFILE")" "tests/cluster/cluster prerequisites $PROFILE"
  lock
  if cluster_runs; then
    say "runs already in $DIR"
    return
  fi
  [[ -z $OWNER ]] || is_running "$OWNER" || die "the owner, process $OWNER, does not run"
  check_optional_parts "$START"
  local start part
  start=$(now_us)
  end_cluster
  remove_old_logs
  mkdir -p "$DIR"/{data,host-proc,log,pid,stopped}
  printf '%s\n' "$PROFILE" >"$DIR/profile"
  for part in "${OPTIONAL[@]}"; do touch "$DIR/stopped/$part"; done
  make_identities
  start_outer
  [[ -z $OWNER ]] || start_keeper
  wait_until 240 has_started || true
  if ! cluster_runs; then
    tail -n 15 "$DIR/log/first.log" >&2
    end_cluster
    die "the cluster did not start" "its logs are in $DIR/log"
  fi
  write_state
  say "ready after $(seconds_since "$start"): profile $PROFILE in $DIR"
}

# The logs of this folder's last cluster, and those that were left in the cache over an hour ago.
remove_old_logs() {
  rm -rf "$DIR/log"
  [[ -d $CACHE/run ]] || return 0
  local log
  while read -r log; do
    [[ -d ${log%/log}/pid ]] || rm -rf "${log%/log}"
  done < <(find "$CACHE/run" -mindepth 2 -maxdepth 2 -name log -mmin +60)
}

start_outer() {
  local kinds=(--net --pid --mount)
  ! has_cgroup_namespaces || kinds+=(--cgroup)
  setsid unshare "${kinds[@]}" --fork --kill-child \
    "$HERE/cluster" first-process --dir "$DIR" --profile "$PROFILE" --start "$START" --binary "$BINARY" --tag "$TAG" </dev/null >>"$DIR/log/first.log" 2>&1 8>&- &
  printf '%s\n' $! >"$DIR/pid/outer"
}

# Either ready, or ended on the way.
has_started() { [[ -e $DIR/ready ]] || ! is_running "$(pid_of outer)"; }
cluster_runs() { [[ -e $DIR/ready ]] && is_ours "$(pid_of outer)" && is_ours "$(pid_of first)"; }

# The two processes that hold the namespaces; an id from before a restart of the machine may be anybody's.
is_ours() { is_running "$1" && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF "first-process --dir $DIR "; }

require_cluster() {
  ! uses_existing || die "not possible with an existing cluster"
  cluster_runs || die "no cluster runs in $DIR" "tests/cluster/cluster up --dir $DIR"
  use_profile "$(<"$DIR/profile")"
}

pid_of() { cat "$DIR/pid/$1" 2>/dev/null || true; }

# One command at a time changes a cluster.
lock() {
  mkdir -p "$DIR"
  exec 8>"$DIR/lock"
  flock 8
}

# The owner is known by its start time too, for ids are used again.
start_keeper() {
  setsid "$HERE/cluster" keep --dir "$DIR" --owner "$OWNER" </dev/null >>"$DIR/log/keeper.log" 2>&1 8>&- &
}

keep() {
  local owner_started outer
  owner_started=$(start_time_of "$OWNER") outer=$(pid_of outer)
  while is_running "$OWNER" && [[ $(start_time_of "$OWNER") == "$owner_started" ]]; do
    is_running "$outer" || return 0
    sleep 1
  done
  [[ $(pid_of outer) != "$outer" ]] || down
}

# The 22nd field of stat; the second one, the name, may hold spaces.
start_time_of() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

down() {
  ! uses_existing || return 0
  [[ -d $DIR/pid ]] || return 0
  lock
  end_cluster
}

# Ends what is left of a cluster, however far it came.
end_cluster() {
  local outer first
  outer=$(pid_of outer) first=$(pid_of first)
  if is_ours "$outer"; then kill -KILL "$outer"; fi
  wait_until 20 have_ended "$outer" "$first" || die "process $outer or $first does not end"
  if [[ $(cat "$DIR/profile" 2>/dev/null) == @(node|pipeline) ]]; then
    wait_until 10 remove_control_groups || die "something still runs in /sys/fs/cgroup/*/$(control_group)"
  fi
  clear_state
}

have_ended() { ! is_ours "$1" && ! is_ours "$2"; }

clear_state() {
  rm -rf --one-file-system "$DIR"/{data,pki,pid,stopped,ready,profile,state.json} "$DIR"/*.kubeconfig
  [[ ! -d $DIR/host-proc ]] || rmdir "$DIR/host-proc"
}

status() {
  if uses_existing; then
    say "using the cluster of KUBECONFIG=${KUBECONFIG:-}"
    return
  fi
  cluster_runs || { echo "nothing runs in $DIR" && return 3; }
  local part pid
  use_profile "$(<"$DIR/profile")"
  echo "profile $PROFILE in $DIR, running since $(date -r "$DIR/ready" '+%F %T')"
  for part in outer first "${PARTS[@]}"; do
    pid=$(pid_of "$part")
    printf '  %-14s %-8s %s\n' "$part" "$pid" "$(condition_of "$pid")"
  done
  for part in "${PODS[@]}"; do printf '  %-14s %-8s %s\n' "$part" pod "$(condition_of_pod "$part")"; done
}

condition_of() {
  if ! is_running "$1"; then echo stopped; elif grep -q '^State:.T' "/proc/$1/status"; then echo frozen; else echo running; fi
}

write_state() {
  local part parts='' name rest kubeconfigs=''
  for part in "${PARTS[@]}"; do parts+="${parts:+, }\"$part\": $(number "$(pid_of "$part")")"; done
  while read -r name rest; do
    [[ $name == system:* ]] || kubeconfigs+="${kubeconfigs:+, }\"$name\": \"$(kubeconfig_of "$name")\""
  done < <(users)
  cat >"$DIR/state.json.new" <<JSON
{
  "profile": "$PROFILE",
  "outer": $(pid_of outer),
  "first": $(pid_of first),
  "parts": {$parts},
  "kubeconfigs": {$kubeconfigs},
  "audit_log": "$DIR/log/audit.log",
  "path": "$(path_of "$PROFILE" | sed "s|:$PATH\$||")"
}
JSON
  mv "$DIR/state.json.new" "$DIR/state.json"
}
# A part that was never started has no process.
number() { printf '%s' "${1:-null}"; }

enter() {
  (($# > 0)) || die "enter needs a command"
  if uses_existing; then exec "$@"; fi
  require_cluster
  exec_inside "$@"
}

# The working folder is kept; proxies are none of the cluster's.
exec_inside() {
  local kinds=(--net --pid --mount)
  ! has_cgroup_namespaces || kinds+=(--cgroup)
  # shellcheck disable=SC2016 # expanded by the shell inside
  exec nsenter --target "$(pid_of first)" "${kinds[@]}" env -u http_proxy -u https_proxy -u all_proxy \
    -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY "PATH=$(path_of "$PROFILE")" "KUBECONFIG=$(kubeconfig_of admin)" \
    bash -c 'cd "$1" && shift && exec "$@"' enter "$PWD" "$@"
}

print_environment() {
  require_cluster
  printf 'export KUBECONFIG=%q\nexport PATH=%q\n' "$(kubeconfig_of admin)" "$(path_of "$PROFILE")"
}

# fault KIND PART
fault() {
  require_cluster
  [[ " ${PARTS[*]} ${PODS[*]} " == *" ${2:-none} "* ]] || die "unknown part '$2'" "parts: ${PARTS[*]} ${PODS[*]}"
  lock
  if is_pod "$2"; then
    fault_pod "$1" "$2"
    return
  fi
  case $1 in
    stop) stop_part "$2" ;;
    freeze) signal_part STOP "$2" ;;
    thaw) signal_part CONT "$2" ;;
    restart) stop_part "$2" && if is_optional "$2"; then start "$2"; else restart_part "$2"; fi ;;
    *) die "unknown fault '$1'" "faults: stop, freeze, thaw, restart" ;;
  esac
}

# Only a process of the cluster's own namespace gets a signal.
part_runs() {
  local pid
  pid=$(pid_of "$1")
  is_running "$pid" && [[ /proc/$pid/ns/pid -ef /proc/$(pid_of first)/ns/pid ]]
}
part_has_ended() { ! part_runs "$1"; }

signal_part() {
  part_runs "$2" || die "$2 does not run"
  kill "-$1" "$(pid_of "$2")"
}

stop_part() {
  touch "$DIR/stopped/$1"
  if part_runs "$1"; then signal_part KILL "$1"; fi
  wait_until 10 part_has_ended "$1"
}

restart_part() {
  rm -f "$DIR/pid/$1" "$DIR/stopped/$1"
  wait_until 10 part_runs "$1"
  write_state
  (exec_inside "$HERE/cluster" wait-for-part --dir "$DIR" "$1")
}
