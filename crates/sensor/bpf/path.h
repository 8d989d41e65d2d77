/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Identity and name of a file, from the kernel's own objects.
 *
 * Identity must be cheap, and must change whenever the path does: after a rename of any
 * parent, in another mount, under another root. It is a hash over the chain of dentries
 * up to the task's root, across mount points. A dentry's d_name.hash_len is salted with
 * its parent's address, so the fold over (address, hash_len) changes on any rename above,
 * and no invalidation hook is needed.
 */
#pragma once
#include "count.h"

struct file_id {
	u64 mount, dentry, chain, inode;
	u16 marks; /* enum access bits: deleted, memfd, upper */
};

/* Where a walk towards the root stands. */
struct walk {
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct dentry *root_dentry; /* the task's root: where paths begin for it */
	struct vfsmount *root_mnt;
	u64 hash;
	bool done;
};

#define STEPS_INLINE 24 /* nearly all paths; each step is a few instructions */
#define STEPS_MAX 2100  /* a path of PATH_BYTES_MAX has at most 2048 components, plus mounts */

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return CAST(struct mount, (void *)mnt - bpf_core_field_offset(struct mount, mnt));
}

static __always_inline u64 mount_id(struct vfsmount *mnt)
{
	struct mount *mount = mount_of(mnt);

	/* Before 6.8 ids are reused at once; with addresses a mix-up needs both to recur. */
	if (bpf_core_field_exists(mount->mnt_id_unique))
		return GET(mount, mnt_id_unique);
	return mix(DISTANCE(mnt, GET(mnt, mnt_root)), GET(mount, mnt_id));
}

/* One step up for the identity: into the parent directory, or out of a mount. */
static __always_inline void identity_step(struct walk *w)
{
	struct dentry *parent;

	if (w->dentry == w->root_dentry && w->mnt == w->root_mnt) {
		w->done = true;
		return;
	}
	parent = GET(w->dentry, d_parent);
	if (w->dentry == GET(w->mnt, mnt_root) || w->dentry == parent) {
		struct mount *mount = mount_of(w->mnt);
		struct mount *up = CAST(struct mount, GET(mount, mnt_parent));

		if (up == mount || w->dentry != GET(w->mnt, mnt_root)) {
			w->done = true; /* the top, or an object outside the tree (memfd, pipe) */
			return;
		}
		w->hash = mix(w->hash, mount_id(w->mnt));
		w->dentry = CAST(struct dentry, GET(mount, mnt_mountpoint));
		w->mnt = CAST(struct vfsmount, (void *)up + bpf_core_field_offset(struct mount, mnt));
		return;
	}
	w->hash = mix(w->hash, GET(w->dentry, d_name.hash_len));
	w->hash += DISTANCE(w->dentry, w->root_dentry);
	w->dentry = CAST(struct dentry, parent);
}

/*
 * The same by probe reads, for the rare deep path: pointers lose their type in a callback.
 * (Locals instead of w->... because the macros would relocate our own struct as well.)
 */
