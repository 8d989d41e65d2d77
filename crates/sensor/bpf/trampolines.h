/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Hooks by BPF trampolines (fentry, fexit): each sits on one function of the kernel, so that
 * what is not watched costs nothing. Three layers:
 *
 * - The function behind each system call that counts. What a call means is the same as for
 *   the tracepoints, so the same code looks at it; only unrelated calls are not disturbed.
 * - Functions below the system calls, where the kernel has resolved the names, and where
 *   io_uring passes too: opens, and changes of names.
 * - The capability check itself, with the caller's word on whether it is to be audited.
 *
 * None is loaded unless user space says so: it gives each its function, whose name depends
 * on the architecture and the kernel's version.
 */
#pragma once
#include "tracepoints.h"

/* Set by the first run of a program: user space makes sure that the hooks really fire. */
u8 call_exit_fired;
u8 open_fired;

/*
 * ---- system calls: many tiny programs, and two that do the work ----
 *
 * A trampoline needs a program of its own, but the verifier should look at the work once. A
 * program may only go on into one for the same prototype: the functions behind system calls
 * have two, which differ in the name of their argument.
 */
struct call_exit_work {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u32));
};
struct call_exit_work work_a SEC(".maps");
struct call_exit_work work_b SEC(".maps");

/*
 * Kernels since 6.13 give a program a stack of its own on each processor, and let it not
 * preempt itself. They do not see that two programs may lead into the same work, one
 * preempting the other. A tail call, here one that goes nowhere, keeps them from it.
 */
#define NO_PRIVATE_STACK(work) bpf_tail_call(ctx, &(work), 1)

SEC("?fexit")
int BPF_PROG(on_call_exit_a, struct pt_regs *regs, long ret)
{
	call_exit_fired = 1;
	NO_PRIVATE_STACK(work_a);
	return call_exited(regs, ret, false);
}

SEC("?fexit")
int BPF_PROG(on_call_exit_b, struct pt_regs *regs, long ret)
{
	call_exit_fired = 1;
	NO_PRIVATE_STACK(work_b);
	return call_exited(regs, ret, false);
}

