#!/usr/bin/env bash
# Pass the output of `go test` on, and repeat at its end what the failed tests
# said, without the logs that they show: those are long, and the reason is above
# them.
#
#   go test ./... 2>&1 | scripts/failures.sh
set -euo pipefail

awk '
  { print; fflush() }
  /^=== (RUN|CONT|NAME|PAUSE) / { test = $3; next }
  /^ *--- FAIL: / { test = $3; failed[++failures] = test; said[test] = said[test] $0 "\n"; next }
  /^ *--- (PASS|SKIP): / { test = ""; next }
  /WARNING: DATA RACE|^panic: |^fatal error: |\[build failed\]/ { said["the whole"] = said["the whole"] $0 "\n"; whole = 1 }
  /Z \[(TRACE|DEBUG|INFO|WARN|ERROR)\] |the end of the log of / { next }
  /^ +[^ ]/ && lines[test]++ < 40 { said[test] = said[test] $0 "\n" }
  /^FAIL\t/ { packages = packages $0 "\n" }
  END {
    if (!failures && !whole && packages == "") exit
    print "\n==== what failed"
    for (i = 1; i <= failures; i++) printf "%s", said[failed[i]]
    printf "%s%s", said["the whole"], packages
  }
'
