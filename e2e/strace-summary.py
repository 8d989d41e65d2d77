#!/usr/bin/env python3
"""Checks the actor's truth by other means: turns what strace saw into a summary.

    strace -ff -xx -y -v -s 5000 -o LOGS/log target/debug/actor --ops 6000 \\
        --dir /tmp/actor --truth /tmp/truth --netns --except exec-thread,ptrace
    e2e/strace-summary.py LOGS /tmp/actor target/debug/actor > /tmp/summary.json
    target/debug/truth-compare --truth /tmp/truth --summary /tmp/summary.json

The rules are those of `ethogram_e2e::truth`, written a second time, in another language
and from what the kernel answered, so that the two share no mistake. Left out: `ptrace`
(a traced process cannot be traced again) and `exec-thread` (strace moves the caller's log
to another file). Run it after changing an operation; it takes seconds.
"""

import collections
import ipaddress
import json
import os
import re
import sys
import unicodedata

STRING = r'"((?:\\x[0-9a-f]{2})*)"'
# A descriptor that strace resolved, or a string: the two parts of every path.
PATH_PART = re.compile(r"(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>|" + STRING)
CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)(?:<([^>]*)>)?(?: (E\w+))?")
FLAG_ORDER = ["read", "write", "create", "delete", "rename", "attr", "listen"]
HIDDEN = [(0xAD, 0xAD), (0x61C, 0x61C), (0x180E, 0x180E), (0x200B, 0x200F), (0x2028, 0x202E),
          (0x2060, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xE0000, 0xE007F)]
SENSITIVE = set("""ptrace setuid setgid setreuid setregid setresuid setresgid mount umount2
    unshare setns keyctl perf_event_open process_vm_readv""".split())
# What each path of a call is used for.
PATH_CALLS = {
    **dict.fromkeys(["unlink", "unlinkat", "rmdir"], [{"delete"}]),
    **dict.fromkeys(["mkdir", "mkdirat", "mknod", "mknodat"], [{"create"}]),
    **dict.fromkeys(["symlink", "symlinkat"], [None, {"create"}]),
    **dict.fromkeys(["rename", "renameat", "renameat2"], [{"rename"}, {"rename", "create"}]),
    **dict.fromkeys(["link", "linkat"], [{"attr"}, {"create"}]),
    **dict.fromkeys(["chmod", "fchmodat", "chown", "lchown", "fchownat"], [{"attr"}]),
    "truncate": [{"write"}],
}

rows = collections.Counter()
existing = set()
logs = {}


def raw(text):
    return bytes.fromhex(text.replace("\\x", ""))


def escaped(name):
    """As the project's names are escaped."""
    def shown(character):
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # A byte that is no UTF-8.
            return f"\\x{code - 0xDC00:02x}"
        hidden = any(low <= code <= high for low, high in HIDDEN)
        if hidden or unicodedata.category(character) == "Cc":
            return "".join(f"\\x{byte:02x}" for byte in character.encode())
        return "\\\\" if character == "\\" else character
    return "".join(map(shown, name.decode("utf-8", "surrogateescape")))


def address(text):
    """(IP, port) or a unix socket's name as bytes."""
    if unix := re.search(r"AF_UNIX, sun_path=(@?)" + STRING, text):
        return (b"@" if unix[1] else b"") + raw(unix[2])
    inet = re.search(r"port=htons\((\d+)\).*?" + STRING, text)
    if not inet:
        return None
    ip = ipaddress.ip_address(raw(inet[2]).decode())
    return str(getattr(ip, "ipv4_mapped", None) or ip), int(inet[1])


def protocol_of(arguments):
    version = "v6" if "AF_INET6" in arguments else ""
    for mark, protocol in [("AF_UNIX", "AF_UNIX"), ("AF_NETLINK", "AF_NETLINK"),
                           ("ICMPV6", "ICMPv6"), ("ICMP", "ICMP"),
                           ("SOCK_STREAM", "TCP" + version), ("SOCK_DGRAM", "UDP" + version)]:
        if mark in arguments:
            return protocol
    return None


class Socket:
    def __init__(self, arguments):
        self.protocol = protocol_of(arguments)
        netlink = re.search(r"NETLINK_\w+", arguments)
        self.family = netlink and netlink[0]
        self.bound = self.peer = self.pending = None


