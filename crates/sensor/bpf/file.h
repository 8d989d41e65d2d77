/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Files: what was opened, changed, removed, and what was refused. */
#pragma once
#include "actor.h"

static __always_inline void key_of(struct behaviour_key *key, const struct actor *actor, u8 kind,
				   u8 status)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->cgroup = actor->cgroup;
	key->exe = actor->exe;
	key->kind = kind;
	key->status = status;
}

/* Counts a use of the file at (mnt, dentry), which is known by `id`. */
static __always_inline void count_path(const struct actor *actor, const struct file_id *what,
				       void *mnt, void *dentry, u16 access, struct task_struct *task)
{
	struct file_id id = *what;
	u64 now = bpf_ktime_get_boot_ns();
	struct behaviour_key key;
	struct scratch *s;

	key_of(&key, actor, KIND_FILE, STATUS_ALLOW);
	key.access = access | id.marks;
	key.id[0] = id.mount;
	key.id[1] = id.dentry;
	key.id[2] = id.chain;
	key.id[3] = id.inode;
	if (count_known(&key, now))
		return;
	s = scratch_get();
	if (!s) {
		lose(key.cgroup, LOSS_RING_FULL);
		return;
	}
	begin(s, &key, now, task);
	path_into(s, mnt, dentry, task);
	count_first(s);
	scratch_put(s);
}

/* Counts a use of a file the kernel holds open. */
static __always_inline void count_file(const struct actor *actor, struct file *file, u16 access,
				       struct task_struct *task)
{
	struct place place = place_of(file);
	struct file_id id = file_id_at(&place, task);

	count_path(actor, &id, (void *)place.mnt, (void *)place.dentry, access, task);
}

static __always_inline u16 opened_access(struct file *any_file)
{
	struct file *file = CAST(struct file, any_file);
	u32 mode = GET(file, f_mode);
	u16 access = 0;

	if (mode & FMODE_PATH)
		return 0;
	if (mode & FMODE_READ)
		access |= ACCESS_READ;
	if (mode & FMODE_WRITE)
		access |= ACCESS_WRITE;
	if (mode & FMODE_CREATED)
		access |= ACCESS_CREATE;
	return access;
}

/* ---- paths as requested: where no kernel object is left to ask ---- */

/* Hash of s->extra. Global, so that its long loop is verified once. */
__noinline u64 extra_hash(struct scratch *s)
{
	u64 hash = 0, *words;

	if (!s)
		return 0;
	words = (u64 *)s->extra;
	for (u32 i = 0; i < PATH_BYTES_MAX / 8; i++) {
		if (i * 8 >= s->extra_bytes)
			break;
		hash = mix(hash, words[i]);
	}
	return mix(hash, s->extra_bytes);
}

/* Reads the string and returns its hash; 0 if it cannot be read. */
static __always_inline u64 requested_into(struct scratch *s, const void *string, bool user)
{
	long bytes = user ? read_user_extra(s, 0, (u64)string, PATH_BYTES_MAX, true)
			  : bpf_probe_read_kernel_str(s->extra, PATH_BYTES_MAX, string);

	if (bytes <= 0 || bytes > PATH_BYTES_MAX)
		return 0;
	s->extra_bytes = bytes - 1;
	/* Clear what an earlier, longer string left behind the end of this one's last word. */
	*(u64 *)(s->extra + (bytes & (2 * PATH_BYTES_MAX - 1))) = 0;
	return extra_hash(s);
}

/* Where a relative path starts: the working directory or an open directory. */
static __always_inline void base_of(struct task_struct *task, int dirfd, struct vfsmount **mnt,
				    struct dentry **dentry)
{
	struct file *file;

	if (dirfd == AT_FDCWD) {
		struct fs_struct *fs = BPF_CORE_READ(task, fs);

		*mnt = BPF_CORE_READ(fs, pwd.mnt);
		*dentry = BPF_CORE_READ(fs, pwd.dentry);
		return;
	}
	file = file_of(task, dirfd);
	*mnt = file ? BPF_CORE_READ(file, f_path.mnt) : NULL;
	*dentry = file ? BPF_CORE_READ(file, f_path.dentry) : NULL;
}

/* A path by its text, with what it is relative to. `kind`: file, or process for a refused exec. */
struct requested {
	u8 kind, status;
	u16 access;
	int dirfd;
	const void *string;
	bool user; /* the string is in user memory */
	/* The directory, where the kernel has resolved it: then the string is a name in it. */
	void *mnt, *dentry;
};

static __noinline int count_requested(struct actor *actor, struct requested *what)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 now = bpf_ktime_get_boot_ns();
	struct dentry *dentry = NULL;
	struct vfsmount *mnt = NULL;
	struct behaviour_key *key;
	struct scratch *s;

	if (!actor || !what)
		return 0;
	s = scratch_get();
	if (!s) {
		lose(actor->cgroup, LOSS_RING_FULL);
		return 0;
	}
	key = &s->record.key; /* in place: the stack is short on kernels before 6.13 */
	key_of(key, actor, what->kind, what->status);
	key->access = what->access | (what->mnt ? 0 : ACCESS_REQUESTED);
	key->id[3] = requested_into(s, what->string, what->user);
	if (!key->id[3])
		goto lost;
	if (s->extra[0] != '/') {
		mnt = what->mnt;
		dentry = what->dentry;
		if (!mnt)
			base_of(task, what->dirfd, &mnt, &dentry);
		if (!mnt)
			goto lost;
		key->id[1] = (u64)dentry;
		key->id[0] = mount_id(CAST(struct vfsmount, mnt));
		key->id[2] = chain_of(mnt, dentry, task);
	}
	if (!count_known(key, now)) {
		begin_here(s, now, task);
		if (mnt)
			path_into(s, mnt, dentry, task);
		count_first(s);
	}
	scratch_put(s);
	return 0;
lost:
	lose(actor->cgroup, LOSS_UNRESOLVED);
	scratch_put(s);
	return 0;
}
