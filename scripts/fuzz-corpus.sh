#!/usr/bin/env bash
# Choose, from what fuzzing has left in the build cache, the inputs that are kept
# in the repository: those that reach code which the seeds and the inputs kept
# already do not, those that reach most.
#
#   scripts/fuzz-corpus.sh
#
# FUZZ_TARGETS, a regular expression, picks some targets.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

most=40        # inputs of a target
largest=4096   # bytes of an input
go=${GO:-go}
module=$($go list -m)
cache=$($go env GOCACHE)/fuzz/$module
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

choose() { # DIRECTORY TARGET
  local from=$cache/$1/$2 kept=$1/testdata/fuzz/$2 binary=$work/${1//\//_}.test number=0 name room
  [ -d "$from" ] || return 0
  mkdir -p "$kept" "$work/$1/$2"
  find "$from" -type f -size "-$((largest + 1))c" -printf '%s %f\n' | sort -n | while read -r _ name; do
    [ -f "$kept/$name" ] || echo "$name"
  done | sed -n 1,300p >"$work/names"
  while read -r name; do
    cp "$from/$name" "$work/$1/$2/$(printf %03d $((number++)))-$name"
  done <"$work/names"
  # The fuzzer goes through its corpus before it fuzzes: through seeds and what is
  # kept, then through the cache in the order of names. It says of each input how
  # much is new, but not which it is.
  [ -f "$binary" ] || $go test -c -fuzz=. -o "$binary" "./$1"
  (cd "$1" && GODEBUG=fuzzdebug=1 "$binary" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime 500x -test.parallel 1 \
    -test.fuzzcachedir "$work/$1") >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  room=$((most - $(find "$kept" -type f | wc -l)))
  sed -nE 's/.*processed an initial input.*new bits: ([0-9]+),.*/\1/p' "$work/log" | tail -n "$(wc -l <"$work/names")" |
    paste - "$work/names" | awk '$1 > 0' | sort -rn | awk -v room="$room" 'NR <= room' | while read -r _ name; do
    cp "$from/$name" "$kept/$name"
  done
  echo "$2 in $1: $(find "$kept" -type f | wc -l) inputs are kept"
  rmdir --ignore-fail-on-non-empty -p "$kept"
}

while IFS=: read -r file target; do
  if grep -qE "${FUZZ_TARGETS:-.}" <<<"$target"; then
    choose "$(dirname "$file")" "$target"
  fi
done < <(git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]*' | sed 's/:func /:/')
