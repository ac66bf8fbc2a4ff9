# The same targets for people and for CI.
GO ?= go
FUZZTIME ?= 20000x
FAULT_TIME ?= $(or $(CHAOS_TIME),20s)
FAULT_LONG_TIME ?= 3m
FAULT_LONG_ROUNDS ?= 20
FAULT_LONG_KILLS ?= 200
FAULT_ROUNDS ?= 50
FAULT_MUTANTS ?= all

.PHONY: all build test lint fuzz faults faults-long powercut faults-mutants chaos bench bench-cluster bench-curves clean

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

faults: ## faults against real processes, as root in part; mixed ones for FAULT_TIME
	DFS_FAULTS=$(FAULT_TIME) $(GO) test -count=1 -parallel 6 -timeout 30m -v ./internal/faultbed ./test/faults

faults-long: ## everything of 'make faults' for longer, about 35 minutes on two cores; needs root
	DFS_FAULTS=$(FAULT_LONG_TIME) DFS_FAULT_ROUNDS=$(FAULT_LONG_ROUNDS) DFS_FAULT_KILLS=$(FAULT_LONG_KILLS) DFS_FAULT_NAMES=100000 \
	$(GO) test -count=1 -p 1 -parallel 6 -timeout 4h -v ./internal/faultbed ./test/faults

powercut: ## FAULT_ROUNDS power cuts of a whole cluster; needs root
	DFS_FAULTS=$(FAULT_TIME) DFS_FAULT_ROUNDS=$(FAULT_ROUNDS) $(GO) test -count=1 -timeout 3h -v -run '^TestPowerCut$$' ./test/faults

faults-mutants: ## planted bugs, which the scenarios must find; FAULT_MUTANTS names some; needs root
	DFS_FAULTS=$(FAULT_TIME) DFS_FAULT_MUTANTS=$(FAULT_MUTANTS) $(GO) test -count=1 -timeout 1h -v -run '^TestMutants$$' ./test/faults

chaos: ## only the kills and pauses, which need no root
	DFS_FAULTS=$(FAULT_TIME) $(GO) test -count=1 -timeout 30m -v -run 'Kill|Mixed|Snapshot|Wakes' ./test/faults

bench: ## micro-benchmarks; compare two runs with benchstat
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-cluster: ## a cluster beside the raw disk, nginx and etcd; BENCH=quick in minutes; see docs/performance.md
	(cd scripts/reference && $(GO) test -timeout 10m .)
	scripts/bench.sh $(BENCH)

bench-curves: ## how speed changes with concurrency and sizes, as plots in docs/performance; BENCH=quick in minutes
	scripts/bench.sh curves $(BENCH)

clean:
	rm -rf bin run
