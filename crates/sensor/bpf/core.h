/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The shared core: maps, records, what is lost. Nothing here knows by which hook an event
 * was seen.
 */
#pragma once
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "abi.h"

/* ---- knobs, written by user space before load ---- */
const volatile u32 agent_tgid;            /* the agent itself is never watched */
const volatile bool track_unknown = true; /* cgroups nobody decided about are watched */
const volatile u32 slots_max;             /* entries of `counters` */
const volatile u32 slots_per_cgroup_max;  /* so that one flood leaves room for others */
/* Index of the v1 controller that tells containers apart where the v2 hierarchy does not; -1 for none. */
const volatile s32 v1_controller = -1;
const volatile u32 v1_tag;            /* top byte of ids of that hierarchy */
const volatile u64 ring_wakeup_bytes; /* wake user space when so much waits */
const volatile bool keeps_processor;  /* the kernel lets programs keep it from being preempted */

/* Grows when user space changes `policies`, so that every task decides anew. */
u32 policy_generation;
/* Slots handed out so far; recycled ones wait in `free_slots`. */
u32 slots_used;
/* Losses that could not even be booked in `losses`. */
u64 losses_unbooked;

/* Behaviour -> slot in `counters`. Sized by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* memory follows use; cleared on kernels before 6.1 */
	__uint(max_entries, 1);
	__type(key, struct behaviour_key);
	__type(value, u32);
} behaviours SEC(".maps");

/* Counts, apart from the keys so that user space can scan them through an mmap. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counter);
} counters SEC(".maps");

/* Slots that user space has recycled, or that a lost race gave back. */
struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1);
	__uint(key_size, 0);
	__uint(value_size, sizeof(u32));
} free_slots SEC(".maps");

/*
 * Slots that keys of a cgroup took, counted by the kernel alone, and that user space gave back,
 * counted by it alone: two counters that only grow, where one would be written from both sides.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, u64);
} slots_taken SEC(".maps"), slots_given_back SEC(".maps");

/* New names and first events, to user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/* Identities of executables whose path was sent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, u8);
} executables SEC(".maps");

/* cgroup id -> enum policy. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, u8);
} policies SEC(".maps");

struct loss_key {
	u64 cgroup;
	u32 reason; /* enum loss_reason */
	u32 unused;
};

/* Events known not to be counted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct loss_key);
	__type(value, u64);
} losses SEC(".maps");

/* What is known of a task; valid while it neither execs nor moves to another cgroup. */
struct actor {
	u64 cgroup; /* 0: not watched */
	u64 exe;
	void *css_set;
	u32 exec_id;
	u32 policy_generation;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* task storage demands it */
	__type(key, int);
	__type(value, struct actor);
} actors SEC(".maps");

/*
 * Room to build a record in: too large for the 512-byte stack. Programs of trampolines can
 * be preempted by another task's on the same CPU, so each CPU has a few, taken by a flag.
 */
#define SCRATCH_PER_CPU 4

struct fold_key {
	u64 cgroup;
	u64 place; /* hash of kind, status and name */
};

/* How far the search for a folded directory has got: see folds.h. */
struct fold_walk {
	u64 hash;           /* of the name so far */
	u64 directory_hash; /* of its last directory, with the slash */
	u64 found_hash;     /* of the folded place */
	u32 directory_bytes, found_bytes;
	u32 path_bytes; /* of the name, from the path; the rest is what was requested */
	u8 grain;       /* enum grain of what was found, 0 for nothing */
	bool after_slash, odd;
	struct fold_key key; /* of what is looked up */
};

