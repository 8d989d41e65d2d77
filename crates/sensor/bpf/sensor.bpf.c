/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kernel half of the sensor, one object so that all programs share their maps without
 * pinning. What a behaviour is stands in the file of its kind; by which hook it is seen in
 * tracepoints.h and trampolines.h; user space loads the programs it chose.
 */
#include "tracepoints.h"
#include "trampolines.h"
#include "cgroups.h"
#include "lookback.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
