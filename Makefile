# Every target does its own set-up on Debian and Ubuntu. `make help` lists them.

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

export PATH := $(HOME)/.cargo/bin:$(PATH)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
ETHOGRAM := $(TARGET_DIR)/release/ethogram
BENCH := $(TARGET_DIR)/release/ethogram-bench
BENCH_PAGE := docs/benchmarks.md
SOAK_S ?= 1200
FUZZ_S ?= 120
TRIPLE := $(shell uname -m)-unknown-linux-gnu
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

BIN_DIR := $(DESTDIR)$(PREFIX)/bin
MAN_DIR := $(DESTDIR)$(PREFIX)/share/man/man1
UNIT_DIR := $(DESTDIR)$(PREFIX)/lib/systemd/system
CONFIG_DIR := $(DESTDIR)$(SYSCONFDIR)/ethogram
BASH_DIR := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH_DIR := $(DESTDIR)$(PREFIX)/share/zsh/site-functions
FISH_DIR := $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
DOC_DIR := $(DESTDIR)$(PREFIX)/share/doc/ethogram

.DEFAULT_GOAL := build
.PHONY: build demo test lint bench bench-vm soak bounded fuzz cluster-demo bench-cluster chaos clickhouse-test vm-test coverage verifier-baseline install uninstall deb image chart doc clean help

build: ## build the optimized binary (the default)
	tools/packages.sh build
	cargo build --release --package ethogram

demo: build ## build, record a small application, print its summary (about 5 s; needs root)
	demo/run.sh $(ETHOGRAM)

test: ## lint, then run every test: unit, BPF, and real pods end to end (needs root; 15 to 25 min)
	tools/packages.sh all
	tools/lint.sh
	tools/test.sh

lint: ## formatting, clippy, clang-format, licences
	tools/packages.sh lint
	tools/lint.sh

bench: build ## what watching costs here, beside others, into docs/benchmarks.md (10 to 15 min; needs root)
	tools/packages.sh bench
	cargo build --release --package ethogram-bench
	for what in price applications rates sizes; do \
		$(SUDO) $(BENCH) $$what --ethogram $(ETHOGRAM) --page $(BENCH_PAGE); done

bench-vm: build ## the price by instructions, trampolines against tracepoints, in QEMU (ten minutes)
	tools/packages.sh vm
	cargo build --release --package ethogram-bench
	vm/run.sh -i -t 1800 -f $(ETHOGRAM) -f $(BENCH) -- sh -c 'ethogram-bench price --quick --rounds 2 \
		--scale 0.005 --hooks tracepoint,trampoline --ethogram $$(command -v ethogram) 2> /dev/null' | \
		$(BENCH) place instructions --page $(BENCH_PAGE)

soak: build ## full rate and short-lived containers for SOAK_S seconds (20 min; needs root)
	cargo build --release --package ethogram-bench
	$(SUDO) $(BENCH) soak --seconds $(SOAK_S) --ethogram $(ETHOGRAM) --page $(BENCH_PAGE)

bounded: build ## what floods of 1,000 to 1,000,000 different things cost in memory (needs root)
	cargo build --package ethogram-e2e --bin flood --bin bounded
	$(SUDO) env ETHOGRAM_BIN=$(ETHOGRAM) $(TARGET_DIR)/debug/bounded

cluster-demo: ## three nodes, a collector on two ClickHouse shards, and faults; prints whom the pods talk to (some 2 min; needs root)
	tools/packages.sh test
	cargo build --package ethogram
	$(SUDO) env "PATH=$$PATH" cargo test --package ethogram-e2e --test cluster

fuzz: ## every decoder of what others send, for FUZZ_S seconds each (20 min; needs cargo-fuzz)
	tools/packages.sh fuzz
	tools/fuzz.sh $(FUZZ_S) $(abspath $(TARGET_DIR))/fuzz

