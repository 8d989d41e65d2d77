/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Sockets: connections out and in, datagrams, binds. */
#pragma once
#include "file.h"

/* One end of a socket: 16 bytes of address, IPv4 as v4-mapped IPv6. */
struct end {
	u64 address[2];
	u16 port;
};

static __always_inline u16 swap16(__be16 port)
{
	return __builtin_bswap16(port);
}

static __always_inline void end_v4(struct end *end, __be32 address, __be16 port)
{
	end->address[0] = 0;
	end->address[1] = (u64)address << 32 | 0xffff0000; /* bytes ..., ff, ff, a, b, c, d */
	end->port = swap16(port);
}

static __always_inline struct sock *sock_of(struct task_struct *task, int fd)
{
	struct file *any_file = file_of(task, fd), *file;
	struct socket *socket;
	struct inode *inode;

	if (!any_file)
		return NULL;
	file = CAST(struct file, any_file);
	inode = CAST(struct inode, GET(file, f_inode));
	if ((GET(inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = CAST(struct socket, GET(file, private_data));
	return GET(socket, sk);
}

static __always_inline u8 protocol_of(u16 family, u16 type, u16 protocol)
{
	u8 v6 = family == AF_INET6;

	switch (family) {
	case AF_INET:
	case AF_INET6:
		break;
	case AF_UNIX:
		return PROTOCOL_UNIX;
	case AF_NETLINK:
		return PROTOCOL_NETLINK;
	case AF_PACKET:
		return PROTOCOL_PACKET;
	case AF_VSOCK:
		return PROTOCOL_VSOCK;
	default:
		return PROTOCOL_OTHER;
	}
	switch (protocol) {
	case IPPROTO_TCP:
	case IPPROTO_MPTCP:
		return PROTOCOL_TCP + v6;
	case IPPROTO_ICMP:
		return PROTOCOL_ICMP;
	case IPPROTO_ICMPV6:
		return PROTOCOL_ICMP6;
	case IPPROTO_SCTP:
		return PROTOCOL_SCTP + v6;
	}
	return (type == SOCK_RAW ? PROTOCOL_RAW : PROTOCOL_UDP) + v6;
}

static __always_inline u8 sock_protocol(struct sock *sk)
{
	return protocol_of(BPF_CORE_READ(sk, __sk_common.skc_family), BPF_CORE_READ(sk, sk_type),
			   BPF_CORE_READ(sk, sk_protocol));
}

static __always_inline bool is_inet(u8 protocol)
{
	return protocol >= PROTOCOL_TCP && protocol <= PROTOCOL_SCTP6;
}

static __always_inline void remote_end(struct end *end, struct sock *sk)
{
	__be16 port = BPF_CORE_READ(sk, __sk_common.skc_dport);

	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6) {
		BPF_CORE_READ_INTO(&end->address, sk, __sk_common.skc_v6_daddr);
		end->port = swap16(port);
	} else {
		end_v4(end, BPF_CORE_READ(sk, __sk_common.skc_daddr), port);
	}
}

/* Where the kernel begins to hand out ports (the default of ip_local_port_range). */
#define EPHEMERAL_PORT_MIN 32768

/* A port the kernel picked is no behaviour: 0 unless the program asked for it. */
static __always_inline bool has_explicit_port(struct sock *sk)
{
	/* SCTP does not keep who chose it. */
	if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_SCTP)
		return BPF_CORE_READ(sk, __sk_common.skc_num) < EPHEMERAL_PORT_MIN;
	return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & SOCK_BINDPORT_LOCK;
}

static __always_inline void local_end(struct end *end, struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6)
		BPF_CORE_READ_INTO(&end->address, sk, __sk_common.skc_v6_rcv_saddr);
	else
		end_v4(end, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr), 0);
	end->port = has_explicit_port(sk) ? BPF_CORE_READ(sk, __sk_common.skc_num) : 0;
}

/*
 * Reads what a call with this outcome was given. What cannot be read is a loss, unless the
 * kernel could not read it either: no address, no behaviour.
 */
static __always_inline bool read_given(u64 cgroup, long outcome, union user_memory *to,
				       const void *from, u32 bytes)
{
	if (!read_user(to, (u64)from, bytes))
		return true;
	if (outcome != -EFAULT)
		lose(cgroup, LOSS_UNRESOLVED);
	return false;
}

/*
 * An address as the program wrote it, from user memory, after a call with this outcome. False:
 * none of ours, or unreadable.
 * A function of its own, so that the buffer is not on the stack of what is called next.
 */
