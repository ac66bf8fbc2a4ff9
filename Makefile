# The same targets for people and for CI.
GO ?= go
FUZZTIME ?= 10s
CHAOS_TIME ?= 20s

.PHONY: all build test lint fuzz chaos bench clean

all: lint test

build: ## build bin/dfs and the three classic commands
	$(GO) build -o bin/ ./cmd/...

test: ## everything that must pass, with the race detector
	$(GO) test -race -timeout 15m ./...

lint: ## formatting, vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w is needed for:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: ## each fuzz target for FUZZTIME
	@set -e; for file in $$(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do \
	  for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
	    echo "== $$target in $$(dirname $$file) for $(FUZZTIME)"; \
	    $(GO) test ./$$(dirname $$file) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) >/tmp/fuzz.$$$$ 2>&1 || { cat /tmp/fuzz.$$$$; exit 1; }; \
	    tail -n 1 /tmp/fuzz.$$$$; rm -f /tmp/fuzz.$$$$; \
	  done; done

chaos: ## faults against real processes for CHAOS_TIME
	DFS_CHAOS=$(CHAOS_TIME) $(GO) test -count=1 -timeout 30m -v ./test/chaos

bench: ## micro-benchmarks; compare two runs with benchstat
	$(GO) test -run '^$$' -bench . -benchmem ./...

clean:
	rm -rf bin run
