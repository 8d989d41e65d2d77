/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who acts: the container (by cgroup) and the executable of a task.
 */
#pragma once
#include "path.h"

#define CGROUP_ROOT_ID 1

/*
 * Id of the task's cgroup. Containers are told apart by the v2 hierarchy; where a task is
 * in its root (hosts that run containers in v1 hierarchies only), by the v1 memory or
 * pids hierarchy, whose ids count for themselves and therefore carry a tag.
 */
static __always_inline u64 cgroup_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	u64 id = BPF_CORE_READ(set, dfl_cgrp, kn, id);
	struct cgroup_subsys_state *css = NULL;
	void *slot;

	if (id != CGROUP_ROOT_ID || v1_controller < 0)
		return id;
	slot = (void *)set + bpf_core_field_offset(struct css_set, subsys) +
	       v1_controller * sizeof(css);
	if (bpf_probe_read_kernel(&css, sizeof(css), slot) || !css)
		return id;
	id = BPF_CORE_READ(css, cgroup, kn, id);
	return id == CGROUP_ROOT_ID ? id : id | (u64)v1_tag << 56;
}

static __always_inline bool is_watched(u64 cgroup, struct task_struct *task)
{
	u8 *policy = bpf_map_lookup_elem(&policies, &cgroup);

	if (BPF_CORE_READ(task, tgid) == agent_tgid || BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return false;
	return policy ? *policy == POLICY_TRACK : track_unknown;
}

static __always_inline u64 id_hash(const struct file_id *id)
{
	u64 hash = mix(mix(mix(mix(id->marks, id->mount), id->dentry), id->chain), id->inode);

	return hash ? hash : 1; /* 0 means none */
}

/* A memfd lives on the kernel's internal tmpfs: its dentry is no child of anything. */
static __always_inline bool is_memfd(struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);

	return dentry == BPF_CORE_READ(dentry, d_parent) &&
	       dentry != BPF_CORE_READ(file, f_path.mnt, mnt_root);
}

static __always_inline u16 executable_marks(struct file *file, u16 marks)
{
	if (is_memfd(file))
		return ACCESS_MEMFD; /* always deleted: not worth saying */
	if (is_upper(CAST(struct inode, BPF_CORE_READ(file, f_inode))))
		marks |= ACCESS_UPPER;
	return marks;
}

/* Identity of an executable; at first sight its path is sent. */
static __noinline u64 exe_of(struct file *file, struct task_struct *task, u64 cgroup)
{
	struct file_id id;
	struct scratch *s;
	u64 exe;
	u8 one = 1;

	if (!file)
		return 0;
	id = file_id_of(file, task);
	exe = id_hash(&id);
	if (bpf_map_lookup_elem(&executables, &exe))
		return exe;
	s = scratch_get();
	if (!s)
		return exe;
	s->record.type = RECORD_EXECUTABLE;
	s->record.key.exe = exe;
	s->record.key.cgroup = cgroup;
	s->record.time_ns = bpf_ktime_get_boot_ns();
	s->record.marks = executable_marks(file, id.marks);
	file_path_into(s, file, task);
	if (!send(s))
		bpf_map_update_elem(&executables, &exe, &one, BPF_ANY);
	scratch_put(s);
	return exe;
}

static __always_inline bool is_current(const struct actor *actor, struct task_struct *any_task)
{
	struct task_struct *task = CAST(struct task_struct, any_task);

	return actor->css_set == (void *)GET(task, cgroups) &&
	       actor->exec_id == GET(task, self_exec_id) &&
	       actor->policy_generation == policy_generation;
}

static __always_inline void actor_refresh(struct actor *actor, struct task_struct *task)
{
	u64 cgroup = cgroup_of(task);

	actor->css_set = BPF_CORE_READ(task, cgroups);
	actor->exec_id = BPF_CORE_READ(task, self_exec_id);
	actor->policy_generation = policy_generation;
	actor->cgroup = 0;
	if (!is_watched(cgroup, task))
		return;
	actor->cgroup = cgroup;
	actor->exe = exe_of(BPF_CORE_READ(task, mm, exe_file), task, cgroup);
	/* If the path could not be sent, the task's next event tries again. */
	if (actor->exe && !bpf_map_lookup_elem(&executables, &actor->exe))
		actor->css_set = NULL;
}

/* The watched actor of a task, or NULL. The cache is per thread and checks itself. */
static __always_inline struct actor *actor_of(struct task_struct *task)
{
	struct actor *actor =
		bpf_task_storage_get(&actors, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!actor) {
		u64 cgroup = cgroup_of(task);

		if (is_watched(cgroup, task))
			lose(cgroup, LOSS_TASK_STATE);
		return NULL;
	}
	if (!is_current(actor, task))
		actor_refresh(actor, task);
	return actor->cgroup ? actor : NULL;
}

static __noinline struct actor *actor_of_current(void)
{
	return actor_of(bpf_get_current_task_btf());
}
