#!/bin/bash
# Builds the container images as docker-archive tars, which containerd, Docker and Podman
# all import without a registry. Images that are there already are kept.
# usage: images.sh [NAME]...   (pause, busybox, web, db; none: all)
. "$(dirname "$0")/settings.sh"

mkdir -p "$IMAGES"
# One build at a time: several test runs may want the same images.
exec 9> "$IMAGES/lock"; flock 9
work=$(mktemp -d "$IMAGES/build.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

# Wraps one layer and a configuration ({"Cmd": [...]}) into an image tar.
pack() { # NAME TAG LAYER CONFIG
  local dir=$work/$1.image layer
  mkdir -p "$dir"
  mv "$3" "$dir/layer.tar"
  layer=sha256:$(sha256sum < "$dir/layer.tar" | cut -d' ' -f1)
  jq -n --argjson config "$4" --arg layer "$layer" '{architecture: "amd64", os: "linux",
    created: "2024-01-01T00:00:00Z", config: $config, rootfs: {type: "layers", diff_ids: [$layer]}}' > "$dir/config.json"
  jq -n --arg tag "$2" '[{Config: "config.json", RepoTags: [$tag], Layers: ["layer.tar"]}]' > "$dir/manifest.json"
  tar -C "$dir" -cf "$work/$1.tar" manifest.json config.json layer.tar
  mv "$work/$1.tar" "$IMAGES/$1.tar"
  rm -rf "$dir"
}

# A file system with nothing but busybox; its applets are symbolic links to it.
busybox_layer() {
  local root=$work/$1 applet
  mkdir -p "$root"/{bin,dev,etc,proc,root,sys,tmp,www}; chmod 1777 "$root/tmp"
  cp /bin/busybox "$root/bin/"
  for applet in $(/bin/busybox --list); do [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"; done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$root/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
  echo hello > "$root/www/index.html"
  tar -C "$root" --numeric-owner --sort=name -cf "$work/$1.layer" .
}

# A small Debian with the files of rootfs/NAME and some packages, in this order: the
# packages' own set-up obeys our configuration.
debian_layer() { # NAME PACKAGES COMMANDS
  local ours=$HERE/rootfs/$1
  TMPDIR=$work mmdebstrap --mode=root --variant=essential --format=tar --quiet --include="$2" \
    --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --essential-hook="cp -r --no-preserve=ownership '$ours/.' \"\$1/\"" \
    --customize-hook="chroot \"\$1\" sh -ec '$3'" \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/etc/resolv.conf "$1"/etc/hosts' \
    bookworm "$work/$1.layer" > "$IMAGES/$1.log" 2>&1 || { tail -n 20 "$IMAGES/$1.log" >&2; fail "cannot build image $1"; }
}

build_pause() { # as a pod's first process does: nothing
  busybox_layer pause
  pack pause localhost/pause:1 "$work/pause.layer" '{"Entrypoint": ["/bin/sleep", "infinity"]}'
}

build_busybox() {
  busybox_layer busybox
  pack busybox localhost/busybox:1 "$work/busybox.layer" '{"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}'
}

build_web() {
  # Exact counts need a server that does the same for each request: no code cache, and a
  # fixed number of processes, because apache calls itself when it ends idle ones.
  # /usr/bin/tail is for root only, so that a page's shell is refused to run it.
  debian_layer web apache2,libapache2-mod-php,php-mysql,iputils-ping,passwd,procps '
    rm -f /var/www/html/index.html
    echo ServerName localhost > /etc/apache2/conf-enabled/name.conf
    printf "%s\n" "StartServers 4" "MinSpareServers 1" "MaxSpareServers 16" "MaxRequestWorkers 16" > /etc/apache2/conf-enabled/workers.conf
    sed -i "/StartServers\|SpareServers\|MaxRequestWorkers/d" /etc/apache2/mods-available/mpm_prefork.conf
    echo opcache.enable=0 > /etc/php/8.2/apache2/conf.d/99-testbed.ini
    install -d -o www-data /var/www/html/uploads
    chmod 0700 /usr/bin/tail'
  pack web localhost/dvwa-web:1 "$work/web.layer" '{"Cmd": ["apache2ctl", "-D", "FOREGROUND"],
    "ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "WorkingDir": "/var/www/html"}'
}

build_db() {
  # What remains of the tools is not needed, and their size is.
  debian_layer db mariadb-server '
    cd /usr/bin; rm -f aria_* myisam* innochecksum mariadb-slap mariadb-upgrade mariadb-conv mariadb-binlog mariadb-import perror replace'
  pack db localhost/dvwa-mysql:1 "$work/db.layer" '{"Cmd": ["mariadbd", "--user=mysql", "--init-file=/etc/mysql/init.sql"],
    "ExposedPorts": {"3306/tcp": {}}, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}'
}

# An image is as good as the recipe it was made with.
recipe=$(find "$HERE/rootfs" -type f -print0 | sort -z | xargs -0 cat "$0" | sha256sum)
if [ "$recipe" != "$(cat "$IMAGES/recipe" 2>/dev/null)" ]; then
  rm -f "$IMAGES"/*.tar; echo "$recipe" > "$IMAGES/recipe"
fi
[ $# -gt 0 ] || set -- pause busybox web db
builds=()
for name in "$@"; do
  [ -s "$IMAGES/$name.tar" ] && continue
  "build_$name" & builds+=($!)
done
for build in "${builds[@]}"; do wait "$build"; done
