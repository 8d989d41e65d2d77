/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Tracepoint hooks: what loads on every kernel with BTF, without BPF trampolines. The
 * outcome of a system call is known at sys_exit, where its arguments still are, so no
 * sys_enter is needed: half the price for every unrelated system call of the machine.
 * What a call means does not depend on the tracepoint: trampolines.h uses it as well.
 */
#pragma once
#include "dns.h"
#include "process.h"
#include "privilege.h"

/* How each system call is handled, by number; written before load. */
const volatile struct call_rule calls[SYSCALLS_MAX];
const volatile struct call_rule calls_compat[SYSCALLS_MAX]; /* 32-bit programs */

struct call {
	u64 args[8]; /* six in truth; a power of two can be masked for the verifier */
	s64 ret;
	struct call_rule rule;
};

static __always_inline bool is_compat(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return task->thread_info.status & TS_COMPAT;
#else
	return false;
#endif
}

static __always_inline long call_number(struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	return regs->orig_ax;
#elif defined(__TARGET_ARCH_arm64)
	return regs->syscallno;
#endif
}

static __always_inline void call_args(struct call *call, struct pt_regs *regs, bool compat)
{
#if defined(__TARGET_ARCH_x86)
	if (compat) {
		call->args[0] = (u32)regs->bx;
		call->args[1] = (u32)regs->cx;
		call->args[2] = (u32)regs->dx;
		call->args[3] = (u32)regs->si;
		call->args[4] = (u32)regs->di;
		call->args[5] = (u32)regs->bp;
		return;
	}
	call->args[0] = regs->di;
	call->args[1] = regs->si;
	call->args[2] = regs->dx;
	call->args[3] = regs->r10;
	call->args[4] = regs->r8;
	call->args[5] = regs->r9;
#elif defined(__TARGET_ARCH_arm64)
	call->args[0] = BPF_CORE_READ(regs, orig_x0);
	call->args[1] = regs->regs[1];
	call->args[2] = regs->regs[2];
	call->args[3] = regs->regs[3];
	call->args[4] = regs->regs[4];
	call->args[5] = regs->regs[5];
#endif
}

static __always_inline u64 call_arg(const struct call *call, u32 index)
{
	index &= 7;
	barrier_var(index); /* keeps the compiler from checking one copy and using another */
	return call->args[index];
}

static __always_inline bool is_denied(s64 ret)
{
	return ret == -EPERM || ret == -EACCES;
}

/* ---- files ---- */
static __always_inline void requested_path(struct actor *actor, const struct call *call, u8 kind,
					   u8 status, u16 access)
{
	struct requested what = {
		.kind = kind, .status = status, .access = access, .dirfd = AT_FDCWD, .user = true
	};

	switch (call->rule.style) {
	case PATH_0:
		what.string = (void *)call->args[0];
		break;
	case PATH_DIR_0:
		what.dirfd = call->args[0];
		what.string = (void *)call->args[1];
		break;
	case PATH_1:
		what.string = (void *)call->args[1];
		break;
	case PATH_DIR_1:
		what.dirfd = call->args[1];
		what.string = (void *)call->args[2];
		break;
	default:
		lose(actor->cgroup, LOSS_UNRESOLVED);
		return;
	}
	count_requested(actor, &what);
}

#define O_ACCMODE 3
#define O_CREAT 0100

/* The flags of an open; creat has none and its rule says what it asks for. */
static __always_inline u64 open_flags(const struct call *call)
{
	union user_memory how = {};
	u64 flags = 0;

	if (!call->rule.flags_arg)
		return 0;
	flags = call_arg(call, call->rule.flags_arg);
	if (!call->rule.empty_path_arg)
		return flags;
	/* openat2: they are in a struct in user memory. */
	return read_user(&how, flags, sizeof(flags)) ? 0 : how.number;
}

/* The access that flags of an open ask for. */
static __always_inline u16 access_by(u64 flags)
{
	u16 access = (flags & O_ACCMODE) == 1 ? ACCESS_WRITE : ACCESS_READ;

	if ((flags & O_ACCMODE) >= 2 || flags & O_TRUNC)
		access |= ACCESS_WRITE;
	if (flags & O_CREAT)
		access |= ACCESS_CREATE;
	return access;
}

