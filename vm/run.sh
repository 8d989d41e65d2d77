#!/bin/bash
# run.sh [-k KERNEL] [-m MIB] [-t SECONDS] [-c CPUS] [-i] [-a ARGS] [-f FILE]... -- COMMAND...
# Boots a kernel of kernels.list in QEMU, runs the command in it as root, prints what it
# prints, and exits with its status: 124 if the time was over, 125 if the guest failed.
#   -k  a name of kernels.list (6.12)      -m  memory (2048)     -t  time limit (300)
#   -c  processors (2)                     -a  more kernel arguments, e.g. "lsm=landlock,bpf"
#   -i  let the guest's clock count its instructions: repeatable, with one processor
#   -f  a file for the guest's /vm, which is first in PATH and where the command starts;
#       a program's libraries come along. Several -f are possible.
set -euo pipefail
source "$(dirname "$0")/common.sh"

# Room on the disks, in MiB; the files are sparse.
root_disk_mib=1024
data_disk_mib=2048
# Lines of the guest's console to show when it failed.
console_tail_lines=40

kernel=6.12 memory_mib=2048 time_s=300 cpus=2 counted=() kernel_args= files=()
while getopts k:m:t:c:ia:f: option; do
    case $option in
    k) kernel=$OPTARG ;;
    m) memory_mib=$OPTARG ;;
    t) time_s=$OPTARG ;;
    c) cpus=$OPTARG ;;
    i) counted=(-icount "shift=0,sleep=off") ;;
    a) kernel_args=$OPTARG ;;
    f) files+=("$OPTARG") ;;
    *) exit 125 ;;
    esac
done
shift $((OPTIND - 1))
(($#)) || fail "give a command after --"
((${#counted[@]})) && cpus=1

"$vm_dir/packages.sh" --check || exit 125
"$vm_dir/kernels.sh" "$kernel" >/dev/null || exit 125
kernel_dir=$(kernel_dir "$kernel")
work=$(mktemp -d "${TMPDIR:-/tmp}/ethogram-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT

# with_libraries ROOT FILE: copies what the dynamic linker would load, to the same paths.
with_libraries() {
    local library
    # Nothing, for a script or a static program.
    for library in $(ldd "$2" 2>/dev/null | grep -o '/[^ ]*'); do
        mkdir -p "$1$(dirname "$library")"
        cp -Lu "$library" "$1$library"
    done
}

quoted() {
    local word
    for word in "$@"; do
        printf "'%s' " "${word//\'/\'\\\'\'}"
    done
    echo
}

make_initramfs() {
    local root=$work/boot
    mkdir -p "$root"/{bin,dev,proc,root}
    cp /bin/busybox "$root/bin/"
    cp "$vm_dir/guest/boot" "$root/init"
    cp -r "$kernel_dir/lib" "$root/"
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$work/initramfs"
    rm -r "$root"
}

make_root_disk() {
    local root=$work/root file
    mkdir -p "$root"/{bin,data,dev,etc,proc,root,run,sbin,sys,tmp,usr/bin,var,vm}
    chmod 755 "$root"
    cp /bin/busybox "$root/bin/"
    # Where the kernel looks for it.
    ln -s /bin/busybox "$root/sbin/modprobe"
    ln -s /bin/env "$root/usr/bin/env"
    cp -r "$kernel_dir/lib" "$root/"
    printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/:/bin/sh \
        >"$root/etc/passwd"
    printf '%s\n' root:x:0: tty:x:5: nogroup:x:65534: >"$root/etc/group"
    echo '127.0.0.1 localhost guest' >"$root/etc/hosts"
    cp "$vm_dir/guest/init" "$root/vm/init"
    quoted "$@" >"$root/vm/command"
    for file in "${files[@]}"; do
        cp -L "$file" "$root/vm/"
        with_libraries "$root" "$file"
    done
    truncate -s "${root_disk_mib}M" "$work/root.disk"
    mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d "$root" "$work/root.disk"
    rm -r "$root"
}

make_data_disk() {
    truncate -s "${data_disk_mib}M" "$work/data.disk"
    mke2fs -q -t ext4 -O ^has_journal -N 600000 -E root_owner=0:0 "$work/data.disk"
}

# QEMU 7.2 miscalculates cmpxchg16b and the fast string moves under emulation, so the guest's
# processor has neither. Without the former, newer kernels refuse to allocate where they cannot
# lock (BPF task storage, for one), except from caches that are being checked.
boot() {
    local arguments=(console=ttyS0 loglevel=4 panic=-1 mitigations=off tsc=reliable
        no_timer_check 'slab_debug=F,kmalloc-*' "$kernel_args")
    timeout --foreground "$time_s" qemu-system-x86_64 \
        -M q35 -accel tcg -cpu max,cx16=off,erms=off,fsrm=off "${counted[@]}" \
        -smp "$cpus" -m "$memory_mib" -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$kernel_dir/vmlinuz" -initrd "$work/initramfs" \
        -drive "file=$work/root.disk,format=raw,if=virtio,cache=unsafe" \
        -drive "file=$work/data.disk,format=raw,if=virtio,cache=unsafe" \
        -serial "file:$work/console" -serial stdio -serial "file:$work/status" \
        -append "${arguments[*]}" \
        </dev/null
}

make_initramfs
make_root_disk "$@"
make_data_disk
touch "$work/status"
outcome=0
boot || outcome=$?
status=$(<"$work/status")
[[ $status ]] && exit "$status"

echo "run.sh: the guest with kernel $(<"$kernel_dir/release") did not finish; its console:" >&2
tr -d '\r' <"$work/console" | tail -n $console_tail_lines >&2
((outcome == 124)) && exit 124
exit 125
