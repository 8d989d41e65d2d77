#!/bin/sh
# Records a small application and prints its whole summary.
# usage: demo/run.sh path/to/ethogram
set -eu

ethogram=$(realpath "${1:?usage: demo/run.sh path/to/ethogram}")
here=$(dirname "$(realpath "$0")")
shop=/opt/ethogram-demo

if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "demo: run this as root: BPF needs it" >&2; exit 1; }
	exec sudo ${SHOP_PORT:+"SHOP_PORT=$SHOP_PORT"} "$0" "$@"
fi

# One demo at a time: mkdir fails if another is there, and then its folder is not ours to remove.
mkdir -p /opt
mkdir "$shop" 2>/dev/null || { echo "demo: $shop is there already; remove it if no other demo runs" >&2; exit 1; }
trap 'rm -rf "$shop"' EXIT
trap 'exit 130' INT TERM
mkdir "$shop/data" "$shop/log"
echo "tea,3.20" > "$shop/data/prices.csv"
cp "$here/shop.sh" "$shop/"
for role in db web customer; do
	"${CC:-cc}" -O1 -Wall -o "$shop/$role" "$here/shop.c"
done
chmod -R u=rwX,go=rX "$shop"

echo "Recording a small shop (demo/shop.sh): a customer, a web server that gives up root, a"
echo "database behind a unix socket. This is what the customer asks:"
echo
# The same search path everywhere, so that a shell looks in the same places.
PATH=/usr/sbin:/usr/bin:/sbin:/bin "$ethogram" record -- "$shop/shop.sh"
cat <<TEXT

This was counted in the kernel:
  - web gave up root (setgid, setuid in the last table), so its attempt to read /etc/shadow is
    a row with status Deny, and two capabilities it no longer had are too;
  - /stats made web run a shell (/usr/bin/dash, if that is sh here), and the shell run wc;
  - shop.sh stands between ethogram and its interpreter: scripts are rows;
  - web asks db over a unix socket, and tells an auditor over UDP who is not there;
  - customer was refused next door: Failed, not Allow. Looking "localhost" up asked the kernel
    over netlink, and nscd, which most machines do not run.
Files are folded: a directory with more than three children used is one row (--fold none lists
them all). The last line of the summary says whether anything was lost.

Try next:
  sudo $ethogram record -- YOUR COMMAND
  sudo $ethogram agent     # watches every container; meanwhile: sudo $ethogram summary
TEXT