static __always_inline u16 asked_access(const struct call *call, u64 flags)
{
	return call->rule.access ? call->rule.access : access_by(flags);
}

static __always_inline void opened(struct actor *actor, const struct call *call,
				   struct task_struct *task)
{
	u64 flags = open_flags(call);
	struct file *file;

	if (call->ret >= 0) {
		file = file_of(task, call->ret);
		/* The kernel forgets O_TRUNC once it is done, so the call's own flags tell. */
		if (file)
			count_file(actor, file,
				   opened_access(file) | (flags & O_TRUNC ? ACCESS_WRITE : 0), task);
		else /* another thread closed it in the meantime */
			requested_path(actor, call, KIND_FILE, STATUS_ALLOW,
				       asked_access(call, flags));
	} else if (is_denied(call->ret)) {
		requested_path(actor, call, KIND_FILE, STATUS_DENY, asked_access(call, flags));
	}
}

static __always_inline bool is_empty_string(const void *user)
{
	union user_memory first = {};

	return !read_user(&first, (u64)user, 1) && !first.number;
}

static __always_inline void changed_path(struct actor *actor, const struct call *call,
					 struct task_struct *task)
{
	u8 flags_arg = call->rule.empty_path_arg;

	if (call->ret ? !is_denied(call->ret) : call->rule.refusals_only)
		return;
	if (flags_arg && call_arg(call, flags_arg) & AT_EMPTY_PATH &&
	    is_empty_string((void *)call->args[1])) {
		struct file *file = file_of(task, call->args[0]);

		if (file && !call->ret)
			count_file(actor, file, call->rule.access, task);
		return;
	}
	requested_path(actor, call, KIND_FILE, call->ret ? STATUS_DENY : STATUS_ALLOW,
		       call->rule.access);
}

static __always_inline void changed_two_paths(struct actor *actor, const struct call *call)
{
	bool dirs = call->rule.style == PATH_DIR_0;
	struct requested what = {
		.kind = KIND_FILE,
		.status = call->ret ? STATUS_DENY : STATUS_ALLOW,
		.access = call->rule.access,
		.dirfd = dirs ? (int)call->args[0] : AT_FDCWD,
		.string = (void *)(dirs ? call->args[1] : call->args[0]),
		.user = true,
	};

	if (call->ret ? !is_denied(call->ret) : call->rule.refusals_only)
		return;
	count_requested(actor, &what);
	what.access = call->rule.access2;
	if (call->rule.flags_arg && call_arg(call, call->rule.flags_arg) & RENAME_EXCHANGE)
		what.access = call->rule.access;
	what.dirfd = dirs ? (int)call->args[2] : AT_FDCWD;
	what.string = (void *)(dirs ? call->args[3] : call->args[1]);
	count_requested(actor, &what);
}

/* ---- sockets ---- */
static __always_inline bool has_state_machine(u8 protocol)
{
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_TCP6;
}

static __always_inline void on_connect(struct actor *actor, const struct call *call,
				       struct task_struct *task)
{
	struct sock *sk = sock_of(task, call->args[0]);
	u8 protocol;

	if (!sk)
		return;
	protocol = sock_protocol(sk);
	if (call->ret == 0 || call->ret == -EINPROGRESS) {
		if (!has_state_machine(protocol))
			connected(actor, sk, protocol, task);
	} else if (is_denied(call->ret) || !has_state_machine(protocol)) {
		count_requested_end(actor, KIND_EGRESS, call->ret, protocol, (void *)call->args[1],
				    call->args[2], task);
	}
}

static __always_inline void on_accept(struct actor *actor, const struct call *call,
				      struct task_struct *task)
{
	struct sock *sk = call->ret >= 0 ? sock_of(task, call->ret) : NULL;

	if (sk)
		accepted(actor, sk, task);
	else if (call->ret >= 0)
		lose(actor->cgroup, LOSS_UNRESOLVED);
}

static __always_inline void on_bind(struct actor *actor, const struct call *call,
				    struct task_struct *task)
{
	struct sock *sk = sock_of(task, call->args[0]);