bench-cluster: build ## a collector under 1,112 simulated agents and 10 M rows, into docs/scale.md (some 10 min, 2 GB; needs clickhouse-server)
	tools/packages.sh bench-cluster
	cargo build --release --package ethogram-bench-cluster
	$(TARGET_DIR)/release/ethogram-bench-cluster scale --ethogram $(ETHOGRAM) --page docs/scale.md

chaos: ## faults between agents, collector and stores, many of each (long; needs root)
	tools/packages.sh chaos
	cargo build --package ethogram --package ethogram-bench-cluster
	$(SUDO) $(TARGET_DIR)/debug/ethogram-bench-cluster chaos --ethogram $(TARGET_DIR)/debug/ethogram --faults 20

clickhouse-test: ## the ClickHouse store on Debian's server, on shards, and on the newest engine (needs: pip install chdb lz4)
	tools/packages.sh clickhouse
	cargo test --package ethogram-clickhouse --test suite -- --test-threads 1

vm-test: ## the sensor on Debian's kernels, in QEMU (emulated: two to four minutes for each boot)
	tools/packages.sh vm
	vm/test.sh

coverage: ## write docs/coverage.md: what each set of hooks sees, as a guest finds it
	tools/packages.sh vm
	tools/coverage.sh

verifier-baseline: ## write down what the BPF verifier has to do now
	tools/verifier.sh update

install: ## install what `make` built, below DESTDIR and PREFIX
	@test -x $(ETHOGRAM) || { echo "install: run make first" >&2; exit 1; }
	install -D -m 755 $(ETHOGRAM) $(BIN_DIR)/ethogram
	install -d $(MAN_DIR) $(UNIT_DIR) $(BASH_DIR) $(ZSH_DIR) $(FISH_DIR) $(CONFIG_DIR) $(DOC_DIR)
	sed 's|/usr/bin/ethogram|$(PREFIX)/bin/ethogram|' deploy/ethogram.service | install -m 644 /dev/stdin $(UNIT_DIR)/ethogram.service
	$(ETHOGRAM) man $(MAN_DIR)
	chmod 644 $(MAN_DIR)/ethogram*.1
	$(ETHOGRAM) completion bash | install -m 644 /dev/stdin $(BASH_DIR)/ethogram
	$(ETHOGRAM) completion zsh | install -m 644 /dev/stdin $(ZSH_DIR)/_ethogram
	$(ETHOGRAM) completion fish | install -m 644 /dev/stdin $(FISH_DIR)/ethogram.fish
	install -m 644 LICENSE LICENSE-BPF* NOTICE README.md $(DOC_DIR)
	@# The configuration is its owner's once it is there.
	@test -e $(CONFIG_DIR)/agent.toml || install -m 644 deploy/agent.toml $(CONFIG_DIR)/agent.toml

uninstall: ## remove what install put there, but for configuration and data
	rm -f $(BIN_DIR)/ethogram $(UNIT_DIR)/ethogram.service $(MAN_DIR)/ethogram.1 $(MAN_DIR)/ethogram-*.1
	rm -f $(BASH_DIR)/ethogram $(ZSH_DIR)/_ethogram $(FISH_DIR)/ethogram.fish
	rm -rf $(DOC_DIR)
	@echo "kept: $(CONFIG_DIR), $(DESTDIR)/var/lib/ethogram"

deb: build ## build a Debian package into target/
	tools/deb.sh $(ETHOGRAM) $(TARGET_DIR)

image: ## build an OCI image of a static binary into target/, without a base image
	tools/packages.sh build
	LIBBPF_SYS_LIBRARY_PATH=/usr/lib/$(shell gcc -print-multiarch) RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --release --target $(TRIPLE) --package ethogram --features static
	tools/image.sh $(TARGET_DIR)/$(TRIPLE)/release/ethogram $(TARGET_DIR)

chart: ## build a Helm chart of deploy/kubernetes into target/
	tools/packages.sh chart
	mkdir -p $(TARGET_DIR)
	tools/chart.sh $(TARGET_DIR)

doc: ## the crates' documentation, into target/doc
	cargo doc --workspace --no-deps --document-private-items

clean: ## remove what was built
	cargo clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 28
