# Shared by the scripts here; to be sourced.

vm_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache_dir=${ETHOGRAM_VM_CACHE:-/var/cache/ethogram-vm}

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 125
}

# Prints the lines of a list without comments.
read_list() {
    grep -v "^#" "$vm_dir/$1"
}

kernel_names() {
    read_list kernels.list | cut -d" " -f1
}

# The folder of a kernel: vmlinuz, config, release, and lib/modules as modprobe wants it.
kernel_dir() {
    echo "$cache_dir/kernels/$1"
}