	if (!sk)
		return;
	if (!call->ret)
		bound(actor, sk, call->rule.access, task);
	else if (call->rule.op == CALL_BIND)
		count_requested_end(actor, KIND_BIND, call->ret, sock_protocol(sk),
				    (void *)call->args[1], call->args[2], task);
}

static __always_inline u8 datagram_kind(const struct call *call)
{
	return call->rule.op <= CALL_SENDMMSG ? KIND_EGRESS : KIND_INGRESS;
}

/* recvfrom, read: one buffer, which is argument 1. */
static __always_inline void on_answer(struct actor *actor, struct sock *sk, const struct call *call)
{
	answered(actor, sk, (void *)call->args[1], (u32)call->ret);
}

/*
 * Whether a call that was told no address, or has none, read from a name server. Asked
 * before anything else is known, because most calls read something else. A function of its
 * own for the sake of the caller's stack.
 */
static __noinline bool has_read_answer(const struct call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct sock *sk;

	if (call->ret <= 0 || (call->rule.op == CALL_RECVFROM && call->args[3] & MSG_PEEK))
		return false;
	sk = sock_of(task, call->args[0]);
	return sk && is_from_name_server(sk, NULL);
}

/* A call that has_read_answer(). */
static __always_inline void read_answer(struct actor *actor, const struct call *call,
					struct task_struct *task)
{
	struct sock *sk = sock_of(task, call->args[0]);

	if (sk)
		on_answer(actor, sk, call);
}

/* sendto, recvfrom: socket, -, -, -, address, its length (for recvfrom: where that stands). */
static __always_inline void on_datagram(struct actor *actor, const struct call *call,
					struct task_struct *task)
{
	void *address = (void *)call->args[4];
	union user_memory length = {};
	u32 bytes = call->args[5];
	struct sock *sk = NULL;

	if (call->rule.op == CALL_RECVFROM) {
		if (call->ret < 0)
			return;
		if (call->ret > 0 && !(call->args[3] & MSG_PEEK)) {
			sk = sock_of(task, call->args[0]);
			if (sk && is_from_name_server(sk, address))
				on_answer(actor, sk, call);
		}
		if (read_user(&length, call->args[5], sizeof(bytes))) {
			lose(actor->cgroup, LOSS_UNRESOLVED);
			return;
		}
		bytes = length.number;
	}
	if (!sk)
		sk = sock_of(task, call->args[0]);
	if (sk)
		datagram(actor, sk, datagram_kind(call), call->ret, address, bytes, task);
}

/* `bytes`: of this message; `flags`: of the call. */
static __always_inline void message(struct actor *actor, struct sock *sk, const struct call *call,
				    const void *header, s64 bytes, u64 flags,
				    struct task_struct *task)
{
	union user_memory read = {};

	if (!read_given(actor->cgroup, call->ret, &read, header, sizeof(read.message)))
		return;
	if (datagram_kind(call) == KIND_INGRESS && bytes > 0 && !(flags & MSG_PEEK) &&
	    is_from_name_server(sk, (void *)read.message.msg_name))
		answered(actor, sk, header, (u32)bytes | BY_MESSAGE);
	if (!read.message.msg_name)
		return;
	datagram(actor, sk, datagram_kind(call), call->ret, (void *)read.message.msg_name,
		 read.message.msg_namelen, task);
}

static __always_inline void on_message(struct actor *actor, const struct call *call,
				       struct task_struct *task)
{
	struct sock *sk;

	if (call->rule.op == CALL_RECVMSG && call->ret < 0)
		return;
	sk = sock_of(task, call->args[0]);
	if (sk)
		message(actor, sk, call, (void *)call->args[1], call->ret, call->args[2], task);
}

struct messages {
	struct actor *actor;
	const struct call *call;
	struct sock *sk;
};

/* A function of its own, so that what it reads into is not on the stack of what is called next. */
static __noinline u32 bytes_of_message(u64 header)
{
	union user_memory length = {};

	/* Unreadable is empty; message() reads the same page and says so. */
	read_user(&length, header + sizeof(struct user_msghdr), sizeof(u32));
	return length.number;
}

