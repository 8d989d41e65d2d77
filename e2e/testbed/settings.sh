# shellcheck shell=bash disable=SC2034
# What every script of the testbed shares. Sourced, never run.
#
# All state lives below ETHOGRAM_TESTBED. `images/` and `root/` (what the images look
# like once imported) are kept by every `down`, because they take a minute to make; all
# else is gone after it.
set -euo pipefail

TESTBED=${ETHOGRAM_TESTBED:-/var/tmp/ethogram-testbed}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
IMAGES=$TESTBED/images

fail() { echo "testbed: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root: it starts container runtimes, network namespaces and mounts"

# The words of a process's command line; nothing for one that is gone.
command_line() { # PID
  { tr '\0' ' ' < "/proc/$1/cmdline"; } 2> /dev/null || true
}

# True while the process of a pid file lives and is still the one that was started: a
# number alone may have been given to a stranger since, so its command line must contain
# the given text.
alive() { # PIDFILE TEXT
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && command_line "$pid" | grep -qF -- "$2"
}

# Ends such a process, first politely.
stop() { # PIDFILE TEXT
  if alive "$1" "$2"; then
    local pid; pid=$(cat "$1")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do alive "$1" "$2" || break; sleep 0.1; done
    if alive "$1" "$2"; then kill -9 "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$1"
}

# Ends what runs in the cgroups whose names contain a text (a pod's uid, a container's
# id), in whatever hierarchy, and removes them. Containers of a crashed runtime have no
# other parent to be found by.
remove_cgroups() { # TEXT
  local dir
  find /sys/fs/cgroup -depth -type d -path "*$1*" 2>/dev/null | while read -r dir; do
    { xargs -r kill -9 < "$dir/cgroup.procs"; } 2>/dev/null || true
  done
  find /sys/fs/cgroup -depth -type d -path "*$1*" 2>/dev/null | while read -r dir; do
    # The killed need a moment to leave.
    for _ in $(seq 50); do rmdir "$dir" 2>/dev/null && break; [ -d "$dir" ] || break; sleep 0.05; done
  done
}

# Removes cgroups that only parent ours, innermost first. Others' containers keep theirs: a
# cgroup with something in it cannot be removed, and nothing below is touched.
remove_empty_cgroups() { # PATH...
  local dir path
  for path in "$@"; do
    for dir in /sys/fs/cgroup/"$path" /sys/fs/cgroup/*/"$path"; do
      if [ -d "$dir" ]; then rmdir "$dir" 2>/dev/null || true; fi
    done
  done
}

# Ends every containerd shim that serves a socket, and removes the sockets of the shims
# whose state is below a directory; after a crash nobody else knows them.
stop_shims() { # SOCKET STATE
  local dir address
  for dir in /proc/[0-9]*; do
    if command_line "${dir#/proc/}" | grep -q "containerd-shim-runc-v2 .*-address $1 "; then
      kill -9 "${dir#/proc/}" 2>/dev/null || true
    fi
  done
  for address in "$2"/io.containerd.runtime.v2.task/*/*/address; do
    if [ -s "$address" ]; then address=$(< "$address"); rm -f "${address#unix://}"; fi
  done
}

# Unmounts all below a directory, deepest first; twice, because mounts can hide mounts.
unmount_below() { # DIR
  local point
  for _ in 1 2; do
    awk -v dir="$1/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do
      umount "$point" 2>/dev/null || umount -l "$point" 2>/dev/null || true
    done
  done
}

# Waits until a command succeeds, as long as the daemon that must make it so is alive.
wait_for() { # WHAT PIDFILE TEXT LOG COMMAND...
  local what=$1 pidfile=$2 text=$3 log=$4; shift 4
  for _ in $(seq 300); do
    "$@" > /dev/null 2>&1 && return
    alive "$pidfile" "$text" || break
    sleep 0.1
  done
  tail -n 5 "$log" >&2
  fail "$what does not answer; its log is $log"
}
