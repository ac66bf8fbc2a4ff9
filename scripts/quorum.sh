#!/usr/bin/env bash
# A small cluster of real processes on this machine: NameNodes that elect a
# leader, and DataNodes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${DFS_HOME:-$root/run}
[[ $home == /* ]] || home=$PWD/$home # the build changes the directory
http_base=${DFS_HTTP_BASE:-8000}
raft_base=${DFS_RAFT_BASE:-7000}
data_base=${DFS_DATA_BASE:-9000}
namenodes=${NAMENODES:-3}
datanodes=${DATANODES:-3}
patience=${DFS_PATIENCE:-60} # seconds to wait for a leader and for stops
dfs=$home/dfs

usage() {
  cat <<EOF
usage: scripts/quorum.sh COMMAND

  start         build, start what is not running, wait for a leader and all DataNodes
  stop          end everything that start started
  status        who runs, who leads
  leader        print the ID of the leader
  kill-leader   kill the leader with SIGKILL and print its ID
  kill ID       kill one node with SIGKILL
  start-one ID  start one node again
  env           print what to put into the environment

Data, logs and pid files lie in \$DFS_HOME (now $home).
Also: DFS_HTTP_BASE=$http_base DFS_RAFT_BASE=$raft_base DFS_DATA_BASE=$data_base NAMENODES=$namenodes DATANODES=$datanodes
EOF
}

die() { echo "quorum.sh: $*" >&2; exit 1; }

# check_number NAME VALUE LOWEST HIGHEST refuses what arithmetic would choke on.
check_number() {
  if [[ $2 =~ ^(0|[1-9][0-9]{0,4})$ ]] && (($2 >= $3 && $2 <= $4)); then return 0; fi
  echo "quorum.sh: $1 is '$2'; it must be a number from $3 to $4" >&2
  exit 2
}

check_number NAMENODES "$namenodes" 1 9
check_number DATANODES "$datanodes" 0 99
check_number DFS_HTTP_BASE "$http_base" 1 65400
check_number DFS_RAFT_BASE "$raft_base" 1 65400
check_number DFS_DATA_BASE "$data_base" 1 65400
check_number DFS_PATIENCE "$patience" 1 86400

ids() {
  local i
  for ((i = 1; i <= namenodes; i++)); do echo "nn$i"; done
  for ((i = 1; i <= datanodes; i++)); do echo "dn$i"; done
}

urls() {
  local list="" i
  for ((i = 0; i < namenodes; i++)); do list+="${list:+,}http://localhost:$((http_base + i))"; done
  echo "$list"
}

peers() {
  local list="" i
  for ((i = 0; i < namenodes; i++)); do
    list+="${list:+,}nn$((i + 1))=localhost:$((raft_base + i))@http://localhost:$((http_base + i))"
  done
  echo "$list"
}

# pid_of ID prints the process ID when that process is there and is ours: the
# number may have been given to another process since.
pid_of() {
  local file=$home/$1.pid pid
  [[ -s $file ]] || return 1
  pid=$(<"$file")
  [[ $(ps -o args= -p "$pid" 2>/dev/null) == "$dfs "*"-id $1 "* ]] || return 1
  echo "$pid"
}

check_id() {
  ids | grep -qx -- "$1" || die "there is no node $1; the nodes are: $(ids | tr '\n' ' ')"
}

build() {
  mkdir -p "$home"
  (cd "$root" && go build -o "$dfs" ./cmd/dfs)
}

start_one() {
  local id=$1 i
  if pid_of "$id" >/dev/null; then return 0; fi
  i=$((${id:2} - 1))
  local -a args
  case $id in
    nn*) args=(namenode -id "$id" -addr ":$((http_base + i))" -raft-addr ":$((raft_base + i))" -meta-dir "$home/$id") 
         if ((namenodes > 1)); then args+=(-peers "$(peers)"); fi ;;
    dn*) args=(datanode -id "$id" -addr ":$((data_base + i))" -self "http://localhost:$((data_base + i))" -namenode "$(urls)" -data-dir "$home/$id") ;;
  esac
  # In a session of its own, so that Ctrl-C here does not reach it.
  setsid "$dfs" "${args[@]}" </dev/null >>"$home/$id.log" 2>&1 &
  echo $! >"$home/$id.pid"
}

leader() {
  [[ -x $dfs ]] || return 1
  "$dfs" --namenodes "$(urls)" --timeout 5s admin leader 2>/dev/null
}

nodes_up() {
  "$dfs" --namenodes "$(urls)" --timeout 5s --json nodes 2>/dev/null | grep -o '"state": *"up"' | wc -l
}

wait_ready() {
  local deadline=$((SECONDS + patience)) id
  until leader >/dev/null && (($(nodes_up) >= datanodes)); do
    for id in $(ids); do
      pid_of "$id" >/dev/null || { tail -n 5 "$home/$id.log" >&2; die "$id has ended; see $home/$id.log"; }
    done
    ((SECONDS < deadline)) || die "no leader with $datanodes DataNodes after $patience seconds; see $home/*.log"
    sleep 0.2
  done
}

start() {
  build
  local id
  for id in $(ids); do start_one "$id"; done
  if ! (wait_ready); then
    local -a left=()
    for id in $(ids); do
      if pid_of "$id" >/dev/null; then left+=("$id"); fi
    done
    if ((${#left[@]} > 0)); then
      echo "quorum.sh: still running: ${left[*]}; scripts/quorum.sh stop ends them" >&2
    fi
    exit 1
  fi
  cat <<EOF
$namenodes NameNodes and $datanodes DataNodes are running; $(leader) leads. Logs and data: $home

Try next:
  eval "\$(scripts/quorum.sh env)"
  $dfs upload README.md docs/readme.md
  $dfs ls -l docs
  scripts/quorum.sh kill-leader
  $dfs cat docs/readme.md
  $dfs admin members
  scripts/quorum.sh stop
EOF
}

# started lists whom there is a pid file of: there may have been more nodes than
# the environment says now.
started() {
  local file
  for file in "$home"/[nd]n*.pid; do
    [[ -e $file ]] && basename "$file" .pid
  done
  return 0
}

stop() {
  local id pid deadline
  for id in $(started); do
    if pid=$(pid_of "$id"); then kill -TERM "$pid" 2>/dev/null || true; fi
  done
  deadline=$((SECONDS + patience))
  for id in $(started); do
    while pid=$(pid_of "$id"); do
      if ((SECONDS >= deadline)); then
        echo "quorum.sh: $id does not end; killing it" >&2
        kill -KILL "$pid" 2>/dev/null || true
      fi
      sleep 0.1
    done
    rm -f "$home/$id.pid"
  done
}

kill_one() {
  local pid
  pid=$(pid_of "$1") || die "$1 is not running"
  kill -KILL "$pid"
  while pid_of "$1" >/dev/null; do sleep 0.02; done
}

status() {
  local id pid current
  current=$(leader) || current=""
  for id in $(ids); do
    if pid=$(pid_of "$id"); then
      echo "$id running, pid $pid$([[ $id == "$current" ]] && echo ", leads")"
    else
      echo "$id not running"
    fi
  done
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  status) status ;;
  leader) leader || die "no NameNode leads" ;;
  kill-leader)
    id=$(leader) || die "no NameNode leads"
    kill_one "$id"
    echo "$id" ;;
  kill) check_id "${2:-}"; kill_one "$2" ;;
  start-one) check_id "${2:-}"; [[ -x $dfs ]] || build; start_one "$2" ;;
  env) echo "export DFS_NAMENODES=$(urls)" ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