static long one_message(u32 index, struct messages *m)
{
	u64 header = m->call->args[1] + index * sizeof(struct user_mmsghdr);

	if (index >= m->call->ret)
		return 1;
	message(m->actor, m->sk, m->call, (void *)header, bytes_of_message(header),
		m->call->args[3], bpf_get_current_task_btf());
	return 0;
}

#define MESSAGES_MAX 1024 /* UIO_MAXIOV: the kernel sends no more in one call */

static __always_inline void on_messages(struct actor *actor, const struct call *call)
{
	struct messages m = { actor, call, sock_of(bpf_get_current_task_btf(), call->args[0]) };

	if (m.sk && call->ret > 0)
		bpf_loop(MESSAGES_MAX, one_message, &m, 0);
}

/* ---- dispatch: one function per family, so that each is verified by itself ---- */
static __noinline int call_on_file(struct actor *actor, struct call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *file;

	switch (call->rule.op) {
	case CALL_OPEN:
		opened(actor, call, task);
		break;
	case CALL_PATH:
		changed_path(actor, call, task);
		break;
	case CALL_TWO_PATHS:
		changed_two_paths(actor, call);
		break;
	case CALL_FD_ATTR:
		file = call->ret ? NULL : file_of(task, call->args[0]);
		if (file)
			count_file(actor, file, ACCESS_ATTR, task);
		break;
	case CALL_EXEC:
		requested_path(actor, call, KIND_PROCESS, STATUS_DENY, 0);
		break;
	}
	return 0;
}

static __noinline int call_on_socket(struct actor *actor, struct call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();

	switch (call->rule.op) {
	case CALL_READ:
		read_answer(actor, call, task);
		break;
	case CALL_CONNECT:
		on_connect(actor, call, task);
		break;
	case CALL_ACCEPT:
		on_accept(actor, call, task);
		break;
	case CALL_BIND:
	case CALL_LISTEN:
		on_bind(actor, call, task);
		break;
	case CALL_SENDTO:
	case CALL_RECVFROM:
		if (call->args[4])
			on_datagram(actor, call, task);
		else
			read_answer(actor, call, task);
		break;
	case CALL_SENDMSG:
	case CALL_RECVMSG:
		on_message(actor, call, task);
		break;
	}
	return 0;
}

static __noinline int call_is_sensitive(struct actor *actor, struct call *call)
{
	struct task_struct *task = bpf_get_current_task_btf();

	count_number_of(actor, KIND_SYSCALL, status_of(call->ret), call->rule.access, task);
	return 0;
}

/* How the task's call is handled. */
static __always_inline struct call_rule rule_of(long number, bool compat)
{
	if (number < 0 || number >= SYSCALLS_MAX)
		return (struct call_rule){};
	return compat ? ((struct call_rule *)calls_compat)[number]
		      : ((struct call_rule *)calls)[number];
}

/* Most calls of some kinds are none that count: told before anything else is looked at. */
static __always_inline bool may_count(const struct call *call)
{
	switch (call->rule.op) {
	case CALL_SENDTO:
		return call->args[4]; /* no address: a stream, or a connected socket */
	case CALL_RECVFROM:
		return call->args[4] || has_read_answer(call);
	case CALL_READ:
		return has_read_answer(call);
	case CALL_EXEC:
		return is_denied(call->ret);
	}
	return true;
}

static __always_inline int count_call(struct call *call)
{
	struct actor *actor = may_count(call) ? actor_of_current() : NULL;

	if (!actor)
		return 0;
	switch (call->rule.op) {
	case CALL_EXEC:
	case CALL_OPEN:
	case CALL_PATH:
	case CALL_TWO_PATHS:
	case CALL_FD_ATTR:
		return call_on_file(actor, call);
	case CALL_SENSITIVE:
		return call_is_sensitive(actor, call);
	case CALL_SENDMMSG:
	case CALL_RECVMMSG:
		on_messages(actor, call);
		return 0;
	}
	return call_on_socket(actor, call);
}

/* A system call has its outcome. `kept`: the processor is kept already. */
static __always_inline int call_exited(struct pt_regs *regs, long ret, bool kept)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool compat = is_compat(task);
	struct call_rule rule = rule_of(call_number(regs), compat);

	if (rule.op == CALL_IGNORE)
		return 0;

	struct call call = { .ret = ret, .rule = rule };

	call_args(&call, regs, compat);
	return kept ? count_call(&call) : UNDISTURBED(count_call(&call));
}

