#!/bin/bash
# Builds a Debian package of a built binary, with dpkg-deb alone.
# usage: deb.sh BINARY FOLDER
set -euo pipefail
usage="usage: deb.sh BINARY FOLDER"
binary=$(realpath "${1:?$usage}")
folder=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/.."

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
architecture=$(dpkg --print-architecture)
# The newest symbol version of the C library that the binary asks for.
glibc=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1 | cut -d_ -f2)

# What the binary is linked with must be named below.
unknown=$(objdump -p "$binary" | awk '$1 == "NEEDED" { print $2 }' |
	grep -Ev '^(libc|libm|libgcc_s|libelf|libz|ld-linux-.*)\.so' || true)
[ -z "$unknown" ] || { echo "deb: no dependency is known for $unknown" >&2; exit 1; }

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
# Where Debian has zsh look; site-functions is the administrator's there.
make --no-print-directory install ETHOGRAM="$binary" DESTDIR="$stage" PREFIX=/usr \
	ZSH_DIR="$stage/usr/share/zsh/vendor-completions" > /dev/null
find "$stage/usr/share/man" -name '*.1' -exec gzip -9n {} +
cp CHANGELOG.md "$stage/usr/share/doc/ethogram/changelog"
gzip -9n "$stage/usr/share/doc/ethogram/changelog"
{
	sed -n '1,6p' NOTICE
	echo
	echo "On Debian systems the full text of the Apache License 2.0 is in"
	echo "/usr/share/common-licenses/Apache-2.0; the others lie beside this file."
} > "$stage/usr/share/doc/ethogram/copyright"
rm "$stage/usr/share/doc/ethogram/LICENSE"

mkdir "$stage/DEBIAN"
cat > "$stage/DEBIAN/control" <<CONTROL
Package: ethogram
Version: $version
Architecture: $architecture
Maintainer: The Ethogram authors <ethogram@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f1)
Depends: libc6 (>= $glibc), libgcc-s1, libelf1 | libelf1t64, zlib1g
Section: admin
Priority: optional
Description: what every container, pod and service on a machine really does
 Counts in the kernel which programs are run, which files are used and who talks to
 whom, keeps the counts, and shows them by container, pod or service.
CONTROL
echo /etc/ethogram/agent.toml > "$stage/DEBIAN/conffiles"
# Nothing is started or enabled: watching a machine is its owner's decision.
cat > "$stage/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	# An upgrade of a running agent takes effect; one that is not running stays so.
	systemctl try-restart ethogram.service
fi
SCRIPT
cat > "$stage/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl disable --now --quiet ethogram.service
fi
SCRIPT
cat > "$stage/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" = purge ]; then
	rm -rf /var/lib/ethogram
fi
SCRIPT
chmod 755 "$stage/DEBIAN"/post* "$stage/DEBIAN/prerm"
package=$folder/ethogram_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$stage" "$package"
