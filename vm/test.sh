#!/bin/bash
# test.sh [--quick] [KERNEL...]
# Tests the sensor on stock Debian kernels: boots those of kernels.list (all, or those named),
# each with and without bpf among its security modules, and runs guest/test.sh in them. With
# --quick, only one kernel is booted without bpf.
# ETHOGRAM_BIN_DIR: a folder with these programs, which are built without it.
set -euo pipefail
source "$(dirname "$0")/common.sh"

# A guest needs two to four minutes on an idle machine.
guest_time_s=1200
quick_kernel=6.12
programs=(ethogram actor resolver truth-compare matrix)
other_lsms=landlock,lockdown,yama,apparmor

quick=
[[ ${1-} == --quick ]] && quick=1 && shift
names=("$@")
((${#names[@]})) || mapfile -t names < <(kernel_names)
"$vm_dir/kernels.sh" "${names[@]}"

work=$(mktemp -d "${TMPDIR:-/tmp}/ethogram-vm-test.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Puts the programs into the work folder, without what only a debugger needs.
collect_programs() {
    local from=${ETHOGRAM_BIN_DIR-} program
    if [[ ! $from ]]; then
        (cd "$vm_dir/.." && cargo build -p ethogram -p ethogram-e2e --bins)
        from=${CARGO_TARGET_DIR:-$vm_dir/../target}/debug
    fi
    for program in "${programs[@]}"; do
        strip -g -o "$work/$program" "$from/$program"
    done
}

# test_guest NAME LSM: one boot; prints as it goes and keeps the output for the table.
test_guest() {
    local name=$1 lsm=$2 list=$other_lsms expectation files=() program
    [[ $lsm == bpf ]] && list+=,bpf
    expectation=$(read_list kernels.list | awk -v name="$name" '$1 == name { print $5 }')
    for program in "${programs[@]}"; do
        files+=(-f "$work/$program")
    done
    # Attaching through perf patches code that all processors run, which emulated ones cannot bear:
    # the kernel meets a breakpoint that is gone already, and panics.
    [[ $expectation == preempts ]] && files+=(-c 1)
    "$vm_dir/run.sh" -k "$name" -t $guest_time_s -a "lsm=$list" "${files[@]}" \
        -f "$vm_dir/guest/test.sh" -f "$vm_dir/guest/smoke.sh" \
        -- test.sh "$expectation" "$lsm"
}

collect_programs
table=()
failed=0
for name in "${names[@]}"; do
    for lsm in bpf none; do
        [[ $quick && $lsm == none && $name != "$quick_kernel" ]] && continue
        echo "=== kernel $name, lsm=...$([[ $lsm == bpf ]] && echo ,bpf)"
        started=$SECONDS
        result=passed
        test_guest "$name" "$lsm" || { result="FAILED ($?)" && failed=1; }
        table+=("$(printf '%-8s %-28s %-5s %4d s  %s' "$name" "$(<"$(kernel_dir "$name")/release")" \
            "$lsm" $((SECONDS - started)) "$result")")
    done
done
echo
printf '%-8s %-28s %-5s %6s  %s\n' KERNEL RELEASE LSM TIME RESULT
printf '%s\n' "${table[@]}"
exit $failed
