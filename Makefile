# What can be typed here: make help

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := build

LINKS    := gpconfig gpstop gpstart gpstate
CLUSTER  := ./internal/clustertest
FUZZTIME ?= 10s
BENCH    ?= .

# Property tests draw the same in every run, so that a failure speaks of the
# change at hand; RAPID_SEED=0 draws anew.
export RAPID_SEED ?= 1

# How many packages, and how many tests on whole clusters, run at a time: much of
# what they do is to wait.
ATONCE ?= $(shell echo $$((2 * $$(nproc))))

# The packages whose tests take longest are begun first: none is left to run alone.
LONGEST := ./mpp/plan ./motion/udpifc ./mpp/dispatch ./proxy

# Outside a checkout that git trusts, go build must not ask git for the version.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)

.PHONY: build demo test lint unit cluster fuzz bench compare queries setup setup-node clean help

build: ## build bin/trunkline and the utilities that are links to it
	@mkdir -p bin
	go build -buildvcs=$(VCS) -o bin/trunkline ./cmd/trunkline
	@for l in $(LINKS); do ln -sfn trunkline bin/$$l; done

demo: setup build ## make ./demo (3 segments and a standby) and run the walkthrough on it
	@scripts/demo

test: setup setup-node lint unit cluster ## everything: lint, unit tests with the race detector, cluster tests

lint: ## gofmt, go vet, staticcheck and the package rules
	@out="$$(gofmt -l $$(go list -f '{{.Dir}}' ./...))"; [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	go test -count=1 ./internal/lint

# The tests are not vetted again: lint has done so.
unit: ## tests of the packages, with -race -shuffle=on
	go test -vet=off -race -shuffle=on -p=$(ATONCE) $$(go list $(LONGEST) ./... | grep -vE '/internal/(clustertest|lint)$$')

cluster: ## tests on whole clusters
	go test -vet=off -count=1 -timeout=20m -parallel=$(ATONCE) $(CLUSTER)

fuzz: ## each fuzz target for FUZZTIME (default 10s)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

bench: build ## Go benchmarks, then the proxy's figures and bounds; BENCH=regexp: such benchmarks only
	go test -run='^$$' -bench='$(BENCH)' -benchmem $$(go list ./... | grep -v /internal/clustertest)
	@[ '$(BENCH)' != . ] || bin/trunkline bench proxy

compare: setup build ## the interconnect types compared (20 minutes, as root): docs/interconnect-report.md
	bin/trunkline bench interconnect --report docs/interconnect-report.md

queries: setup build ## TPC-H on a cluster and on one PostgreSQL server (10 to 25 minutes): docs/queries.md
	bin/trunkline bench queries --report docs/queries.md

setup: ## install what is missing from Debian (demo and test do it themselves)
	@scripts/setup

setup-node: # Node.js and node-postgres, for the one test that uses them
	@scripts/setup-node

clean: ## stop and remove ./demo, remove bin
	@if [ -e demo ]; then demo/bin/trunkline cluster destroy "$$(readlink -f demo)"; rm -f demo; fi
	rm -rf bin

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