static __noinline bool requested_end(const struct actor *actor, struct end *end, long outcome,
				     const void *user_address, u32 bytes)
{
	union user_memory read = {};

	if (bytes > sizeof(read.address))
		bytes = sizeof(read.address);
	if (bytes < sizeof(u16))
		return false;
	if (!read_given(actor->cgroup, outcome, &read, user_address, bytes))
		return false;
	switch (read.address.family) {
	case AF_INET:
		end_v4(end, *(__be32 *)(read.address.data + 2), *(__be16 *)read.address.data);
		return true;
	case AF_INET6:
		__builtin_memcpy(end->address, read.address.data + 6, 16);
		end->port = swap16(*(__be16 *)read.address.data);
		return true;
	}
	return false;
}

/* Everything but the end, in one argument: a function of its own, so that the stack holds one key. */
static __noinline int count_end_how(const struct actor *actor, u64 how, const struct end *end)
{
	struct behaviour_key key;

	key_of(&key, actor, how & 0xff, how >> 8 & 0xff);
	key.protocol = how >> 16 & 0xff;
	key.access = how >> 32 & 0xffff;
	key.id[0] = end->address[0];
	key.id[1] = end->address[1];
	key.port = end->port;
	count_plain(&key, bpf_get_current_task_btf());
	return 0;
}

static __always_inline void count_end(const struct actor *actor, u8 kind, u8 status, u8 protocol,
				      const struct end *end, u16 access, struct task_struct *task)
{
	count_end_how(actor, kind | status << 8 | protocol << 16 | (u64)access << 32, end);
}

/* Families that say it all with a number: netlink's protocol, any other's family. */
static __always_inline void count_number(const struct actor *actor, u8 kind, u8 status, u8 protocol,
					 u64 number, u16 port, u16 access, struct task_struct *task)
{
	struct end end = { .address = { number }, .port = port };

	count_end(actor, kind, status, protocol, &end, access, task);
}

/* ---- unix sockets: a name of up to 108 bytes ---- */
#define UNIX_NAME_BYTES_MAX 108
#define SOCKADDR_UN_BYTES (UNIX_NAME_BYTES_MAX + sizeof(u16))

struct unix_name {
	const void *string; /* NULL: unnamed */
	u32 bytes;
	bool user; /* as requested, in user memory */
	/* Where a relative name leads: the socket's file, or the directory it starts from. */
	void *mnt, *dentry;
};

static __always_inline struct unix_name unix_name_of(struct sock *sk)
{
	struct unix_address *address = BPF_CORE_READ((struct unix_sock *)sk, addr);
	struct unix_name name = {};

	if (address) {
		name.string = (void *)address + bpf_core_field_offset(struct unix_address, name) +
			      sizeof(u16);
		name.bytes = BPF_CORE_READ(address, len) - sizeof(u16);
		name.mnt = BPF_CORE_READ((struct unix_sock *)sk, path.mnt);
		name.dentry = BPF_CORE_READ((struct unix_sock *)sk, path.dentry);
	}
	return name;
}

/*
 * A path ends at its NUL; what lies behind is not part of the name. Abstract names begin
 * with a NUL and are counted in bytes. Global, so that its loop is verified once.
 */
__noinline int unix_name_trim(struct scratch *s)
{
	bool ended = false;

	if (!s || !s->extra[0])
		return 0;
	for (u32 i = 0; i < UNIX_NAME_BYTES_MAX; i++) {
		if (!ended && !s->extra[i]) {
			ended = true;
			s->extra_bytes = i;
		}
		if (ended)
			s->extra[i] = 0;
	}
	return 0;
}