class Thread:
    """One log, from the moment the thread was made."""

    def __init__(self, executable, directory):
        self.executable, self.directory = executable, directory
        self.sockets = {}
        self.client = None

    def add(self, kind, target, status, access=(), protocol="", port=0, count=1):
        target = escaped(target) if isinstance(target, bytes) else target
        flags = tuple(flag for flag in FLAG_ORDER if flag in access)
        rows[kind, escaped(self.executable), target, protocol, port, flags, status] += count

    def join(self, base, path):
        return os.path.normpath(os.path.join(base, path))

    def paths(self, arguments):
        """Every path of a call, absolute."""
        found, base = [], self.directory
        for descriptor, string in PATH_PART.findall(arguments):
            if descriptor:
                base = raw(descriptor)
            else:
                found.append(self.join(base, raw(string)))
                base = self.directory
        return found, base

    def follow(self, log):
        for line in open(log, errors="replace"):
            if call := CALL.match(line):
                self.see(*call.groups())

    def see(self, name, arguments, result, path, error):
        done = result != "?" and int(result) >= 0
        denied = error in ("EACCES", "EPERM")
        status = "Allow" if done else "Deny" if denied else "Failed"
        if name in ("clone", "clone3", "vfork", "fork") and done:
            if log := logs.pop(int(result), None):
                Thread(self.executable, self.directory).follow(log)
        elif name == "chdir" and done:
            self.directory = self.paths(arguments)[0][0]
        elif name in SENSITIVE:
            self.add("syscall", name, status)
        elif name in ("execve", "execveat"):
            if done or denied:
                self.execute(name, arguments, done, status)
        elif name in ("open", "openat", "openat2", "creat"):
            if done or denied:
                self.open(name, arguments, path, done, status)
        elif name in ("fchmod", "fchown"):
            self.add("file", self.paths(arguments)[1], status, {"attr"})
        elif name in PATH_CALLS:
            if done or denied:
                self.change(name, arguments, done, status)
        elif name == "socket" and done:
            self.sockets[result] = Socket(arguments)
        elif (number := re.match(r"\d+", arguments)) and number[0] in self.sockets:
            self.use(self.sockets[number[0]], name, arguments, result, error, done, status)

    def execute(self, name, arguments, done, status):
        paths, _ = self.paths(arguments)
        target = os.path.realpath(paths[0]) if done else paths[0]
        self.add("process", target, status)
        if done:
            self.executable = target
            with open(target, "rb") as program:
                first = program.readline() if program.read(2) == b"#!" else b""
            if first:
                self.executable = os.path.realpath(first.split()[0])

    def open(self, name, arguments, path, done, status):
        asked = self.paths(arguments)[0][0]
        flags = set(re.findall(r"O_\w+", arguments))
        if name == "creat":
            flags = {"O_WRONLY", "O_CREAT"}
        access = set()
        if "O_PATH" not in flags:
            access |= {"read"} if flags & {"O_RDONLY", "O_RDWR"} else set()
            access |= {"write"} if flags & {"O_WRONLY", "O_RDWR", "O_TRUNC"} else set()
        file = raw(path) if done and path else asked
        if "O_CREAT" in flags and (file not in existing or not done):
            access.add("create")
        if done:
            existing.add(file)
        self.add("file", file, status, access)

    def change(self, name, arguments, done, status):
        exchange = "RENAME_EXCHANGE" in arguments
        for path, access in zip(self.paths(arguments)[0], PATH_CALLS[name]):
            if access is None:
                continue
            self.add("file", path, status, {"rename"} if exchange else access)
            if done and "create" in access:
                existing.add(path)
            elif done and not exchange and access & {"delete", "rename"}:
                existing.discard(path)

    def use(self, socket, name, arguments, result, error, done, status):
        def add(kind, where, status=status, access=(), count=1):
            if socket.family:
                where = (socket.family, 0)
            if isinstance(where, bytes):
                name = where if where.startswith(b"@") else self.join(self.directory, where)
                where = (name, 0)
            self.add(kind, where[0], status, access, socket.protocol, where[1], count)

        unix = socket.protocol == "AF_UNIX"
        where = address(arguments)
        if name == "bind":
            add("bind", where)
            socket.bound = where if done else None
        elif name == "listen":
            add("bind", socket.bound, access={"listen"})
        elif name == "connect" and error == "EINPROGRESS":
            socket.pending = where
        elif name == "connect" and socket.peer is None:
            add("egress", where)
            socket.peer = where if done else None
            self.client = socket
        elif name == "getsockopt" and socket.pending and "SO_ERROR" in arguments:
            add("egress", socket.pending, "Allow" if "SO_ERROR, [0]" in arguments else "Failed")
            socket.peer, socket.pending = socket.pending, None
            self.client = socket
        elif name in ("accept", "accept4") and done:
            # The actor connects and accepts in the same thread and does not ask who came.
            client = self.client.bound or self.client.peer
            add("ingress", socket.bound if unix else (client[0], socket.bound[1]))
        elif name == "sendto" and where and not socket.peer:
            add("egress", where)
        elif name == "sendmmsg":
            add("egress", where, count=int(result))
        elif name in ("recvfrom", "recvmsg", "recvmmsg") and done and socket.bound:
            count = int(result) if name == "recvmmsg" else 1
            add("ingress", socket.bound if unix else (where[0], socket.bound[1]), count=count)


def main():
    directory, actor_directory, actor = sys.argv[1:]
    sys.setrecursionlimit(10_000)
    for log in os.listdir(directory):
        logs[int(log.rsplit(".", 1)[1])] = os.path.join(directory, log)
    # What is there in the end was there in the beginning: the mix cleans up.
    for parent, directories, files in os.walk(os.fsencode(actor_directory)):
        existing.update(os.path.join(parent, name) for name in directories + files)
    first = logs.pop(min(logs))
    Thread(os.path.realpath(os.fsencode(actor)), os.getcwdb()).follow(first)
    if logs:
        sys.exit(f"nobody made the threads of these logs: {sorted(logs)}")
    tables = {kind: [] for kind in
              ["process", "file", "ingress", "egress", "bind", "capability", "syscall"]}
    for (kind, source, target, protocol, port, access, status), count in rows.items():
        tables[kind].append({"source": source, "target": target, "protocol": protocol,
                             "port": port, "access": access, "status": status, "count": count})
    subject = {"tables": tables, "completeness": {"losses": []}}
    json.dump({"schema": "ethogram.summary/v1", "fold": "none", "subjects": [subject]}, sys.stdout)


if __name__ == "__main__":
    main()
