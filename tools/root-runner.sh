# shellcheck shell=bash
# To be sourced: lets cargo run test programs and examples by sudo where we are not root,
# because BPF, cgroups and containers need it.
if [ "$(id -u)" != 0 ]; then
	host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
	export "CARGO_TARGET_${host}_RUNNER=sudo --preserve-env"
fi
