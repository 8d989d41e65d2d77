#!/bin/bash
# Runs every test, says how many there were, and fails if one did.
# usage: test.sh
#
# Nothing is skipped where something is missing: it fails and says what.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/root-runner.sh

log=$(mktemp)
trap 'rm -f "$log"' EXIT

totals() {
	awk '/^test result: / { passed += $4; failed += $6; ignored += $8 }
		END {
			if (ignored) printf "%d ignored\n", ignored
			printf "%d passed, %d failed\n", passed, failed
		}' "$log"
}

# Runs one step with its time; the first that fails ends the run.
step() {
	local what=$1 started=$SECONDS
	shift
	echo
	echo "==> $what"
	if ! "$@" 2>&1 | tee -a "$log"; then
		echo "==> FAILED after $((SECONDS - started)) s: $what"
		sed -n '/^failures:$/,/^test result:/p' "$log" | grep -E '^    [^ ]+$' | sort -u || true
		totals
		exit 1
	fi
	echo "==> $((SECONDS - started)) s: $what"
}

compiles_nothing() {
	local output
	output=$(cargo test --workspace --no-run 2>&1) || { echo "$output"; return 1; }
	if grep Compiling <<< "$output"; then
		echo "a second build compiles the above again: a build script names a file that changes or is not there"
		return 1
	fi
}

shows_the_demo() {
	local output expected
	output=$(demo/run.sh "${CARGO_TARGET_DIR:-target}/debug/ethogram" 2>&1) || { echo "$output"; return 1; }
	for expected in '/etc/shadow .* Deny ' 'AF_NETLINK .*customer' 'AF_UNIX .*db.sock' \
		'UDP .*web' ' setuid ' '^Complete: nothing was lost'; do
		grep -q "$expected" <<< "$output" && continue
		echo "$output"
		echo "the demo does not show: $expected"
		return 1
	done
}

# Runs a command whose temporary files are in memory, where there is room: a ClickHouse server
# makes and removes thousands, and some disks take minutes for that.
with_files_in_memory() {
	local free_kib dir status=0
	free_kib=$(df --output=avail -k /dev/shm 2> /dev/null | tail -n 1) || true
	if [ "${free_kib:-0}" -lt 2000000 ]; then "$@"; return; fi
	dir=$(mktemp -d /dev/shm/ethogram-test.XXXXXX)
	TMPDIR=$dir "$@" || status=$?
	rm -rf "$dir"
	return $status
}

step "build all tests" cargo test --workspace --no-run --quiet
step "a second build compiles nothing" compiles_nothing
step "unit and integration tests, BPF included" \
	cargo test --workspace --exclude ethogram-e2e --exclude ethogram-clickhouse --no-fail-fast --quiet
step "the ClickHouse store, on a server and on two shards (make clickhouse-test has the newest engine, too)" \
	with_files_in_memory cargo test --package ethogram-clickhouse --quiet -- --test-threads 1 --skip current::
step "the workloads' own tests" cargo test --package ethogram-e2e --lib --bins --no-fail-fast --quiet
step "the verifier's work against its baseline" tools/verifier.sh check
step "the demo" shows_the_demo
step "a short soak: churn at full rate, flat memory, true counts (make soak is longer)" \
	cargo run --quiet --package ethogram-bench -- soak --seconds 60 \
	--ethogram "${CARGO_TARGET_DIR:-target}/debug/ethogram"
step "end to end: real pods, Docker, Podman (some minutes)" \
	cargo test --package ethogram-e2e --test main
step "three nodes, a collector on two ClickHouse shards, and what breaks them (make cluster-demo)" \
	cargo test --package ethogram-e2e --test cluster
step "faults between agents, collector and stores, two of each (make chaos has more)" \
	cargo run --quiet --package ethogram-bench-cluster -- chaos --faults 2 \
	--ethogram "${CARGO_TARGET_DIR:-target}/debug/ethogram"
echo
totals
