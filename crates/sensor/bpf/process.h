/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Processes: which executable started which. */
#pragma once
#include "file.h"

/* Example arguments: the new program's own argv, as the kernel laid it out. */
static __always_inline void args_into(struct scratch *s, struct task_struct *task)
{
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	unsigned long bytes = BPF_CORE_READ(task, mm, arg_end) - start;

	if (bytes > ARGS_BYTES_MAX)
		bytes = ARGS_BYTES_MAX;
	if (!read_user_extra(s, 0, start, bytes, false))
		s->extra_bytes = bytes;
}

/* Counts source -> file. `parent`: the executable that called exec, or the script. */
static __always_inline void count_exec(u64 cgroup, u64 source, struct file *file, u16 marks,
				       struct task_struct *task)
{
	struct file_id id = file_id_of(file, task);
	u64 now = bpf_ktime_get_boot_ns();
	struct behaviour_key key = {
		.cgroup = cgroup,
		.exe = source,
		.kind = KIND_PROCESS,
		.access = executable_marks(file, id.marks) | marks,
		.id = { id.mount, id.dentry, id.chain, id.inode },
	};
	struct scratch *s;

	if (count_known(&key, now))
		return;
	s = scratch_get();
	if (!s) {
		lose(cgroup, LOSS_RING_FULL);
		return;
	}
	begin(s, &key, now, task);
	file_path_into(s, file, task);
	args_into(s, task);
	count_first(s);
	scratch_put(s);
}

/*
 * A script: the kernel has closed its file and runs the interpreter instead. Its path is the
 * one that was asked for, in the kernel's own copy. It stands between the two: caller ->
 * script, script -> interpreter. Returns the script's identity as an executable.
 */
static __noinline u64 count_script(struct scratch *s, struct actor *actor, u64 source,
				   const char *filename)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct vfsmount *mnt = BPF_CORE_READ(fs, pwd.mnt);
	struct dentry *dentry = BPF_CORE_READ(fs, pwd.dentry);
	u64 now = bpf_ktime_get_boot_ns(), script;
	struct behaviour_key key;
	u8 one = 1;

	if (!s || !actor)
		return 0;
	key_of(&key, actor, KIND_PROCESS, STATUS_ALLOW);
	key.exe = source;
	key.access = ACCESS_REQUESTED;
	key.id[3] = requested_into(s, filename, false);
	if (!key.id[3])
		return 0;
	if (s->extra[0] != '/') {
		key.id[1] = (u64)dentry;
		key.id[0] = mount_id(CAST(struct vfsmount, mnt));
		key.id[2] = chain_of(mnt, dentry, task);
		path_into(s, mnt, dentry, task);
	}
	script = mix(mix(mix(key.id[0], key.id[1]), key.id[2]), key.id[3]);
	begin(s, &key, now, task);
	if (!bpf_map_lookup_elem(&executables, &script)) {
		s->record.type = RECORD_EXECUTABLE;
		s->record.key.exe = script;
		s->record.marks = ACCESS_REQUESTED;
		if (!send(s))
			bpf_map_update_elem(&executables, &script, &one, BPF_ANY);
		s->record.key.exe = source;
		s->record.marks = 0;
	}
	if (!count_known(&key, now))
		count_first(s);
	return script;
}

/* A task runs a new program. `source`: the executable it ran before. */
static __always_inline void executed(struct actor *actor, u64 source, struct linux_binprm *bprm,
				     struct task_struct *task)
{
	const char *filename = BPF_CORE_READ(bprm, filename);
	struct file *file = BPF_CORE_READ(bprm, file);

	if (BPF_CORE_READ(bprm, interp) != filename) {
		struct scratch *s = scratch_get();

		if (s) {
			u64 script = count_script(s, actor, source, filename);

			source = script ? script : source;
			scratch_put(s);
		} else {
			lose(actor->cgroup, LOSS_RING_FULL);
		}
	}
	count_exec(actor->cgroup, source, file, 0, task);
}
