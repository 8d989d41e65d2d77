/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the kernel half and the user half of the sensor say to each other. The Rust side
 * takes these types from the object's BTF, so this file is their only definition.
 */
#pragma once

#define PATH_BYTES_MAX 4096 /* longer paths keep their end and are marked as cut */
#define NAME_BYTES_MAX 256  /* one component, with its slash */
#define ARGS_BYTES_MAX 256  /* example arguments of a process row */
#define SYSCALLS_MAX 512    /* numbers above are not looked at; the highest today is 470 */
#define NO_SLOT 0xffffffffu

/* The kinds, statuses and access bits are those of the model crate (behaviour.rs). */
enum kind {
	KIND_PROCESS = 1,
	KIND_FILE = 2,
	KIND_INGRESS = 3,
	KIND_EGRESS = 4,
	KIND_BIND = 5,
	KIND_CAPABILITY = 6,
	KIND_SYSCALL = 7,
};

enum status {
	STATUS_ALLOW = 0,
	STATUS_DENY = 1,
	STATUS_FAILED = 3,
};

enum access {
	ACCESS_READ = 1 << 0,
	ACCESS_WRITE = 1 << 1,
	ACCESS_CREATE = 1 << 2,
	ACCESS_DELETE = 1 << 3,
	ACCESS_RENAME = 1 << 4,
	ACCESS_ATTR = 1 << 5,
	ACCESS_LISTEN = 1 << 6,
	ACCESS_MEMFD = 1 << 7,
	ACCESS_DELETED = 1 << 8,
	ACCESS_UPPER = 1 << 9,
	ACCESS_CUT = 1 << 10,
	ACCESS_REQUESTED = 1 << 11,
	ACCESS_AT_START = 1 << 12,
	ACCESS_FOLDED = 1 << 13,
};

/* What is told apart in a folded place (the model's budget.rs). */
enum grain {
	GRAIN_EVERYTHING = 1,
	GRAIN_NOT_PORTS = 2,
	GRAIN_NOTHING = 3,
};

enum protocol {
	PROTOCOL_NONE = 0,
	PROTOCOL_TCP = 1,
	PROTOCOL_TCP6 = 2,
	PROTOCOL_UDP = 3,
	PROTOCOL_UDP6 = 4,
	PROTOCOL_ICMP = 5,
	PROTOCOL_ICMP6 = 6,
	PROTOCOL_RAW = 7,
	PROTOCOL_RAW6 = 8,
	PROTOCOL_SCTP = 9,
	PROTOCOL_SCTP6 = 10,
	PROTOCOL_UNIX = 11,
	PROTOCOL_NETLINK = 12,
	PROTOCOL_PACKET = 13,
	PROTOCOL_VSOCK = 14,
	PROTOCOL_OTHER = 15,
};

enum loss_reason {
	LOSS_RING_FULL = 0,
	LOSS_TASK_STATE = 1,
	LOSS_UNRESOLVED = 2,
	LOSS_NAMES = 7, /* no event: an answer of a name server */
};

/*
 * One behaviour. Two events with equal keys are the same behaviour; the reverse need not
 * hold (a file that was reclaimed and read again has another dentry), so user space
 * merges by name.
 */
struct behaviour_key {
	u64 cgroup; /* id in the v2 hierarchy, or tagged id of a v1 one: see cgroup_of() */
	u64 exe;    /* identity of the acting executable: see exe_of() */
	/*
	 * What it acts upon. File and process: mount, dentry, chain, inode (struct
	 * file_id). Requested path: the same of the directory it starts from, with the
	 * hash of the string in place of the inode. Network: 16 bytes of address (IPv4 as
	 * v4-mapped IPv6) in id[0..1]; unix: hash of the name. Capability, syscall, netlink:
	 * the number in id[0]. Folded (ACCESS_FOLDED): the place's hash in id[0], and 1 in
	 * id[3] if its name is path, slash and extra; network: its prefix, with its length in id[2].
	 */
	u64 id[4];
	u8 kind;     /* enum kind */
	u8 status;   /* enum status */
	u16 access;  /* enum access */
	u16 port;    /* host byte order */
	u8 protocol; /* enum protocol */
	u8 unused;
};

