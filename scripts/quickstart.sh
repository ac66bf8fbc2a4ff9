#!/usr/bin/env bash
# The main job in one command: a file goes in, the leader is killed, and the
# same file comes out through the new leader.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${DFS_HOME:-$root/run}
quorum=$root/scripts/quorum.sh
dfs=$home/dfs

say() { printf '\n== %s\n' "$*"; }

sum() {
  if command -v sha256sum >/dev/null; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d' ' -f1
}

command -v go >/dev/null || { echo "quickstart.sh: Go is not installed; see https://go.dev/dl" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "Starting three NameNodes and three DataNodes (the first time, Go builds them)"
"$quorum" start >"$work/start.txt"
head -n 1 "$work/start.txt"
eval "$("$quorum" env)"

say "Uploading 64 MiB of random bytes"
head -c 67108864 /dev/urandom >"$work/in.bin"
"$dfs" upload --force --no-progress "$work/in.bin" /quickstart/file.bin
"$dfs" stat /quickstart/file.bin

killed=$("$quorum" kill-leader)
say "Killed the leader, $killed, with SIGKILL; downloading through the next"
"$dfs" download --no-progress /quickstart/file.bin "$work/out.bin"
echo "the leader now is $("$quorum" leader)"

before=$(sum "$work/in.bin")
after=$(sum "$work/out.bin")
echo "SHA-256 before: $before"
echo "SHA-256 after:  $after"
if [[ $before != "$after" ]]; then
  echo "quickstart.sh: the file came back different; the logs are in $home" >&2
  exit 1
fi

"$quorum" start-one "$killed"
deadline=$((SECONDS + 60))
until "$dfs" --timeout 5s admin members | grep -q "^$killed .*yes"; do
  ((SECONDS < deadline)) || { echo "quickstart.sh: $killed did not come back; see $home/$killed.log" >&2; exit 1; }
  sleep 0.2
done

say "The file outlived the leader. $killed is back, and these are left running:"
"$quorum" status
cat <<EOF

Look at next:
  eval "\$(scripts/quorum.sh env)"          let dfs find the cluster
  $dfs ls -l /quickstart
  $dfs admin members
  curl http://localhost:${DFS_HTTP_BASE:-8000}/nodes
  less $home/nn1.log
  scripts/quorum.sh stop               end everything listed above
EOF
