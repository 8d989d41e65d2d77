/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Places that user space has folded because a container does more than can be kept (see the
 * model's budget.rs). A new behaviour below such a place gets the place's key, so a flood
 * neither fills the map of behaviours nor the ring. Looked at only at first sight: the way of
 * known keys costs nothing more.
 */
#pragma once
#include "core.h"

/* Folded place -> enum grain. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct fold_key);
	__type(value, u8);
} folds SEC(".maps");

#define FNV_PRIME 0x100000001b3ULL

static __always_inline u64 fold_seed(const struct behaviour_key *key, u8 protocol, u16 port)
{
	return mix(0, key->kind | (u64)key->status << 8 | (u64)protocol << 16 | (u64)port << 32);
}

#define ANY_PLACE 0 /* whether the cgroup has any */

/*
 * Whether a place is folded, and how. The key lies in s: the stack is short before 6.13. (There a
 * map wants its key in a map or on the stack, so no function between it and the map that s lies in
 * may be global: it would take s for any memory.)
 */
static __always_inline u8 *folded_at(struct scratch *s, u64 place)
{
	s->fold.key.cgroup = s->record.key.cgroup;
	s->fold.key.place = place;
	return bpf_map_lookup_elem(&folds, &s->fold.key);
}

/* The context is one pointer on the stack, which is short on kernels before 6.13. */
struct fold_context {
	struct scratch *s;
};

/*
 * The byte at `i` of the name that user space will see: path, or what was requested, or the two
 * with a slash between them.
 */
static __always_inline char name_byte(struct scratch *s, u32 i)
{
	u32 path_bytes = s->fold.path_bytes;

	/* The masks change nothing: for the verifier. */
	if (i < path_bytes)
		return s->path[(s->path_start + i) & (PATH_BYTES_MAX - 1)];
	i -= path_bytes;
	if (path_bytes) {
		if (!i)
			return '/';
		i--;
	}
	return s->extra[i & (PATH_BYTES_MAX - 1)];
}

/* One byte of the name: at each slash, is everything below this directory folded? */
static long fold_step(u32 i, struct fold_context *context)
{
	struct scratch *s = context->s;
	struct fold_walk *walk = &s->fold;
	char byte = name_byte(s, i);
	u8 *grain;

	/* What user space will tidy up is folded there. */
	walk->odd = walk->after_slash && i >= walk->path_bytes && (byte == '/' || byte == '.');
	walk->after_slash = byte == '/';
	if (walk->odd)
		return 1;
	walk->hash = (walk->hash ^ (u8)byte) * FNV_PRIME;
	if (byte != '/')
		return 0;
	walk->directory_bytes = i + 1;
	walk->directory_hash = walk->hash;
	if (walk->grain)
		return 0; /* found; the rest is only looked at for its oddities */
	grain = folded_at(s, walk->hash);
	if (grain) {
		walk->grain = *grain;
		walk->found_bytes = i + 1;
		walk->found_hash = walk->hash;
	}
	return 0;
}

/* The files of the last directory: its name and a star. */
static __always_inline bool fold_files(struct scratch *s)
{
	struct fold_walk *walk = &s->fold;
	u32 end = walk->directory_bytes;
	u8 *grain = folded_at(s, (walk->directory_hash ^ '*') * FNV_PRIME);

	if (!grain)
		return false;
	walk->grain = *grain;
	walk->found_bytes = end + 1;
	walk->found_hash = walk->key.place;
	/* Over the first byte of the file's name. */
	if (end < walk->path_bytes) {
		s->path[(s->path_start + end) & (PATH_BYTES_MAX - 1)] = '*';
	} else {
		end -= walk->path_bytes + !!walk->path_bytes;
		s->extra[end & (PATH_BYTES_MAX - 1)] = '*';
	}
	return true;
}

/* Finds the widest folded directory above the name in s and cuts the name down to it. */
static __noinline bool fold_path(struct scratch *s)
{
	struct fold_context context = { .s = s };
	struct fold_walk *walk = &s->fold;
	struct behaviour_key *key = &s->record.key;
	bool requested = key->access & ACCESS_REQUESTED || key->kind == KIND_FILE;
	u32 bytes = s->path_bytes, extra_bytes = requested ? s->extra_bytes : 0;

	if (s->record.marks) /* cut: its beginning is not known */
		return false;
	__builtin_memset(walk, 0, sizeof(*walk));
	walk->path_bytes = s->path_bytes;
	walk->hash = fold_seed(key, 0, 0);
	if (extra_bytes)
		bytes += extra_bytes + !!bytes;
	bpf_loop(bytes, fold_step, &context, 0);
	if (walk->odd || walk->directory_bytes >= bytes)
		return false;
	if (!walk->grain && !fold_files(s))
		return false;
	if (walk->found_bytes <= walk->path_bytes) {
		s->path_bytes = walk->found_bytes;
		s->extra_bytes = 0;
		key->id[3] = 0;
	} else {
		s->extra_bytes = walk->found_bytes - walk->path_bytes - !!walk->path_bytes;
		key->id[3] = !!walk->path_bytes; /* a slash between the two */
	}
	key->id[0] = walk->found_hash;
	key->id[1] = key->id[2] = 0;
	return true;
}

#define PREFIXES 5
#define V4_MAPPED 0xffff0000u /* the third word of a v4-mapped address, as it lies in memory */

/* The high or the low half of an address, without what lies behind so many bits of that half. */
static __always_inline u64 prefix_of(u64 half, s32 bits)
{
	u64 mask = bits >= 64 ? ~0ULL : bits > 0 ? ~0ULL << (64 - bits) : 0;

	return __builtin_bswap64(__builtin_bswap64(half) & mask);
}

/* Cuts the address in s down to so many bits, if that prefix is folded. */
static __noinline bool fold_prefix(struct scratch *s, u32 bits)
{
	struct behaviour_key *key = &s->record.key;
	bool is_ingress = key->kind == KIND_INGRESS;
	u64 high = prefix_of(key->id[0], bits), low = prefix_of(key->id[1], (s32)bits - 64);
	u64 place = fold_seed(key, key->protocol, is_ingress ? key->port : 0);
	u8 *grain;

	place = mix(mix(place, __builtin_bswap64(high)), __builtin_bswap64(low));
	grain = folded_at(s, mix(place, bits));
	if (!grain)
		return false;
	s->fold.grain = *grain;
	key->id[0] = high;
	key->id[1] = low;
	key->id[2] = bits;
	if (!is_ingress && *grain >= GRAIN_NOT_PORTS)
		key->port = 0;
	return true;
}

/* Finds the widest folded prefix of the address in s and cuts the address down to it. */
static __noinline bool fold_address(struct scratch *s)
{
	bool is_v4 = !s->record.key.id[0] && (u32)s->record.key.id[1] == V4_MAPPED;
	u32 prefixes = PREFIXES - (s->record.key.kind == KIND_INGRESS);

	for (u32 i = 0; i < PREFIXES && i < prefixes; i++) {
		/* 0, 8, 16, 24, 32 bits behind the 96 that all IPv4 has in common; 0, 32, 48, 64, 128. */
		u32 bits = is_v4 ? 96 + 8 * i : i == 4 ? 128 : i ? 16 + 16 * i : 0;

		if (fold_prefix(s, bits))
			return true;
	}
	return false;
}

/*
 * Whether the behaviour in s is below a folded place; then its key, path and address are those of
 * the place now.
 */
static __always_inline bool fold(struct scratch *s)
{
	bool folded = false;
	u8 kind;

	if (!folded_at(s, ANY_PLACE))
		return false;
	kind = s->record.key.kind;
	if (kind == KIND_FILE || kind == KIND_PROCESS)
		folded = fold_path(s);
	else if (s->record.key.protocol >= PROTOCOL_TCP && s->record.key.protocol <= PROTOCOL_SCTP6)
		folded = fold_address(s);
	if (!folded)
		return false;
	s->record.key.access |= ACCESS_FOLDED;
	if (s->fold.grain == GRAIN_NOTHING) {
		s->record.key.exe = 0;
		s->record.key.access = ACCESS_FOLDED;
	}
	return true;
}
