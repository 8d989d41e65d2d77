/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Privileges: capabilities and security-sensitive system calls. */
#pragma once
#include "network.h"

static __always_inline void count_number_of(const struct actor *actor, u8 kind, u8 status,
					    u64 number, struct task_struct *task)
{
	struct behaviour_key key;

	key_of(&key, actor, kind, status);
	key.id[0] = number;
	count_plain(&key, task);
}
