/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Answers of name servers: what a program was told when it asked for a name. They are taken
 * from the program's own memory after it received them, so they are true of its container
 * whichever resolver it uses. User space parses them; here only what is sure to be of no use
 * is left out, so that unrelated traffic costs a look at a port.
 */
#pragma once
#include "network.h"

#define DNS_PORT 53
#define DNS_HEADER_BYTES 12
#define DNS_BYTES_MAX PATH_BYTES_MAX /* of one record; what is longer is cut */
/* The same answer again is sent on so seldom: it only says that the name is still in use. */
#define DNS_REPEAT_NS (60ULL * 1000000000)
#define MSG_PEEK 2 /* the same bytes will be received again */

/* Hashes of answers (with their cgroup) and when they were last sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, u64);
} recent_answers SEC(".maps");

/*
 * Where in the program's memory a receiving call has put what: built in s->path, as the stack
 * is short. Resolvers use two parts at most.
 */
struct received {
	struct user_buffers buffers;
	struct user_iovec parts[2];
};

/* The port in an address of a program's; a function of its own for the sake of the caller's stack. */
static __noinline u16 port_at(u64 user_address)
{
	union user_memory read = {};

	/* If it cannot be read, whoever counts the sender finds that out, too, and says so. */
	read_user(&read, user_address, 2 * sizeof(u16));
	return *(u16 *)read.address.data;
}

/*
 * Whether a socket's data comes from a name server: its peer's port says so, or, where it is
 * not connected, the address that the call has written down.
 */
static __always_inline bool is_from_name_server(struct sock *any_sk, const void *user_address)
{
	struct sock *sk = CAST(struct sock, any_sk);
	__be16 port = GET(sk, __sk_common.skc_dport);
	u16 family = GET(sk, __sk_common.skc_family);

	if (family != AF_INET && family != AF_INET6)
		return false;
	if (!port && user_address)
		port = port_at((u64)user_address);
	return port == swap16(DNS_PORT);
}

/* Finds what was received by recvmsg (`where` is its header), or by a call with one buffer. */
static __always_inline bool find_received(struct scratch *s, struct received *what,
					  const void *where, u32 bytes, bool is_message)
{
	u32 parts_bytes;

	__builtin_memset(what, 0, sizeof(*what));
	what->parts[0].base = (u64)where;
	what->parts[0].bytes = bytes;
	if (!is_message)
		return true;
	if (read_user_extra(s, 0, (u64)where + sizeof(struct user_msghdr_name),
			    sizeof(what->buffers), false))
		return false;
	what->buffers = *(struct user_buffers *)s->extra;
	parts_bytes = what->buffers.count > 1 ? sizeof(what->parts) : sizeof(what->parts[0]);
	if (read_user_extra(s, 0, what->buffers.list, parts_bytes, false))
		return false;
	what->parts[0] = *(struct user_iovec *)s->extra;
	if (what->buffers.count > 1)
		what->parts[1] = *((struct user_iovec *)s->extra + 1);
	return true;
}

/* Copies what was received to s->extra; false if the program's memory cannot be read. */
static __always_inline bool received_into(struct scratch *s, const struct received *what, u32 bytes)
{
	u64 first = what->parts[0].bytes, second = what->parts[1].bytes;

	if (bytes > DNS_BYTES_MAX)
		bytes = DNS_BYTES_MAX;
	if (first > bytes)
		first = bytes;
	if (second > bytes - first)
		second = bytes - first;
	if (first && read_user_extra(s, 0, what->parts[0].base, first, false))
		return false;
	if (second && read_user_extra(s, first, what->parts[1].base, second, false))
		return false;
	s->extra_bytes = first + second;
	return s->extra_bytes <= DNS_BYTES_MAX;
}

/* An answer, without error, that holds records: bytes 2, 3, 6 and 7 of its header. */
static __always_inline bool is_answer(const struct scratch *s)
{
	const u8 *header = (const u8 *)s->extra;

	return s->extra_bytes > DNS_HEADER_BYTES && (header[2] & 0xf8) == 0x80 &&
	       !(header[3] & 0x0f) && (header[6] || header[7]);
}

/* Whether the same was sent a short while ago, but for the number of the question. */
static __always_inline bool is_repeated(struct scratch *s, u64 *hash, u64 now)
{
	u32 end = s->extra_bytes & (2 * PATH_BYTES_MAX - 1);
	u64 *sent;

	s->extra[0] = s->extra[1] = 0;
	*(u64 *)(s->extra + end) = 0; /* what is behind it in its last word */
	*hash = mix(s->record.key.cgroup, extra_hash(s));
	sent = bpf_map_lookup_elem(&recent_answers, hash);
	return sent && now - *sent < DNS_REPEAT_NS;
}

static __always_inline bool send_answer(struct scratch *s, struct sock *sk, u32 bytes)
{
	u8 protocol = sock_protocol(sk);
	u64 now = bpf_ktime_get_boot_ns(), hash = 0;

	s->record.type = RECORD_DNS;
	s->record.time_ns = now;
	s->record.key.protocol = protocol;
	if (protocol == PROTOCOL_TCP || protocol == PROTOCOL_TCP6) {
		/* A piece of a stream: user space puts them together, by their places in it. */
		u32 end = BPF_CORE_READ((struct tcp_sock *)sk, copied_seq);

		s->record.key.id[0] = (u64)sk;
		s->record.key.id[1] = (u32)(end - bytes);
		s->record.key.id[2] = bytes;
		return !send(s);
	}
	if (!is_answer(s) || is_repeated(s, &hash, now))
		return true;
	if (send(s))
		return false;
	bpf_map_update_elem(&recent_answers, &hash, &now, BPF_ANY);
	return true;
}

#define BY_MESSAGE (1ULL << 32)

/*
 * A watched program has received something from a name server, `how` many bytes of it: `where`
 * the buffer is, or with BY_MESSAGE the header of a message.
 */
static __noinline int answered(struct actor *actor, struct sock *sk, const void *where, u64 how)
{
	struct received *what;
	struct scratch *s;
	u32 bytes = how;

	if (!actor || !sk)
		return 0;
	s = scratch_get();
	if (!s) {
		lose(actor->cgroup, LOSS_NAMES);
		return 0;
	}
	s->record.key.cgroup = actor->cgroup;
	what = (struct received *)s->path;
	if (!find_received(s, what, where, bytes, how & BY_MESSAGE) ||
	    !received_into(s, what, bytes) || !send_answer(s, sk, bytes))
		lose(actor->cgroup, LOSS_NAMES);
	scratch_put(s);
	return 0;
}
