# The same targets for people and for CI.
GO ?= go
FUZZTIME ?= 20000x
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

fuzz: ## each fuzz target for FUZZTIME: a count (20000x) or a time (3m)
	GO="$(GO)" scripts/fuzz.sh $(FUZZTIME)

chaos: ## faults against real processes for CHAOS_TIME
	DFS_CHAOS=$(CHAOS_TIME) $(GO) test -count=1 -timeout 30m -v ./test/chaos

bench: ## micro-benchmarks; compare two runs with benchstat
	$(GO) test -run '^$$' -bench . -benchmem ./...

clean:
	rm -rf bin run
