/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Cgroups that come and go, so that user space can name the containers behind them. */
#pragma once
#include "actor.h"

/* Id as in cgroup_of(), or 0 for a hierarchy that tells no containers apart. */
static __always_inline u64 hierarchy_id_of(struct cgroup *cgroup)
{
	u64 id = BPF_CORE_READ(cgroup, kn, id);

	if (BPF_CORE_READ(cgroup, root, hierarchy_id) == 0)
		return id;
	if (v1_controller >= 0 && BPF_CORE_READ(cgroup, root, subsys_mask) & 1u << v1_controller)
		return id | (u64)v1_tag << 56;
	return 0;
}

static __always_inline void tell(u64 id, u16 type, const char *path)
{
	struct scratch *s = scratch_get();
	long bytes;

	if (!s) {
		lose(id, LOSS_RING_FULL);
		return;
	}
	s->record.type = type;
	s->record.key.cgroup = id;
	s->record.time_ns = bpf_ktime_get_boot_ns();
	bytes = bpf_probe_read_kernel_str(s->extra, PATH_BYTES_MAX, path);
	if (bytes > 0)
		s->extra_bytes = bytes - 1;
	if (send(s))
		lose(id, LOSS_RING_FULL);
	scratch_put(s);
}

static __always_inline int cgroup_made(struct cgroup *cgroup, const char *path)
{
	/* The css is the cgroup's first member, so a css's address is its cgroup's. */
	struct cgroup *parent = (void *)BPF_CORE_READ(cgroup, self.parent);
	u64 id = hierarchy_id_of(cgroup), parent_id = parent ? hierarchy_id_of(parent) : 0;
	u8 *policy;

	if (!id)
		return 0;
	/* What is made inside a watched cgroup is watched, before anyone in user space knows. */
	policy = bpf_map_lookup_elem(&policies, &parent_id);
	if (policy && *policy == POLICY_TRACK) {
		u8 track = POLICY_TRACK;

		bpf_map_update_elem(&policies, &id, &track, BPF_ANY);
	}
	tell(id, RECORD_CGROUP_NEW, path);
	return 0;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir, struct cgroup *cgroup, const char *path)
{
	return UNDISTURBED(cgroup_made(cgroup, path));
}

static __always_inline int cgroup_removed(struct cgroup *cgroup, const char *path)
{
	u64 id = hierarchy_id_of(cgroup);

	if (id)
		tell(id, RECORD_CGROUP_GONE, path);
	return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir, struct cgroup *cgroup, const char *path)
{
	return UNDISTURBED(cgroup_removed(cgroup, path));
}