SEC("?tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long ret)
{
	return call_exited(regs, ret, true);
}

/*
 * The same through perf, which keeps the processor for its programs from the first instruction
 * to the last, where the kernel would preempt the one above. It costs more.
 */
SEC("?tp/raw_syscalls/sys_exit")
int on_sys_exit_kept(struct raw_sys_exit *ctx)
{
	return call_exited((void *)bpf_task_pt_regs(bpf_get_current_task_btf()), ctx->ret, true);
}

/* ---- processes ---- */

/* Before the old program is gone: makes sure the actor names it. Since 6.10. */
SEC("tp_btf/sched_prepare_exec")
int BPF_PROG(on_prepare_exec, struct task_struct *task)
{
	return UNDISTURBED(actor_of_current());
}

/* On kernels without it: whoever is made starts as what made it, known or not. */
static __always_inline int forked(struct task_struct *child)
{
	struct actor *actor = actor_of(bpf_get_current_task_btf()), *copy;

	if (!actor)
		return 0;
	copy = bpf_task_storage_get(&actors, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (copy)
		*copy = *actor;
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	return UNDISTURBED(forked(child));
}

static __always_inline int changed_program(struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct actor *old = bpf_task_storage_get(&actors, task, NULL, 0), *actor;
	u64 source = old ? old->exe : 0;

	actor = actor_of(task);
	if (!actor)
		return 0;
	if (!source) {
		/* Nothing was seen of the old program: take its parent's, which forked it. */
		struct task_struct *parent = BPF_CORE_READ(task, real_parent);

		source = exe_of(BPF_CORE_READ(parent, mm, exe_file), task, actor->cgroup);
	}
	executed(actor, source, bprm, task);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *p, int old_pid, struct linux_binprm *bprm)
{
	return UNDISTURBED(changed_program(bprm));
}

/* ---- TCP ---- */
static __always_inline int changed_state(struct sock *sk, int old_state, int new_state)
{
	u64 key = (u64)sk;

	if (new_state == TCP_SYN_SENT)
		connect_begins(sk, key);
	else
		connect_ends(key, new_state == TCP_CLOSE ? STATUS_FAILED : STATUS_ALLOW);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_sock_state, struct sock *sk, int old_state, int new_state)
{
	if (old_state != TCP_SYN_SENT && new_state != TCP_SYN_SENT)
		return 0;
	return UNDISTURBED(changed_state(sk, old_state, new_state));
}

/* ---- capabilities: this tracepoint is there since 6.14 ---- */
#define CAP_SYS_ADMIN 21

/*
 * The kernel asks for CAP_SYS_ADMIN whenever memory is mapped, to see whether the caller
 * may use the reserve, and never tells: such a probe is not a use.
 */
const volatile u8 probes_memory[SYSCALLS_MAX]; /* mmap, brk, mprotect, fork, exec, ... */

static __always_inline int asked_capability(const struct cred *cred, int cap, int ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct actor *actor;

	/* Overlayfs asks with the credentials of whoever mounted it, not of the caller. */
	if ((void *)cred != (void *)BPF_CORE_READ(task, real_cred))
		return 0;
	if (cap == CAP_SYS_ADMIN) {
		struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
#if defined(__TARGET_ARCH_x86)
		long number = BPF_CORE_READ(regs, orig_ax);
#else
		long number = BPF_CORE_READ(regs, syscallno);
#endif
		if (number < 0 || number >= SYSCALLS_MAX || probes_memory[number])
			return 0;
	}
	actor = actor_of(task);
	if (actor)
		count_number_of(actor, KIND_CAPABILITY, ret ? STATUS_DENY : STATUS_ALLOW, cap, task);
	return 0;
}

SEC("tp_btf/cap_capable")
int BPF_PROG(on_capable, const struct cred *cred, void *target_ns, void *capable_ns, int cap, int ret)
{
	return UNDISTURBED(asked_capability(cred, cap, ret));
}
