#!/usr/bin/env bash
# Measures a cluster on this machine beside what limits it: the raw disk, nginx
# and etcd, in the same run, in turns.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${BENCH_HOME:-$root/run/bench}
[[ $home == /* ]] || home=$PWD/$home
port=${BENCH_PORT:-17000}

usage() {
  cat <<EOF
usage: scripts/bench.sh [quick]           the table of docs/performance.md; quick: smaller, in minutes
       scripts/bench.sh curves [quick]    the plots in docs/performance
       scripts/bench.sh publish FILE...   puts the table of a run into docs/performance.md; rows of later files take the
                                          place of those with the same title

As root on Debian it installs nginx-light and etcd-server when they are missing
(BENCH_INSTALL=no: it does not), and starts neither as a service. Rows that need
what is not there have no reference. Everything else runs as any user.

  PREVIOUS=REV     also measures that revision
  ROWS=put,stat    only these: put put4 get get8 small mkdir create stat list failover recover memory files chunks;
                   of curves: concurrency size names files chunks
  RUNS=5           medians of so many
  SIZE, MEMORY_SIZE, REPAIR_SIZE (bytes), SECONDS_EACH, KILLS, FILES, CHUNKS, NAMES
  BENCH_HOME       where all data and results lie (now $home); it needs some 60 GiB for the full size
  BENCH_PORT       first of a thousand ports (now $port)
EOF
}

say() { echo "bench.sh: $*" >&2; }

installed() { command -v "$1" >/dev/null || [[ -x /usr/sbin/$1 ]]; }

# install_references gets what is missing, without letting it run as a service.
install_references() {
  local -a missing=() packages=()
  local name policy=/usr/sbin/policy-rc.d made=""
  for name in nginx etcd; do
    if ! installed "$name"; then missing+=("$name"); fi
  done
  if ((${#missing[@]} == 0)); then return 0; fi
  if [[ ${BENCH_INSTALL:-yes} != no && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    for name in "${missing[@]}"; do
      case $name in
        nginx) packages+=(nginx-light) ;;
        etcd) packages+=(etcd-server) ;;
      esac
    done
    if [[ ! -e $policy ]]; then
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod 755 "$policy"
      made=yes
    fi
    { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" ||
      { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; }; } >"$home/apt.log" 2>&1 ||
      say "apt-get failed; see $home/apt.log"
    if [[ $made == yes ]]; then rm -f "$policy"; fi
    if [[ -d /run/systemd/system ]]; then # nor at the next boot
      for name in "${missing[@]}"; do systemctl disable "$name" >>"$home/apt.log" 2>&1 || true; done
    fi
  fi
  for name in "${missing[@]}"; do
    if ! installed "$name"; then
      case $name in
        nginx) say "nginx is not installed: get, get8 and the reads of small have no reference (Debian: apt-get install nginx-light)" ;;
        etcd) say "etcd is not installed: mkdir, create and stat have no reference (Debian: apt-get install etcd-server)" ;;
      esac
    fi
  done
}

child=""
temporary=""

# clean_up ends what is left when the measuring program could not do it itself.
clean_up() {
  local name base
  if [[ -n $child ]] && kill -0 "$child" 2>/dev/null; then
    kill -TERM "$child" 2>/dev/null || true
    wait "$child" || true
  fi
  base=$port
  for name in dfs previous; do
    if [[ -d $home/$name ]]; then
      DFS_HOME=$home/$name DFS_RAFT_BASE=$base DFS_HTTP_BASE=$((base + 20)) DFS_DATA_BASE=$((base + 40)) \
        "$root/scripts/quorum.sh" stop || true
    fi
    base=$((port + 100))
  done
  if [[ -n $temporary ]]; then
    git -C "$root" worktree remove --force "$temporary/previous" 2>/dev/null || true
    rm -rf "$temporary"
  fi
}

# measure runs the program, and hands signals on to it.
measure() {
  local status
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  "$home/reference" "$@" &
  child=$!
  status=0
  wait "$child" || status=$?
  child=""
  return "$status"
}

mode=run
case ${1:-} in
  "") ;;
  quick) export BENCH_QUICK=yes ;;
  curves) mode=curves; if [[ ${2:-} == quick ]]; then export BENCH_QUICK=yes; fi ;;
  publish) mode=publish; [[ -f ${2:-} ]] || { usage >&2; exit 2; } ;;
  -h | --help | help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

command -v go >/dev/null || { say "Go is not installed; see https://go.dev/dl"; exit 1; }
mkdir -p "$home"
export BENCH_ROOT=$root BENCH_HOME=$home BENCH_PORT=$port
(cd "$root/scripts/reference" && go build -o "$home/reference" .)

if [[ $mode == publish ]]; then exec "$home/reference" publish "${@:2}"; fi

install_references
if [[ -n ${PREVIOUS:-} && $mode == run ]]; then
  temporary=$(mktemp -d)
  trap clean_up EXIT
  git -C "$root" worktree add --detach --quiet "$temporary/previous" "$PREVIOUS"
  export BENCH_PREVIOUS=$temporary/previous
fi
measure "$mode"