static __noinline int count_unix(struct actor *actor, u32 how, struct unix_name *name)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 now = bpf_ktime_get_boot_ns();
	struct behaviour_key *key;
	struct scratch *s;
	bool relative;
	u32 bytes;

	if (!actor || !name)
		return 0;
	s = scratch_get();
	if (!s) {
		lose(actor->cgroup, LOSS_RING_FULL);
		return 0;
	}
	key = &s->record.key; /* in place: the stack is short on kernels before 6.13 */
	key_of(key, actor, how & 0xff, how >> 8 & 0xff);
	key->access = how >> 16;
	key->protocol = PROTOCOL_UNIX;
	bytes = name->string ? name->bytes : 0;
	if (bytes > UNIX_NAME_BYTES_MAX)
		bytes = UNIX_NAME_BYTES_MAX;
	__builtin_memset(s->extra, 0, UNIX_NAME_BYTES_MAX + 4);
	if (bytes && (name->user ? read_user_extra(s, 0, (u64)name->string, bytes, false)
				 : bpf_probe_read_kernel(s->extra, bytes, name->string))) {
		lose(actor->cgroup, LOSS_UNRESOLVED);
		goto out;
	}
	s->extra_bytes = bytes;
	unix_name_trim(s);
	key->id[0] = extra_hash(s);
	key->id[1] = s->extra_bytes;
	relative = s->extra_bytes && s->extra[0] && s->extra[0] != '/' && name->mnt;
	if (relative) {
		key->id[2] = chain_of(name->mnt, name->dentry, task);
		key->id[3] = (u64)name->dentry;
		key->access |= name->user ? ACCESS_REQUESTED : 0;
	}
	if (!count_known(key, now)) {
		begin_here(s, now, task);
		if (relative)
			path_into(s, name->mnt, name->dentry, task);
		count_first(s);
	}
out:
	scratch_put(s);
	return 0;
}

#define HOW(kind, status, access) ((kind) | (status) << 8 | (u32)(access) << 16)

/* ---- outcomes ---- */
static __always_inline u8 status_of(long error)
{
	if (error >= 0)
		return STATUS_ALLOW;
	return error == -EPERM || error == -EACCES ? STATUS_DENY : STATUS_FAILED;
}

/* A refused or failed call about an address: the kernel kept nothing, so the program's word counts. */
static __always_inline void count_requested_end(struct actor *actor, u8 kind, long error,
						u8 protocol, const void *user_address, u32 bytes,
						struct task_struct *task)
{
	struct end end = {};

	if (protocol == PROTOCOL_UNIX) {
		struct fs_struct *fs = BPF_CORE_READ(task, fs);
		union user_memory family = {};

		if (bytes > SOCKADDR_UN_BYTES)
			bytes = SOCKADDR_UN_BYTES;
		if (bytes <= sizeof(u16))
			return;
		if (!read_given(actor->cgroup, error, &family, user_address, sizeof(u16)) ||
		    family.address.family != AF_UNIX)
			return;

		struct unix_name name = {
			.string = (void *)user_address + sizeof(u16),
			.bytes = bytes - sizeof(u16),
			.user = true,
			.mnt = BPF_CORE_READ(fs, pwd.mnt),
			.dentry = BPF_CORE_READ(fs, pwd.dentry),
		};

		count_unix(actor, HOW(kind, status_of(error), 0), &name);
	} else if (is_inet(protocol) && requested_end(actor, &end, error, user_address, bytes)) {
		count_end(actor, kind, status_of(error), protocol, &end, 0, task);
	}
}

/* connect() of anything but TCP and SCTP, whose outcome their state machine tells. */
static __always_inline void connected(struct actor *actor, struct sock *sk, u8 protocol,
				      struct task_struct *task)
{
	if (protocol == PROTOCOL_UNIX) {
		struct sock *peer = BPF_CORE_READ((struct unix_sock *)sk, peer);
		struct unix_name name = {};

		if (peer)
			name = unix_name_of(peer);
		count_unix(actor, HOW(KIND_EGRESS, STATUS_ALLOW, 0), &name);
	} else if (is_inet(protocol)) {
		struct end end = {};

		remote_end(&end, sk);
		count_end(actor, KIND_EGRESS, STATUS_ALLOW, protocol, &end, 0, task);
	} else {
		u64 number = protocol == PROTOCOL_NETLINK
				     ? BPF_CORE_READ(sk, sk_protocol)
				     : BPF_CORE_READ(sk, __sk_common.skc_family);

		count_number(actor, KIND_EGRESS, STATUS_ALLOW, protocol, number, 0, 0, task);
	}
}

/* accept(): `sk` is the new connection. The row's port is the local one. */
static __always_inline void accepted(struct actor *actor, struct sock *sk, struct task_struct *task)
{
	u8 protocol = sock_protocol(sk);
	struct end end = {};

	if (protocol == PROTOCOL_UNIX) {
		struct unix_name name = unix_name_of(sk); /* inherited from the listening socket */

		count_unix(actor, HOW(KIND_INGRESS, STATUS_ALLOW, 0), &name);
	} else if (is_inet(protocol)) {
		remote_end(&end, sk);
		end.port = BPF_CORE_READ(sk, __sk_common.skc_num);
		count_end(actor, KIND_INGRESS, STATUS_ALLOW, protocol, &end, 0, task);
	} else {
		count_number(actor, KIND_INGRESS, STATUS_ALLOW, protocol,
			     BPF_CORE_READ(sk, __sk_common.skc_family), 0, 0, task);
	}
}

