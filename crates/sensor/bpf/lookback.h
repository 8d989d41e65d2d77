/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Look-back: what was there before the hooks. Iterators over tasks and their files, run
 * once after attaching; what they find is counted once, marked "at start".
 */
#pragma once
#include "privilege.h"

/* The actor of any task, without its cache: iterators may not create task storage for it. */
static __always_inline bool actor_at_start(struct actor *actor, struct task_struct *task)
{
	u64 cgroup = cgroup_of(task);
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);

	if (!exe || !is_watched(cgroup, task))
		return false;
	actor->cgroup = cgroup;
	actor->exe = exe_of(exe, task, cgroup);
	return true;
}

SEC("iter/task")
int tasks_at_start(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task, *parent;
	struct actor actor = {};
	struct file *exe;

	if (!task || BPF_CORE_READ(task, pid) != BPF_CORE_READ(task, tgid) ||
	    !actor_at_start(&actor, task))
		return 0;
	parent = BPF_CORE_READ(task, real_parent);
	exe = BPF_CORE_READ(parent, mm, exe_file);
	/* A kernel thread as the parent has no executable: the row's source stays empty. */
	count_exec(actor.cgroup, exe ? exe_of(exe, parent, actor.cgroup) : 0,
		   BPF_CORE_READ(task, mm, exe_file), ACCESS_AT_START, task);
	return 0;
}

static __always_inline void socket_at_start(const struct actor *actor, struct sock *sk,
					    struct task_struct *task)
{
	struct scratch *s = scratch_get();
	struct end remote = {}, local = {};
	u8 protocol = sock_protocol(sk);

	if (!s) {
		lose(actor->cgroup, LOSS_RING_FULL);
		return;
	}
	key_of(&s->record.key, actor, 0, STATUS_ALLOW);
	s->record.type = RECORD_SOCKET;
	s->record.time_ns = bpf_ktime_get_boot_ns();
	s->record.pid = BPF_CORE_READ(task, tgid);
	s->record.key.protocol = protocol;
	s->record.listening = BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN;
	if (protocol == PROTOCOL_UNIX) {
		struct unix_name own = unix_name_of(sk), theirs = {};
		struct sock *peer = BPF_CORE_READ((struct unix_sock *)sk, peer);
		u32 bytes;

		/* An accepted socket has its listener's name; a client is unnamed and its peer has one. */
		if (peer)
			theirs = unix_name_of(peer);
		s->record.explicit_port = own.string != NULL;
		if (!own.string)
			own = theirs;
		s->record.key.port = peer != NULL;
		bytes = own.string ? own.bytes : 0;
		if (bytes > UNIX_NAME_BYTES_MAX)
			bytes = UNIX_NAME_BYTES_MAX;
		if (bytes && !bpf_probe_read_kernel(s->extra, bytes, own.string))
			s->extra_bytes = bytes;
	} else if (is_inet(protocol)) {
		remote_end(&remote, sk);
		local_end(&local, sk);
		s->record.key.id[0] = remote.address[0];
		s->record.key.id[1] = remote.address[1];
		s->record.key.port = remote.port;
		s->record.local[0] = local.address[0];
		s->record.local[1] = local.address[1];
		s->record.explicit_port = has_explicit_port(sk);
		s->record.local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
		s->record.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	} else {
		s->record.key.id[0] = protocol == PROTOCOL_NETLINK
					      ? BPF_CORE_READ(sk, sk_protocol)
					      : BPF_CORE_READ(sk, __sk_common.skc_family);
	}
	if (send(s))
		lose(actor->cgroup, LOSS_RING_FULL);
	scratch_put(s);
}

SEC("iter/task_file")
int files_at_start(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct actor actor = {};
	u32 type;

	if (!task || !file || !actor_at_start(&actor, task))
		return 0;
	file = (void *)ADDRESS(file);
	type = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	if (type == S_IFSOCK) {
		struct socket *socket = BPF_CORE_READ(file, private_data);
		struct sock *sk = BPF_CORE_READ(socket, sk);

		if (sk)
			socket_at_start(&actor, sk, task);
	} else if (!is_memfd(file)) {
		/* Pipes and the like are no files anybody could name; a memfd is not either. */
		count_file(&actor, file, opened_access(file) | ACCESS_AT_START, task);
	}
	return 0;
}
