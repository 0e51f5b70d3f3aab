# Waggle's tasks. `make` lists them; `make test` is the one that counts.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c

GO    ?= go
PKGS  ?= ./...
TOOL  := $(GO) tool -modfile=tools/go.mod

# The race detector, but not inside SQLite, which is C turned into Go: it would take
# six times as long there and find nothing of ours (docs/decisions/0010).
RACE := -race '-gcflags=modernc.org/...=-race=false'

# A package that hangs is reported with its goroutines after this long.
TIMEOUT  ?= 20m
FUZZTIME ?= 10s
SOAKTIME ?= 10m
# How often each benchmark runs; benchstat wants at least six for an interval.
COUNT ?= 6
BENCH ?= .

export FUZZTIME

.DEFAULT_GOAL := help

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PKGS=$(PKGS) BENCH=$(BENCH) COUNT=$(COUNT) TIMEOUT=$(TIMEOUT) FUZZTIME=$(FUZZTIME) SOAKTIME=$(SOAKTIME)"

##  Every day

.PHONY: build
build: ## Compile everything; the command goes to bin/waggle
	$(GO) build ./...
	$(if $(wildcard cmd/waggle),$(GO) build -o bin/waggle ./cmd/waggle)

.PHONY: quick
quick: ## Run the tests of what changed: no race detector, short forms, cached
	$(GO) test -short -timeout $(TIMEOUT) $(PKGS)

.PHONY: fmt
fmt: ## Format all Go files
	$(gofiles) | xargs -r gofmt -l -w

.PHONY: generate
generate: ## Run go generate
	$(GO) generate ./...

##  Before a commit

.PHONY: test
test: setup lint ## Run every check and every test, on a fresh machine too
	$(GO) test $(RACE) -shuffle=on -vet=off -timeout $(TIMEOUT) $(PKGS)
	scripts/nested test -shuffle=on -vet=off ./...

.PHONY: lint
lint: fmt-check ## Check format, vet and staticcheck, nested modules included
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	scripts/nested vet ./...
	scripts/nested build -o /dev/null ./...

.PHONY: setup
setup: ## Install what the tests need on Debian and Ubuntu; quiet if all is there
	@scripts/setup

##  Now and then

.PHONY: bench
bench: ## Measure all promised figures beside a bare SQLite loop: eight minutes on a quiet machine
	$(GO) run ./internal/figures

.PHONY: bench-quick
bench-quick: ## Measure less of the same, in about a minute
	$(GO) run ./internal/figures -quick

.PHONY: figures
figures: ## Measure as make bench does and write docs/figures.md
	$(GO) run ./internal/figures -write docs/figures.md

.PHONY: figures-redis
figures-redis: ## Measure what Redis and Valkey are to bear; writes docs/scaling.md in under ten minutes
	$(GO) run ./internal/figures -engine redis -write docs/scaling.md

.PHONY: figures-redis-quick
figures-redis-quick: ## Measure less of the same, in about a minute, and print it
	$(GO) run ./internal/figures -engine redis -quick

.PHONY: bench-go
bench-go: ## Run the Go benchmarks COUNT times and print medians and spread
	@$(call require,Benchmark)
	@mkdir -p bin
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -p 1 -timeout 0 $(PKGS) | tee bin/bench.txt
	$(TOOL) benchstat bin/bench.txt

.PHONY: compare
compare: ## Measure Waggle beside asynq, River and BullMQ; writes docs/benchmarks.md
	@for p in redis-server node npm; do command -v $$p >/dev/null || \
	  { echo "$$p was not found: apt-get install redis-server postgresql nodejs npm" >&2; exit 1; }; done
	cd bench/bullmq && npm install --no-save --no-audit --no-fund
	cd bench && $(GO) run . -out ../docs/benchmarks.md

.PHONY: fuzz
fuzz: ## Fuzz every Fuzz test for FUZZTIME each
	scripts/fuzz

.PHONY: soak
soak: ## Run the long tests (TestSoak...) for SOAKTIME each
	@$(call require,TestSoak)
	WAGGLE_SOAK=$(SOAKTIME) $(GO) test $(RACE) -run '^TestSoak' -count 1 -p 1 -timeout 0 -v $(PKGS)

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist

# A run that found nothing to do must not look like one that passed.
require = git ls-files -co --exclude-standard '*_test.go' | xargs -r grep -sl '^func $(1)' >/dev/null || \
  { echo 'no $(1)... was found' >&2; exit 1; }

# The Go files that are tracked or could be, without what a package manager
# put below bench. A file deleted but not yet committed is left out.
gofiles = git ls-files -co --exclude-standard '*.go' | while read -r f; do [ ! -f "$$f" ] || echo "$$f"; done

.PHONY: fmt-check
fmt-check:
	@unformatted=$$($(gofiles) | xargs -r gofmt -l); \
	if [ -n "$$unformatted" ]; then \
	  printf 'not formatted, run make fmt:\n%s\n' "$$unformatted" >&2; exit 1; \
	fi
