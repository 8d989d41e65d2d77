/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How an event is counted: known keys in their slots, new ones by a record. */
#pragma once
#include "folds.h"

static __always_inline u32 slot_take(void)
{
	u32 slot;

	/* Reading first keeps a full map from wrapping the cursor around. */
	if (slots_used < slots_max) {
		slot = __sync_fetch_and_add(&slots_used, 1);
		if (slot < slots_max)
			return slot;
	}
	if (!bpf_map_pop_elem(&free_slots, &slot))
		return slot;
	return NO_SLOT;
}

/* Whether the cgroup may take another slot. */
static __always_inline bool has_room(u64 cgroup)
{
	u64 *taken = bpf_map_lookup_elem(&slots_taken, &cgroup);
	u64 *given_back = bpf_map_lookup_elem(&slots_given_back, &cgroup);

	return !taken || *taken - (given_back ? *given_back : 0) < slots_per_cgroup_max;
}

static __always_inline void note_taken(u64 cgroup)
{
	u64 *taken = bpf_map_lookup_elem(&slots_taken, &cgroup), zero = 0;

	if (!taken) {
		bpf_map_update_elem(&slots_taken, &cgroup, &zero, BPF_NOEXIST);
		taken = bpf_map_lookup_elem(&slots_taken, &cgroup);
	}
	if (taken)
		__sync_fetch_and_add(taken, 1);
}

/* Whether the behaviour is known; then it is counted. */
static __always_inline bool count_known(const struct behaviour_key *key, u64 now)
{
	u32 *slot = bpf_map_lookup_elem(&behaviours, key);
	struct counter *counter;

	if (!slot)
		return false;
	counter = bpf_map_lookup_elem(&counters, slot);
	if (!counter)
		return false;
	if (!counter->count)
		counter->first_ns = now; /* two CPUs may both write: nanoseconds apart */
	counter->last_ns = now;          /* likewise */
	__sync_fetch_and_add(&counter->count, 1);
	return true;
}

/*
 * First sight of s->record.key, whose name is in s. The record is sent before the key is
 * inserted, so no key is ever without its name, and it counts this event itself, so
 * whatever happens to the insertion (map full, cgroup over its share, another CPU was
 * faster), the sum is right.
 */
static __noinline int count_first(struct scratch *s)
{
	u32 slot;

	if (!s)
		return 0;
	if (fold(s) && count_known(&s->record.key, s->record.time_ns))
		return 0;
	slot = has_room(s->record.key.cgroup) ? slot_take() : NO_SLOT;
	s->record.type = RECORD_BEHAVIOUR;
	s->record.slot = slot;
	if (send(s)) {
		lose(s->record.key.cgroup, LOSS_RING_FULL);
	} else if (slot == NO_SLOT) {
		return 0;
	} else if (!bpf_map_update_elem(&behaviours, &s->record.key, &slot, BPF_NOEXIST)) {
		note_taken(s->record.key.cgroup);
		return 0;
	}
	if (slot != NO_SLOT)
		bpf_map_push_elem(&free_slots, &slot, BPF_ANY); /* holds slots_max: cannot be full */
	return 0;
}

/* The record of s->record.key, which was built in place. */
static __always_inline void begin_here(struct scratch *s, u64 now, struct task_struct *task)
{
	s->record.time_ns = now;
	s->record.pid = BPF_CORE_READ(task, tgid);
}

static __always_inline void begin(struct scratch *s, const struct behaviour_key *key, u64 now,
				  struct task_struct *task)
{
	s->record.key = *key;
	begin_here(s, now, task);
}

/* Counts a behaviour whose key says it all: network, capability, system call. */
static __always_inline void count_plain(const struct behaviour_key *key, struct task_struct *task)
{
	u64 now = bpf_ktime_get_boot_ns();
	struct scratch *s;

	if (count_known(key, now))
		return;
	s = scratch_get();
	if (!s) {
		lose(key->cgroup, LOSS_RING_FULL);
		return;
	}
	begin(s, key, now, task);
	count_first(s);
	scratch_put(s);
}
