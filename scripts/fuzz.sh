#!/usr/bin/env bash
# Run every fuzz target of the repository for a while, one after another.
#
#   scripts/fuzz.sh [TIME]     TIME as for `go test -fuzztime`: 3m, or 20000x
#
# FUZZ_TARGETS, a regular expression, picks some of them.
#
# A count ends by itself. A time ends by a deadline, and Go's fuzzer sometimes
# calls its own deadline a failure (golang.org/issue/75804) without having
# found anything: that alone is not a finding.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${1:-20000x}
pick=${FUZZ_TARGETS:-.}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() { # DIRECTORY TARGET
  ${GO:-go} test "./$1" -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 200x >"$log" 2>&1
}

only_deadline() {
  grep -q 'context deadline exceeded' "$log" && ! grep -qE 'Failing input|panic:|_test\.go:' "$log"
}

while IFS=: read -r file target; do
  grep -qE "$pick" <<<"$target" || continue
  echo "== $target in $(dirname "$file") for $time"
  if ! fuzz "$(dirname "$file")" "$target" && ! only_deadline; then
    cat "$log"
    exit 1
  fi
  grep -E '^fuzz: elapsed' "$log" | tail -n 1
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]*' | sed 's/:func /:/')