/* bind() and listen() that succeeded. */
static __always_inline void bound(struct actor *actor, struct sock *sk, u16 access,
				  struct task_struct *task)
{
	u8 protocol = sock_protocol(sk);

	if (protocol == PROTOCOL_UNIX) {
		struct unix_name name = unix_name_of(sk);

		count_unix(actor, HOW(KIND_BIND, STATUS_ALLOW, access), &name);
	} else if (is_inet(protocol)) {
		struct end end = {};

		local_end(&end, sk);
		count_end(actor, KIND_BIND, STATUS_ALLOW, protocol, &end, access, task);
	} else {
		u64 number = protocol == PROTOCOL_NETLINK
				     ? BPF_CORE_READ(sk, sk_protocol)
				     : BPF_CORE_READ(sk, __sk_common.skc_family);

		count_number(actor, KIND_BIND, STATUS_ALLOW, protocol, number, 0, access, task);
	}
}

/*
 * A datagram with an address of its own: sent to it, or received from it. On a connected
 * socket the connect() was counted instead.
 */
static __always_inline void datagram(struct actor *actor, struct sock *sk, u8 kind, long error,
				     const void *user_address, u32 bytes, struct task_struct *task)
{
	u8 protocol = sock_protocol(sk), status = status_of(error);
	struct end end = {};

	if (protocol == PROTOCOL_UNIX) {
		if (BPF_CORE_READ(sk, sk_type) != SOCK_DGRAM)
			return;
		if (kind == KIND_EGRESS) {
			count_requested_end(actor, kind, error, protocol, user_address, bytes, task);
		} else if (!BPF_CORE_READ((struct unix_sock *)sk, peer)) {
			struct unix_name name = unix_name_of(sk);

			if (name.string)
				count_unix(actor, HOW(KIND_INGRESS, STATUS_ALLOW, 0), &name);
		}
		return;
	}
	if (!is_inet(protocol) || protocol == PROTOCOL_TCP || protocol == PROTOCOL_TCP6)
		return;
	if (kind == KIND_INGRESS) {
		/* Only a server's: the answer to a client's own datagram is not ingress. */
		if (!has_explicit_port(sk) || BPF_CORE_READ(sk, __sk_common.skc_dport))
			return;
	}
	if (!requested_end(actor, &end, error, user_address, bytes))
		return;
	if (kind == KIND_INGRESS)
		end.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	else if (protocol != PROTOCOL_UDP && protocol != PROTOCOL_UDP6)
		end.port = 0; /* raw and ping sockets have no ports */
	else if (end.port >= EPHEMERAL_PORT_MIN && has_explicit_port(sk))
		end.port = 0; /* a server's answer to a port that its client was given */
	count_end(actor, kind, status, protocol, &end, 0, task);
}

/* ---- TCP connections, from the state machine: seen for connect, sendto(MSG_FASTOPEN), io_uring ---- */
struct pending {
	u64 cgroup, exe;
	struct end end;
	u8 protocol;
};

/* Sockets in SYN_SENT, by address: who called connect, until its outcome is known. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct pending);
} pending_connects SEC(".maps");

static __always_inline void connect_begins(struct sock *sk, u64 key)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct actor *actor = actor_of(task);
	struct pending pending = {};

	if (!actor)
		return;
	pending.cgroup = actor->cgroup;
	pending.exe = actor->exe;
	pending.protocol = sock_protocol(sk);
	remote_end(&pending.end, sk);
	if (bpf_map_update_elem(&pending_connects, &key, &pending, BPF_ANY))
		lose(actor->cgroup, LOSS_TASK_STATE);
}

static __always_inline void connect_ends(u64 key, u8 status)
{
	struct pending *pending = bpf_map_lookup_elem(&pending_connects, &key);
	struct actor actor = {};

	if (!pending)
		return;
	actor.cgroup = pending->cgroup;
	actor.exe = pending->exe;
	count_end(&actor, KIND_EGRESS, status, pending->protocol, &pending->end, 0,
		  bpf_get_current_task_btf());
	bpf_map_delete_elem(&pending_connects, &key);
}
