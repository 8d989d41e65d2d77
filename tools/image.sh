#!/bin/bash
# Builds an OCI image of a static binary, with tar alone: no base image, no registry, no daemon.
# usage: image.sh BINARY FOLDER
#
# The same binary gives the same image, byte for byte: nothing in it tells when or where it
# was made. Load it with `ctr image import`, `podman load -i`, `skopeo copy oci-archive:…`.
set -euo pipefail
usage="usage: image.sh BINARY FOLDER"
binary=$(realpath "${1:?$usage}")
folder=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/.."

if readelf --program-headers "$binary" 2> /dev/null | grep -q INTERP; then
	echo "image: $binary wants a dynamic loader, which the image has not; make image builds a static one" >&2
	exit 1
fi
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
source=$(sed -n '/^\[workspace.package\]/,/^\[/s/^repository = "\(.*\)"/\1/p' Cargo.toml)
case $(uname -m) in
	x86_64) architecture=amd64 ;;
	aarch64) architecture=arm64 ;;
	*) echo "image: no name is known for $(uname -m)" >&2; exit 1 ;;
esac

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
blobs=$stage/image/blobs/sha256
mkdir -p "$blobs"

# Packs a folder, the same way whoever does it, whenever and wherever.
pack() {
	tar --create --directory "$1" --sort=name --format=ustar --mtime=@0 --owner=0 --group=0 \
		--numeric-owner .
}

# Moves a file among the blobs and says its digest.
blob() {
	local digest
	digest=$(sha256sum < "$1" | cut -d' ' -f1)
	mv "$1" "$blobs/$digest"
	echo "$digest"
}

root=$stage/root
install -D -m 755 "$binary" "$root/usr/bin/ethogram"
for file in LICENSE LICENSE-BPF* NOTICE; do
	install -D -m 644 "$file" "$root/usr/share/doc/ethogram/$file"
done
# Where volumes are mounted, and what a temporary file needs.
install -d -m 755 "$root/run/ethogram" "$root/var/lib/ethogram" "$root/etc/ethogram"
install -d -m 1777 "$root/tmp"
find "$root" -type d ! -path "$root/tmp" -exec chmod 755 {} +

pack "$root" > "$stage/layer.tar"
unpacked=$(sha256sum < "$stage/layer.tar" | cut -d' ' -f1)
gzip -9n "$stage/layer.tar"
layer_size=$(stat -c %s "$stage/layer.tar.gz")
layer=$(blob "$stage/layer.tar.gz")

labels=$(cat <<LABELS
{
  "org.opencontainers.image.title": "ethogram",
  "org.opencontainers.image.description": "What every container, pod and service on a Linux machine really does",
  "org.opencontainers.image.version": "$version",
  "org.opencontainers.image.source": "$source",
  "org.opencontainers.image.licenses": "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"
}
LABELS
)
# A collector needs no root. An agent does, and its pod says so.
cat > "$stage/config" <<CONFIG
{
  "architecture": "$architecture",
  "os": "linux",
  "created": "1970-01-01T00:00:00Z",
  "config": {
    "User": "65532:65532",
    "Env": ["PATH=/usr/bin"],
    "Entrypoint": ["/usr/bin/ethogram"],
    "WorkingDir": "/",
    "Labels": $labels
  },
  "rootfs": {"type": "layers", "diff_ids": ["sha256:$unpacked"]},
  "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tools/image.sh"}]
}
CONFIG
config_size=$(stat -c %s "$stage/config")
config=$(blob "$stage/config")
cat > "$stage/manifest" <<MANIFEST
{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:$config",
    "size": $config_size
  },
  "layers": [{
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    "digest": "sha256:$layer",
    "size": $layer_size
  }],
  "annotations": $labels
}
MANIFEST
manifest_size=$(stat -c %s "$stage/manifest")
manifest=$(blob "$stage/manifest")
cat > "$stage/image/index.json" <<INDEX
{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.index.v1+json",
  "manifests": [{
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": "sha256:$manifest",
    "size": $manifest_size,
    "platform": {"architecture": "$architecture", "os": "linux"},
    "annotations": {
      "io.containerd.image.name": "docker.io/library/ethogram:$version",
      "org.opencontainers.image.ref.name": "$version"
    }
  }]
}
INDEX
echo '{"imageLayoutVersion": "1.0.0"}' > "$stage/image/oci-layout"

image=$folder/ethogram-$version-$architecture.oci.tar
pack "$stage/image" > "$image"
echo "$image sha256:$manifest"
