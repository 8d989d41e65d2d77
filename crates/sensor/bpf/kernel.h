/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few kernel types the programs look into. Layouts are not copied: every access is
 * relocated against the running kernel's BTF (CO-RE), so only names and types matter.
 * Written by hand instead of dumping a 130,000-line vmlinux.h: it can be reviewed, and
 * it is the same for every architecture but for pt_regs.
 */
#pragma once
#define __VMLINUX_H__ /* tells bpf_tracing.h to use kernel names of registers */

typedef signed char __s8;
typedef unsigned char __u8;
typedef short __s16;
typedef unsigned short __u16;
typedef int __s32;
typedef unsigned int __u32;
typedef long long __s64;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __s8 s8;
typedef __u8 u8;
typedef __s16 s16;
typedef __u16 u16;
typedef __s32 s32;
typedef __u32 u32;
typedef __s64 s64;
typedef __u64 u64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };
enum { BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1024 };
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_STACK = 23,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_TASK_STORAGE = 29,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* ---- files ---- */
struct hlist_bl_node {
	struct hlist_bl_node *next, **pprev;
};
struct qstr {
	union {
		struct {
			u32 hash, len;
		};
		u64 hash_len;
	};
	const unsigned char *name;
};
struct super_block {
	unsigned long s_magic;
};
struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
};
struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};
struct vfsmount {
	struct dentry *mnt_root;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	int mnt_id;
	u64 mnt_id_unique; /* since 6.8 */
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};
struct filename {
	const char *name;
};
struct open_flags {
	int open_flag;
};
struct renamedata {
	struct dentry *old_dentry;
	unsigned int flags;
};
struct fs_struct {
	struct path root, pwd;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
/* overlayfs: the inode a container sees; a file of the upper layer has an upper dentry. */
struct ovl_inode {
	struct inode vfs_inode;
	struct dentry *__upperdentry;
};

/* ---- tasks and cgroups ---- */
struct kernfs_node {
	u64 id;
};
struct cgroup_root {
	unsigned int subsys_mask;
	int hierarchy_id;
};
struct cgroup;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};
struct cgroup {
	struct cgroup_subsys_state self;
	int level;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
enum cgroup_subsys_id {
	memory_cgrp_id = 4,
	pids_cgrp_id = 11,
};
struct css_set {
	struct cgroup_subsys_state *subsys[14];
	struct cgroup *dfl_cgrp;
};
struct mm_struct {
	struct file *exe_file;
	unsigned long arg_start, arg_end;
};
struct thread_info {
	u32 status;
};
struct cred {
};
struct task_struct {
	struct thread_info thread_info;
	int pid, tgid;
	unsigned int flags;
	u32 self_exec_id;
	struct task_struct *real_parent, *group_leader;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	struct css_set *cgroups;
	const struct cred *cred, *real_cred;
};
struct linux_binprm {
	struct file *file;
	const char *filename, *interp;
};

/* ---- sockets ---- */
struct in6_addr {
	u8 s6_addr[16];
};
struct ns_common {
	unsigned int inum;
};
struct net {
	struct ns_common ns;
};
typedef struct {
	struct net *net;
} possible_net_t;
struct sock_common {
	__be32 skc_daddr, skc_rcv_saddr;
	__be16 skc_dport;
	u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};
struct sock {
	struct sock_common __sk_common;
	u8 sk_userlocks; /* a bit field before 6.3 */
	u16 sk_type, sk_protocol;
};
struct tcp_sock {
	u32 copied_seq; /* where in the stream the program reads next */
};
struct socket {
	struct sock *sk;
};
struct sockaddr_un {
	unsigned short sun_family;
	char sun_path[108];
};
struct unix_address {
	int len;
	struct sockaddr_un name[0];
};
struct unix_sock {
	struct unix_address *addr;
	struct path path;
	struct sock *peer;
};

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long bp, bx, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, sp;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	u64 regs[31], sp, pc, pstate;
};
struct pt_regs {
	u64 regs[31], sp, pc, pstate, orig_x0;
	s32 syscallno;
};
#endif

/* ---- iterators ---- */
struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
};
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

#pragma clang attribute pop

/* ---- what perf hands to a program: /sys/kernel/tracing/events/raw_syscalls/sys_exit/format ---- */
struct raw_sys_exit {
	u64 common;
	long id, ret;
};

/* ---- user-space layouts: fixed by the system call ABI, read from user memory ---- */
struct user_msghdr {
	u64 msg_name;
	s32 msg_namelen, pad;
	u64 msg_iov, msg_iovlen, msg_control, msg_controllen;
	u32 msg_flags, pad2;
};
/* What comes first in it. */
struct user_msghdr_name {
	u64 msg_name;
	s32 msg_namelen, pad;
};
/* What comes after that. */
struct user_buffers {
	u64 list, count;
};
struct user_iovec {
	u64 base, bytes;
};
struct user_mmsghdr {
	struct user_msghdr msg_hdr;
	u32 msg_len, pad;
};
struct sockaddr_any {
	u16 family;
	u8 data[26]; /* room for sockaddr_in6; unix names are read apart */
};

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFSOCK 0140000
#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_PATH 0x4000
#define FMODE_CREATED 0x100000
#define O_TRUNC 01000
#define AT_FDCWD -100
#define AT_EMPTY_PATH 0x1000
#define RENAME_EXCHANGE 2
#define PF_KTHREAD 0x00200000
#define TS_COMPAT 0x0002
#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define EPERM 1
#define EACCES 13
#define EFAULT 14
#define EINPROGRESS 115
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_VSOCK 40
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define SOCK_SEQPACKET 5
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_MPTCP 262
#define SOCK_BINDPORT_LOCK 8
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7
#define TCP_LISTEN 10
