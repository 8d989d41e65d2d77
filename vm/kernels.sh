#!/bin/bash
# kernels.sh [--update] [NAME...]
# Fetches the kernels of kernels.list (all, or those named) into the cache and prints each
# one's name and release. What is in the cache already stays as it is, unless --update.
#
# Packages are downloaded and unpacked, never installed. Only a private apt configuration
# inside the cache knows their suites; apt verifies their signatures as ever.
set -euo pipefail
source "$(dirname "$0")/common.sh"

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${ETHOGRAM_VM_MIRROR:-http://deb.debian.org}
apt_dir=$cache_dir/apt

# Runs an apt tool that knows nothing of the system's sources and installed packages.
private_apt() {
    "$@" \
        -o Dir::Etc::SourceList="$apt_dir/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$apt_dir/lists" \
        -o Dir::State::Status=/dev/null \
        -o Dir::Cache="$apt_dir/cache" \
        -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
}

update_lists() {
    mkdir -p "$apt_dir"/{lists,cache/archives}/partial
    local suite archive
    read_list kernels.list | while read -r _ suite archive _; do
        echo "deb [signed-by=$keyring arch=amd64] $mirror/$archive $suite main"
    done | sort -u >"$apt_dir/sources.list"
    private_apt apt-get update -qq -o APT::Update::Error-Mode=any
}

# Prints "package version suite" for every kernel on offer.
offered() {
    # Without a third number it is a meta-package. Unsigned packages hold the same kernel.
    local names='^linux-image-[0-9]+\.[0-9]+\.[0-9].*-cloud-amd64$'
    mapfile -t packages < <(private_apt apt-cache search --names-only "$names" | cut -d' ' -f1)
    private_apt apt-cache madison "${packages[@]}" |
        sed -E 's/^ *(\S+) \| *(\S+) \| \S+ ([^\/]+)\/main .*/\1 \2 \3/'
}

# newest SUITE RELEASE_BEGIN: the newest kernel of a suite, as "package=version".
newest() {
    awk -v suite="$1" -v begin="linux-image-${2#-}" \
        '$3 == suite && index($1, begin) == 1 { print $1 "=" $2 }' <<<"$offers" | sort -V | tail -n 1
}

# with_parts PACKAGE=VERSION: the package, and the parts of it that newer kernels come in.
with_parts() {
    echo "$1"
    private_apt apt-cache show "$1" |
        awk -v version="(= ${1#*=})" -F', *' '$1 ~ /^Depends:/ {
            sub(/^Depends: */, "")
            for (i = 1; i <= NF; i++)
                if (index($i, "linux-") == 1 && (at = index($i, " " version)))
                    print substr($i, 1, at - 1) "=" substr(version, 4, length(version) - 4)
        }'
}

# fetch NAME SUITE RELEASE_BEGIN: puts a kernel into its folder, whole or not at all.
fetch() {
    local name=$1 package work release packages deb
    package=$(newest "$2" "$3")
    [[ $package ]] || fail "$2 has no kernel $3* for cloud-amd64; edit kernels.list"
    work=$cache_dir/kernels/.$name
    rm -rf "$work"
    mkdir -p "$work/kernel"
    mapfile -t packages < <(with_parts "$package")
    (cd "$work" && private_apt apt-get download -qq "${packages[@]}")
    for deb in "$work"/*.deb; do
        dpkg-deb -x "$deb" "$work/package"
    done
    release=${package#linux-image-}
    release=${release%%=*}
    echo "$release" >"$work/kernel/release"
    # In /boot, or beside the modules in newer packages.
    find "$work/package" -type f -name 'vmlinuz*' -exec mv {} "$work/kernel/vmlinuz" \;
    find "$work/package" -type f \( -name "config-$release" -o -path "*/$release/config" \) \
        -exec mv {} "$work/kernel/config" \;
    collect_modules "$work/package" "$release" "$work/kernel"
    rm -rf "$(kernel_dir "$name")"
    mv "$work/kernel" "$(kernel_dir "$name")"
    rm -rf "$work"
}

# collect_modules PACKAGE RELEASE TARGET: the modules of modules.list that this kernel has, and
# those they need, unpacked: the guest's modprobe reads no compressed ones.
collect_modules() {
    local base=$1 release=$2 target=$3 module file
    [[ -d $base/lib/modules ]] || base=$base/usr
    depmod -b "$base" "$release"
    read_list modules.list | while read -r module; do
        modprobe -d "$base" -S "$release" --show-depends "$module" 2>/dev/null || true
    done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r file; do
        local copy=$target/lib/modules/$release/${file#*"/$release/"}
        mkdir -p "$(dirname "$copy")"
        case $file in
        *.xz) xz -dc "$file" >"${copy%.xz}" ;;
        *) cp "$file" "$copy" ;;
        esac
    done
    cp "$base/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} \
        "$target/lib/modules/$release/"
    depmod -b "$target" "$release"
}

update=
[[ ${1-} == --update ]] && update=1 && shift
"$vm_dir/packages.sh" --check || exit 125
names=("$@")
((${#names[@]})) || mapfile -t names < <(kernel_names)
mkdir -p "$cache_dir/kernels" || fail "cannot write there; set ETHOGRAM_VM_CACHE"
# Two fetches at once would trample on each other's lists.
exec 9>"$cache_dir/lock"
flock 9

offers=
for name in "${names[@]}"; do
    read -r _ suite _ begin _ < <(read_list kernels.list | awk -v name="$name" '$1 == name') ||
        fail "kernels.list has no $name, only: $(kernel_names | xargs)"
    if [[ $update || ! -f $(kernel_dir "$name")/release ]]; then
        if [[ ! $offers ]]; then
            update_lists
            offers=$(offered)
        fi
        fetch "$name" "$suite" "$begin"
    fi
    printf '%-8s %s\n' "$name" "$(<"$(kernel_dir "$name")/release")"
done