struct scratch {
	u32 busy;
	u32 path_start; /* where the path begins in `path` */
	u32 path_bytes;
	u32 extra_bytes;
	struct record record;
	struct fold_walk fold;
	/* A path is written from PATH_BYTES_MAX downwards, the last component first. */
	char path[PATH_BYTES_MAX + NAME_BYTES_MAX];
	char extra[PATH_BYTES_MAX + 8]; /* the slack lets it be hashed in 8-byte words */
	/* Where path and extra are put together behind the header. */
	char out[sizeof(struct record) + 2 * PATH_BYTES_MAX + NAME_BYTES_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_PER_CPU);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

#define EMPTY_SCRATCH_HEADER(s)                                                                    \
	do {                                                                                       \
		__builtin_memset(&(s)->record, 0, sizeof((s)->record));                            \
		(s)->path_start = (s)->path_bytes = (s)->extra_bytes = 0;                          \
	} while (0)

static __noinline struct scratch *scratch_get(void)
{
	for (u32 i = 0; i < SCRATCH_PER_CPU; i++) {
		u32 index = i;
		struct scratch *s = bpf_map_lookup_elem(&scratches, &index);

		if (s && !__sync_val_compare_and_swap(&s->busy, 0, 1)) {
			EMPTY_SCRATCH_HEADER(s);
			return s;
		}
	}
	return NULL;
}

static __always_inline void scratch_put(struct scratch *s)
{
	s->busy = 0;
}

/* ---- keeping the processor ---- */
extern void bpf_preempt_disable(void) __ksym __weak;                   /* since 6.10 */
extern void bpf_preempt_enable(void) __ksym __weak;                    /* since 6.10 */
extern void bpf_local_irq_save(unsigned long *flags) __ksym __weak;    /* since 6.14 */
extern void bpf_local_irq_restore(unsigned long *flags) __ksym __weak; /* since 6.14 */

static __always_inline void keep_processor(void)
{
	if (keeps_processor)
		bpf_preempt_disable();
}

/*
 * Whoever waits for the processor would get it within bpf_preempt_enable(), and the program
 * still counts as running. With interrupts off it gets it at the next occasion, which is behind
 * the program. A function of its own for the sake of the caller's stack.
 */
static __noinline int release_processor(void)
{
	unsigned long flags;

	if (!keeps_processor)
		return 0;
	bpf_local_irq_save(&flags);
	bpf_preempt_enable();
	bpf_local_irq_restore(&flags);
	return 0;
}

/*
 * The kernel skips a program that it has preempted on the same processor, whichever task would
 * run it: every event until that task goes on would be lost. So none is preempted at its work.
 */
#define UNDISTURBED(work)                                                                          \
	({                                                                                         \
		keep_processor();                                                                  \
		(void)(work);                                                                      \
		release_processor();                                                               \
		0; /* what every program returns */                                                \
	})

/* ---- looking into the kernel ---- */
extern void *bpf_rdonly_cast(const void *obj, u32 btf_id) __ksym __weak; /* since 6.2 */

/*
 * Direct loads where the kernel lets us cast a pointer, calls to probe_read elsewhere. The
 * verifier knows whether the function exists and drops the other branch.
 */
#define have_cast bpf_ksym_exists(bpf_rdonly_cast)
#define CAST(type, pointer)                                                                        \
	((type *)(have_cast ? bpf_rdonly_cast((void *)(pointer), bpf_core_type_id_kernel(type))    \
			    : (void *)(pointer)))
/* The pointer goes through a local: else an access to our own struct were relocated as well. */
#define GET(pointer, field)                                                                        \
	({                                                                                         \
		typeof(pointer) pointer_ = (pointer);                                              \
		typeof(pointer_->field) value_;                                                    \
		if (have_cast)                                                                     \
			value_ = pointer_->field;                                                  \
		else                                                                               \
			value_ = BPF_CORE_READ(pointer_, field);                                   \
		value_;                                                                            \
	})

/*
 * The verifier forbids to compute with a typed pointer, but the difference of two is a number:
 * one that changes when either does, or, where the other is none, the address itself.
 */
#define DISTANCE(a, b) ((u64)(a) - (u64)(b))
#define ADDRESS(pointer)                                                                            \
	(have_cast ? DISTANCE(pointer, bpf_rdonly_cast(NULL, bpf_core_type_id_kernel(struct file))) \
		   : (u64)(pointer))

/*
 * ---- looking into the program's memory ----
 *
 * A page that another thread writes to after a fork is copied, and between its old place and
 * its new one the page table has no entry for it; the same goes for a page that is moved. A
 * BPF program may not wait for it as the kernel does, so it tries again: the gap is a few
 * microseconds long. Memory that really is gone costs all the tries, about one microsecond each.
 */
#define USER_READ_TRIES 256

/* Again and again, until it succeeds: see above. */
#define TRY(outcome, read)                                                                         \
	for (u32 tries = 0; tries < USER_READ_TRIES && (outcome) < 0; tries++)                     \
	(outcome) = (read)

/* The small things in user memory. */
union user_memory {
	u64 number;
	struct user_msghdr_name message;
	struct sockaddr_any address;
};

/* Global, as is the next, so that its loop is verified once. */
__noinline int read_user(union user_memory *to, u64 from, u32 bytes)
{
	long outcome = -EFAULT;

	if (to && bytes <= sizeof(*to))
		TRY(outcome, bpf_probe_read_user(to, bytes, (void *)from));
	return outcome;
}

/* To s->extra, `at` bytes behind its beginning. Of a string, returns the length with its NUL. */
__noinline int read_user_extra(struct scratch *s, u32 at, u64 from, u32 bytes, bool is_string)
{
	long outcome = -EFAULT;
	void *to;

	if (!s || at > PATH_BYTES_MAX || bytes > PATH_BYTES_MAX || at + bytes > PATH_BYTES_MAX)
		return -EFAULT;
	to = s->extra + at;
	if (is_string)
		TRY(outcome, bpf_probe_read_user_str(to, bytes, (void *)from));
	else
		TRY(outcome, bpf_probe_read_user(to, bytes, (void *)from));
	return outcome;
}

static __always_inline u64 mix(u64 hash, u64 word)
{
	/* 2^64 / golden ratio: spreads low bits upwards. */
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

/* ---- losses ---- */
static __noinline int lose(u64 cgroup, u32 reason)
{
	struct loss_key key = { .cgroup = cgroup, .reason = reason };
	u64 *count = bpf_map_lookup_elem(&losses, &key), zero = 0;

	if (!count) {
		bpf_map_update_elem(&losses, &key, &zero, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&losses, &key);
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		__sync_fetch_and_add(&losses_unbooked, 1);
	return 0;
}

/* ---- the ring ---- */
static __always_inline u64 ring_flags(void)
{
	/* User space looks five times a second anyway: wake it only before the ring fills. */
	return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > ring_wakeup_bytes ? BPF_RB_FORCE_WAKEUP
									       : BPF_RB_NO_WAKEUP;
}

/* Sends s->record with path and extra; 0 or a negative error. */
static __noinline int send(struct scratch *s)
{
	u32 start, path_bytes, extra_bytes, total;

	if (!s)
		return -1;
	start = s->path_start;
	path_bytes = s->path_bytes;
	extra_bytes = s->extra_bytes;
	/* The bounds are always met; the verifier wants to see them. */
	if (start > PATH_BYTES_MAX || path_bytes > PATH_BYTES_MAX || extra_bytes > PATH_BYTES_MAX ||
	    start + path_bytes > PATH_BYTES_MAX)
		return -1;
	s->record.path_bytes = path_bytes;
	s->record.extra_bytes = extra_bytes;
	if (bpf_probe_read_kernel(s->out, sizeof(s->record), &s->record))
		return -1;
	if (path_bytes &&
	    bpf_probe_read_kernel(s->out + sizeof(s->record), path_bytes, s->path + start))
		return -1;
	if (extra_bytes &&
	    bpf_probe_read_kernel(s->out + sizeof(s->record) + path_bytes, extra_bytes, s->extra))
		return -1;
	total = sizeof(s->record) + path_bytes + extra_bytes;
	return bpf_ringbuf_output(&ring, s->out, total, ring_flags());
}