/* A counter: monotone until user space recycles its slot. Read through an mmap. */
struct counter {
	u64 count;
	u64 first_ns; /* bpf_ktime_get_boot_ns() */
	u64 last_ns;
};

enum record_type {
	RECORD_BEHAVIOUR = 1,   /* one event of a behaviour that has no slot yet */
	RECORD_EXECUTABLE = 2,  /* the path of an executable's identity */
	RECORD_CGROUP_NEW = 3,  /* key.cgroup appeared; path in data */
	RECORD_CGROUP_GONE = 4, /* key.cgroup went away */
	RECORD_SOCKET = 5,      /* look-back: a socket found open */
	/*
	 * What key.cgroup received from a name server, in extra. UDP: an answer. TCP: a piece
	 * of a stream: id[0] says which, id[1] the place of its first byte, id[2] its length.
	 */
	RECORD_DNS = 6,
};

/*
 * What goes through the ring buffer, followed by the bytes of path and extra. A behaviour's record *is* one counted event; `slot`
 * says where later events of the same key are counted. So it does not matter for the sum
 * whether the key could be inserted afterwards.
 */
struct record {
	u64 time_ns; /* bpf_ktime_get_boot_ns() */
	struct behaviour_key key;
	u32 slot;        /* or NO_SLOT */
	u32 pid;         /* process id in the root namespace, to look things up while it lives */
	u16 type;        /* enum record_type */
	u16 path_bytes;  /* path from the kernel's dentries; comes first in data */
	u16 extra_bytes; /* requested string, unix name, or example arguments; comes second */
	u16 marks;       /* enum access bits that belong to the name, not to the key */
	/* Look-back sockets only: the local end, for telling accepted from connected. */
	u64 local[2];
	u64 netns;
	u16 local_port;
	u8 listening, explicit_port;
	u32 unused;
};

/* How a system call is handled: one entry per number, written before load. */
enum call_op {
	CALL_IGNORE = 0,
	CALL_OPEN,      /* returns a file descriptor for a path */
	CALL_PATH,      /* acts on one path */
	CALL_TWO_PATHS, /* rename, link */
	CALL_FD_ATTR,   /* fchmod, fchown */
	CALL_EXEC,
	CALL_CONNECT,
	CALL_ACCEPT,
	CALL_BIND,
	CALL_LISTEN,
	CALL_SENDTO,
	CALL_SENDMSG,
	CALL_SENDMMSG,
	CALL_RECVFROM,
	CALL_RECVMSG,
	CALL_RECVMMSG,
	CALL_READ,      /* looked at for what comes from name servers */
	CALL_SENSITIVE, /* counted by name */
};

/* Which argument holds the path, and which the directory it starts from. */
enum path_style {
	PATH_0 = 0,     /* path in argument 0, from the working directory */
	PATH_DIR_0 = 1, /* directory in argument 0, path in 1 */
	PATH_1 = 2,     /* path in argument 1, from the working directory */
	PATH_DIR_1 = 3, /* directory in argument 1, path in 2 */
	PATH_NONE = 4,
};

struct call_rule {
	u8 op;             /* enum call_op */
	u8 style;          /* enum path_style; for CALL_TWO_PATHS: PATH_0 or PATH_DIR_0 */
	u16 access;        /* enum access of the (first) path; for CALL_SENSITIVE its index */
	u16 access2;       /* CALL_TWO_PATHS: of the second path */
	u8 empty_path_arg; /* argument with AT_EMPTY_PATH flags, 0 if the call has none */
	u8 flags_arg;      /* CALL_TWO_PATHS: argument with RENAME_EXCHANGE, 0 if none */
	u8 refusals_only;  /* success is seen below the system call, with the name resolved */
	u8 unused;
};

/* What user space decided about a cgroup. */
enum policy {
	POLICY_IGNORE = 1,
	POLICY_TRACK = 2,
};