#define CALL_EXIT(family, number)                                                                  \
	SEC("?fexit")                                                                              \
	int call_exit_##family##number(void *ctx)                                                  \
	{                                                                                          \
		bpf_tail_call(ctx, &work_##family, 0);                                             \
		return 0;                                                                          \
	}
#define TEN_CALL_EXITS(family, tens)                                                               \
	CALL_EXIT(family, tens##0)                                                                 \
	CALL_EXIT(family, tens##1)                                                                 \
	CALL_EXIT(family, tens##2)                                                                 \
	CALL_EXIT(family, tens##3)                                                                 \
	CALL_EXIT(family, tens##4)                                                                 \
	CALL_EXIT(family, tens##5)                                                                 \
	CALL_EXIT(family, tens##6)                                                                 \
	CALL_EXIT(family, tens##7)                                                                 \
	CALL_EXIT(family, tens##8)                                                                 \
	CALL_EXIT(family, tens##9)
#define HUNDRED_CALL_EXITS(family, hundreds)                                                       \
	TEN_CALL_EXITS(family, hundreds##0)                                                        \
	TEN_CALL_EXITS(family, hundreds##1)                                                        \
	TEN_CALL_EXITS(family, hundreds##2)                                                        \
	TEN_CALL_EXITS(family, hundreds##3)                                                        \
	TEN_CALL_EXITS(family, hundreds##4)                                                        \
	TEN_CALL_EXITS(family, hundreds##5)                                                        \
	TEN_CALL_EXITS(family, hundreds##6)                                                        \
	TEN_CALL_EXITS(family, hundreds##7)                                                        \
	TEN_CALL_EXITS(family, hundreds##8)                                                        \
	TEN_CALL_EXITS(family, hundreds##9)
HUNDRED_CALL_EXITS(a, 0)
HUNDRED_CALL_EXITS(a, 1)
HUNDRED_CALL_EXITS(b, 0)
HUNDRED_CALL_EXITS(b, 1)

/* What a function of the kernel returned: an int, whose upper half says nothing, or a pointer. */
static __always_inline bool has_failed(u64 ret)
{
	u32 upper = ret >> 32;

	return (u32)ret > (u32)-4096 && (upper == 0 || upper == 0xffffffff);
}

static __always_inline u64 returned(void *ctx)
{
	u64 ret = 0;

	bpf_get_func_ret(ctx, &ret);
	return ret;
}

static __always_inline void *argument(void *ctx, u32 index)
{
	u64 value = 0;

	bpf_get_func_arg(ctx, index, &value);
	return (void *)value;
}

/*
 * A seccomp filter refused the system call or answered in its place: the call's own function
 * is never reached. Older kernels return -1 then, newer ones whether the call is permitted.
 */
const volatile bool seccomp_says_permitted;

SEC("?fexit")
int on_seccomp(void *ctx)
{
	u64 ret = returned(ctx);
	struct pt_regs *regs;
	long outcome;

	if (seccomp_says_permitted ? (ret & 0xff) : (int)ret != -1)
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
#if defined(__TARGET_ARCH_x86)
	outcome = BPF_CORE_READ(regs, ax);
#else
	outcome = BPF_CORE_READ(regs, regs[0]);
#endif
	if (outcome == call_number(regs)) /* a trap: the program's own handler answers */
		return 0;
	return call_exited(regs, outcome, false);
}

/*
 * read() from a socket, which may be a name server's answer. Here, and not behind the system
 * call, so that reads from files and pipes cost nothing.
 */
SEC("?fexit/sock_read_iter")
int on_socket_read(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	/* Others that end here, like readv() and io_uring, keep their buffers elsewhere. */
	if (rule_of(call_number(regs), is_compat(task)).op != CALL_READ)
		return 0;
	return call_exited(regs, returned(ctx), false);
}

/* ---- opens ---- */
#define FMODE_EXEC 0x20 /* the kernel opens a program to run it */

static __noinline int open_refused(struct actor *actor, int dfd, const char *name, u32 flags)
{
	struct requested what = {
		.kind = KIND_FILE,
		.status = STATUS_DENY,
		.access = access_by(flags),
		.dirfd = dfd,
		.string = name,
	};

	if (!actor)
		return 0;
	return count_requested(actor, &what);
}

static __always_inline int count_open(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct filename *name = argument(ctx, 1);
	struct open_flags *op = argument(ctx, 2);
	u32 flags = BPF_CORE_READ(op, open_flag);
	u64 file = returned(ctx);
	struct actor *actor;

	if (flags & FMODE_EXEC)
		return 0;
	actor = actor_of_current();
	if (!actor)
		return 0;
	if (has_failed(file))
		open_refused(actor, (int)(u64)argument(ctx, 0), BPF_CORE_READ(name, name), flags);
	else
		/* The kernel forgets O_TRUNC once it is done, so the open's own flags tell. */
		count_file(actor, (void *)file,
			   opened_access((void *)file) | (flags & O_TRUNC ? ACCESS_WRITE : 0), task);
	return 0;
}

/* do_filp_open(directory, name, flags), or do_file_open on newer kernels. */
SEC("?fexit")
int on_open(void *ctx)
{
	u64 file = returned(ctx);

	open_fired = 1;
	if (has_failed(file) && !is_denied((int)file))
		return 0;
	return UNDISTURBED(count_open(ctx));
}

/*
 * ---- names: permitted by security_path_*(), which knows the mount; done by vfs_*() ----
 *
 * mknod is not among them: it may end in vfs_create(), and binding a unix socket ends in
 * vfs_mknod(). Its system call tells all, and io_uring has none.
 */
struct named {
	void *mnt, *directory, *dentry;
	char name[NAME_BYTES_MAX];
};

/* A change of names that is permitted and not done yet. The kernel holds all it points to. */
struct change {
	struct named first, second; /* the second: rename's new name */
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* task storage demands it */
	__type(key, int);
	__type(value, struct change);
} changes SEC(".maps");

static __always_inline void name_into(struct named *named, void *path_address, void *dentry_address)
{
	struct dentry *dentry = dentry_address;
	struct path *path = path_address;

	named->mnt = BPF_CORE_READ(path, mnt);
	named->directory = BPF_CORE_READ(path, dentry);
	named->dentry = dentry;
	bpf_probe_read_kernel_str(named->name, sizeof(named->name),
				  BPF_CORE_READ(dentry, d_name.name));
}

static __noinline int permitted(void *directory, void *dentry, void *directory2, void *dentry2)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct actor *actor = actor_of_current();
	struct change *change;

	if (!actor)
		return 0;
	change = bpf_task_storage_get(&changes, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!change) {
		lose(actor->cgroup, LOSS_TASK_STATE);
		return 0;
	}
	name_into(&change->first, directory, dentry);
	if (directory2)
		name_into(&change->second, directory2, dentry2);
	return 0;
}

#define ON_PERMITTED(name, directory, dentry, directory2, dentry2)                                 \
	SEC("?fexit/security_path_" #name)                                                         \
	int permitted_##name(void *ctx)                                                            \
	{                                                                                          \
		if ((int)returned(ctx))                                                            \
			return 0;                                                                  \
		return UNDISTURBED(permitted(directory, dentry, directory2, dentry2));             \
	}
ON_PERMITTED(unlink, argument(ctx, 0), argument(ctx, 1), NULL, NULL)
ON_PERMITTED(rmdir, argument(ctx, 0), argument(ctx, 1), NULL, NULL)
ON_PERMITTED(mkdir, argument(ctx, 0), argument(ctx, 1), NULL, NULL)
ON_PERMITTED(symlink, argument(ctx, 0), argument(ctx, 1), NULL, NULL)
ON_PERMITTED(link, argument(ctx, 1), argument(ctx, 2), NULL, NULL)
ON_PERMITTED(rename, argument(ctx, 0), argument(ctx, 1), argument(ctx, 2), argument(ctx, 3))

/* The change that the task may make, if it is about this dentry: overlayfs calls vfs_*() for its layers too. */
static __always_inline struct change *change_of(void *dentry)
{
	struct change *change = bpf_task_storage_get(&changes, bpf_get_current_task_btf(), NULL, 0);

	return change && change->first.dentry == dentry ? change : NULL;
}

static __noinline int count_named(struct actor *actor, struct named *named, u32 access)
{
	struct requested what = { .kind = KIND_FILE, .access = access };

	if (!actor || !named)
		return 0;
	what.string = named->name;
	what.mnt = named->mnt;
	what.dentry = named->directory;
	return count_requested(actor, &what);
}

/* A change of one name is done. */
static __noinline int changed(void *dentry, u32 access)
{
	struct change *change = change_of(dentry);
	struct actor *actor;

	if (!change)
		return 0;
	change->first.dentry = NULL;
	actor = actor_of_current();
	if (actor)
		count_named(actor, &change->first, access);
	return 0;
}

#define ON_CHANGED(function, access)                                                               \
	SEC("?fexit/vfs_" #function)                                                               \
	int changed_##function(void *ctx)                                                          \
	{                                                                                          \
		if (has_failed(returned(ctx)))                                                     \
			return 0;                                                                  \
		return UNDISTURBED(changed(argument(ctx, 2), access));                             \
	}
ON_CHANGED(unlink, ACCESS_DELETE)
ON_CHANGED(rmdir, ACCESS_DELETE)
ON_CHANGED(mkdir, ACCESS_CREATE)
ON_CHANGED(symlink, ACCESS_CREATE)

/* Counts a use of what is at (mnt, dentry). */
static __noinline int count_at(struct actor *actor, void *mnt, void *dentry, u32 access)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file_id id = {};

	if (!actor)
		return 0;
	path_identity((u64)mnt, (u64)dentry, (u64)BPF_CORE_READ(task, fs), &id);
	count_path(actor, &id, mnt, dentry, access, task);
	return 0;
}

static __always_inline int linked(void *ctx)
{
	struct change *change = change_of(argument(ctx, 3));
	struct actor *actor;
	void *old;

	if (!change)
		return 0;
	change->first.dentry = NULL;
	actor = actor_of_current();
	if (!actor)
		return 0;
	old = argument(ctx, 0);
	/* The same mount: links do not cross mounts. */
	count_at(actor, change->first.mnt, old, ACCESS_ATTR);
	count_named(actor, &change->first, ACCESS_CREATE);
	return 0;
}

SEC("?fexit/vfs_link")
int changed_link(void *ctx)
{
	return has_failed(returned(ctx)) ? 0 : UNDISTURBED(linked(ctx));
}

static __always_inline int renamed(void *ctx)
{
	struct renamedata *data = argument(ctx, 0);
	struct change *change = change_of(BPF_CORE_READ(data, old_dentry));
	struct actor *actor;
	u32 new_access = ACCESS_RENAME;

	if (!change)
		return 0;
	change->first.dentry = NULL;
	actor = actor_of_current();
	if (!actor)
		return 0;
	if (!(BPF_CORE_READ(data, flags) & RENAME_EXCHANGE))
		new_access |= ACCESS_CREATE;
	count_named(actor, &change->first, ACCESS_RENAME);
	count_named(actor, &change->second, new_access);
	return 0;
}

SEC("?fexit/vfs_rename")
int changed_rename(void *ctx)
{
	return has_failed(returned(ctx)) ? 0 : UNDISTURBED(renamed(ctx));
}

/* ---- what a path leads to: attributes and length ---- */
static __noinline int attributed(void *path_address, u32 access)
{
	struct actor *actor = actor_of_current();
	struct path *path = path_address;

	if (actor)
		count_at(actor, BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), access);
	return 0;
}

#define ON_ATTRIBUTED(function, access)                                                            \
	SEC("?fexit/" #function)                                                                   \
	int on_##function(void *ctx)                                                               \
	{                                                                                          \
		if (has_failed(returned(ctx)))                                                     \
			return 0;                                                                  \
		return UNDISTURBED(attributed(argument(ctx, 0), access));                          \
	}
ON_ATTRIBUTED(chmod_common, ACCESS_ATTR)
ON_ATTRIBUTED(chown_common, ACCESS_ATTR)
ON_ATTRIBUTED(vfs_truncate, ACCESS_WRITE)

/*
 * ---- connections that come in ----
 *
 * Whoever accepts, by whatever call or by io_uring, also one who began to wait before the
 * watch did: the new connection is given its socket here, when it is there.
 */
static __always_inline int grafted(struct sock *sk)
{
	struct actor *actor = actor_of_current();

	if (actor)
		accepted(actor, sk, bpf_get_current_task_btf());
	return 0;
}

SEC("?fexit/security_sock_graft")
int on_accepted(void *ctx)
{
	return UNDISTURBED(grafted(argument(ctx, 0)));
}

/* ---- processes ---- */

/* Before the old program is gone, on kernels without sched_prepare_exec: makes sure the actor names it. */
SEC("?fentry/begin_new_exec")
int on_begin_new_exec(void *ctx)
{
	return UNDISTURBED(actor_of_current());
}

/* ---- capabilities ---- */
#define CAP_OPT_NOAUDIT 2 /* the kernel asks for itself: no use of the capability */

static __always_inline int used_capability(const struct cred *cred, int cap, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct actor *actor;

	/* Overlayfs asks with the credentials of whoever mounted it, not of the caller. */
	if (ADDRESS(cred) != (u64)BPF_CORE_READ(task, real_cred))
		return 0;
	actor = actor_of_current();
	if (actor)
		count_number_of(actor, KIND_CAPABILITY, ret ? STATUS_DENY : STATUS_ALLOW, cap, task);
	return 0;
}

SEC("?fexit/cap_capable")
int BPF_PROG(on_cap_capable, const struct cred *cred, void *namespace, int cap, unsigned int opts,
	     int ret)
{
	return opts & CAP_OPT_NOAUDIT ? 0 : UNDISTURBED(used_capability(cred, cap, ret));
}