static long identity_step_deep(u32 index, struct walk *w)
{
	struct dentry *dentry = w->dentry, *parent = BPF_CORE_READ(dentry, d_parent), *mnt_root;
	struct vfsmount *mnt = w->mnt;

	if (dentry == w->root_dentry && mnt == w->root_mnt)
		return 1;
	mnt_root = BPF_CORE_READ(mnt, mnt_root);
	if (dentry == mnt_root || dentry == parent) {
		struct mount *mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
		struct mount *up = BPF_CORE_READ(mount, mnt_parent);

		if (up == mount || dentry != mnt_root)
			return 1;
		w->hash = mix(w->hash, bpf_core_field_exists(mount->mnt_id_unique)
					       ? BPF_CORE_READ(mount, mnt_id_unique)
					       : mix((u64)mnt, BPF_CORE_READ(mount, mnt_id)));
		w->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		w->mnt = (void *)up + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
	/* Salted with the parent's address. */
	w->hash = mix(w->hash, BPF_CORE_READ(dentry, d_name.hash_len));
	w->dentry = parent;
	return 0;
}

/* Hash of all that the path of (mnt, dentry) depends on, seen from a task's root. */
static __always_inline u64 chain_walk(struct vfsmount *mnt, struct dentry *dentry,
				      struct fs_struct *fs)
{
	struct walk w = {
		.dentry = dentry,
		.mnt = mnt,
		.root_dentry = CAST(struct dentry, GET(fs, root.dentry)),
		.root_mnt = CAST(struct vfsmount, GET(fs, root.mnt)),
	};
	int i = 0;

	/* Tested at the end: older kernels' verifier takes no loop that is entered in its middle. */
	do
		identity_step(&w);
	while (!w.done && ++i < STEPS_INLINE);
	if (!w.done) {
		struct walk rest = w;

		bpf_loop(STEPS_MAX, identity_step_deep, &rest, 0);
		w.hash = rest.hash;
	}
	w.hash = mix(w.hash, DISTANCE(w.root_dentry, GET(w.root_mnt, mnt_root)));
	return mix(w.hash, mount_id(w.root_mnt));
}

/*
 * The same by addresses. Not static: a global function is verified once, not once per
 * caller, but takes only numbers and plain memory.
 */
__noinline u64 chain_hash(u64 mnt, u64 dentry, u64 fs)
{
	return chain_walk(CAST(struct vfsmount, mnt), CAST(struct dentry, dentry),
			  CAST(struct fs_struct, fs));
}

static __always_inline u64 chain_of(struct vfsmount *mnt, struct dentry *dentry,
				    struct task_struct *task)
{
	return chain_hash((u64)mnt, (u64)dentry, (u64)BPF_CORE_READ(task, fs));
}

static __always_inline bool is_upper(struct inode *inode)
{
	struct super_block *sb = CAST(struct super_block, GET(inode, i_sb));
	struct ovl_inode *ovl;

	if (GET(sb, s_magic) != OVERLAYFS_SUPER_MAGIC ||
	    !bpf_core_field_exists(struct ovl_inode, __upperdentry))
		return false;
	ovl = (void *)inode - bpf_core_field_offset(struct ovl_inode, vfs_inode);
	return BPF_CORE_READ(ovl, __upperdentry) != NULL;
}

/* Identity of what is at (mnt, dentry), by the addresses of both and of a task's fs_struct. Global, as above. */
__noinline int path_identity(u64 mnt_address, u64 dentry_address, u64 fs_address, struct file_id *id)
{
	struct vfsmount *mnt = CAST(struct vfsmount, mnt_address);
	struct dentry *dentry = CAST(struct dentry, dentry_address);
	struct inode *inode = CAST(struct inode, GET(dentry, d_inode));
	struct dentry *mnt_root = GET(mnt, mnt_root);

	if (!id)
		return 0;
	id->mount = mount_id(mnt);
	id->dentry = DISTANCE(dentry, mnt_root);
	id->chain = chain_walk(mnt, dentry, CAST(struct fs_struct, fs_address));
	id->inode = GET(inode, i_ino);
	id->marks = !GET(dentry, d_hash.pprev) && dentry != mnt_root ? ACCESS_DELETED : 0;
	return 0;
}

/* Where a file is, by addresses. */
struct place {
	u64 mnt, dentry;
};

static __always_inline struct place place_of(struct file *any_file)
{
	struct file *file = CAST(struct file, any_file);

	return (struct place){ .mnt = ADDRESS(GET(file, f_path.mnt)),
			       .dentry = ADDRESS(GET(file, f_path.dentry)) };
}

static __always_inline struct file_id file_id_at(const struct place *place,
						 struct task_struct *any_task)
{
	struct task_struct *task = CAST(struct task_struct, any_task);
	struct file_id id = {};

	path_identity(place->mnt, place->dentry, ADDRESS(GET(task, fs)), &id);
	return id;
}

static __always_inline struct file_id file_id_of(struct file *file, struct task_struct *task)
{
	struct place place = place_of(file);

	return file_id_at(&place, task);
}

/* ---- names: only at first sight ---- */
struct name_walk {
	/* As in struct walk, without what a name does not need: the stack is short before 6.13. */
	struct dentry *dentry;
	struct vfsmount *mnt;
	struct dentry *root_dentry;
	struct vfsmount *root_mnt;
	struct scratch *s;
	u32 start; /* of what is written so far */
	bool cut;
};

static long name_step(u32 index, struct name_walk *n)
{
	struct dentry *dentry = n->dentry, *parent, *mnt_root;
	struct vfsmount *mnt = n->mnt;
	const unsigned char *name;
	u32 length, start;

	if (dentry == n->root_dentry && mnt == n->root_mnt)
		return 1;
	parent = BPF_CORE_READ(dentry, d_parent);
	mnt_root = BPF_CORE_READ(mnt, mnt_root);
	if (dentry == mnt_root) {
		struct mount *mount = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
		struct mount *up = BPF_CORE_READ(mount, mnt_parent);

		/*
		 * The top. A detached mount (runc runs itself from one) hangs nowhere, but what
		 * it shows has a name in its own file system.
		 */
		if (up == mount && dentry == parent)
			return 1;
		if (up == mount)
			goto named;
		n->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		n->mnt = (void *)up + bpf_core_field_offset(struct mount, mnt);
		return 0;
	}
named:
	length = BPF_CORE_READ(dentry, d_name.len) & (NAME_BYTES_MAX - 1);
	name = BPF_CORE_READ(dentry, d_name.name);
	if (dentry == parent) {
		char first = 0;

		/* The root of a file system is called "/"; a memfd or pipe has a name. */
		bpf_probe_read_kernel(&first, 1, name);
		if (first == '/')
			return 1;
	}
	start = n->start;
	if (start < length + 1) {
		n->cut = true;
		return 1;
	}
	start -= length + 1;
	barrier_var(start);
	start &= PATH_BYTES_MAX - 1; /* changes nothing: for the verifier */
	n->s->path[start] = '/';
	/* `path` is NAME_BYTES_MAX longer than any start, so this stays inside. */
	if (length && bpf_probe_read_kernel(&n->s->path[start + 1], length, name))
		return 1;
	n->start = start;
	n->dentry = parent;
	return dentry == parent; /* outside the tree: memfd:name, pipe: */
}

/* Writes the path of (mnt, dentry), as the task sees it, into s. */
static __noinline int path_into(struct scratch *s, void *mnt, void *dentry, struct task_struct *task)
{
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	struct name_walk n = {
		.dentry = dentry,
		.mnt = mnt,
		.root_dentry = BPF_CORE_READ(fs, root.dentry),
		.root_mnt = BPF_CORE_READ(fs, root.mnt),
		.s = s,
		.start = PATH_BYTES_MAX,
	};

	bpf_loop(STEPS_MAX, name_step, &n, 0);
	if (n.start == PATH_BYTES_MAX) {
		n.start--;
		s->path[PATH_BYTES_MAX - 1] = '/';
	}
	if (n.cut)
		s->record.marks |= ACCESS_CUT;
	s->path_start = n.start;
	s->path_bytes = PATH_BYTES_MAX - n.start;
	return 0;
}

static __always_inline void file_path_into(struct scratch *s, struct file *file,
					   struct task_struct *task)
{
	path_into(s, BPF_CORE_READ(file, f_path.mnt), BPF_CORE_READ(file, f_path.dentry), task);
}

/* The open file behind a descriptor of the task; NULL if there is none (any more). */
static __always_inline struct file *file_of(struct task_struct *any_task, int fd)
{
	struct task_struct *task = CAST(struct task_struct, any_task);
	struct files_struct *files = CAST(struct files_struct, GET(task, files));
	struct fdtable *fdt = CAST(struct fdtable, GET(files, fdt));
	struct file **table = GET(fdt, fd), *file = NULL;

	if (fd < 0 || (u32)fd >= GET(fdt, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), table + fd);
	return file;
}
