//! Which programs are loaded, and onto which functions of this kernel.
//!
//! Two sets see the same behaviours: tracepoints, which every kernel has, and trampolines,
//! which disturb nothing but the calls that count and see io_uring. Which functions a kernel
//! has depends on its version, so each group of hooks says what is missed without it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{BufRead, BufReader},
};

use libbpf_rs::btf::{Btf, BtfKind, types};

use crate::{SensorError, calls, sensor::HookStatus};

/// Which set of hooks to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// Trampolines where they load and fire, tracepoints elsewhere.
    #[default]
    Auto,
    /// Tracepoints, whatever else there is.
    Tracepoint,
    /// Trampolines, or an error.
    Trampoline,
}

impl std::str::FromStr for HookChoice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "tracepoint" => Ok(Self::Tracepoint),
            "trampoline" => Ok(Self::Trampoline),
            _ => Err("auto, tracepoint or trampoline is needed".to_owned()),
        }
    }
}

/// A set of hooks that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookSet {
    /// `tp_btf/sys_exit` and other tracepoints.
    Tracepoint,
    /// `fexit` programs on the functions behind system calls and below them.
    Trampoline,
}

impl HookSet {
    /// The word for it in options, runs and `doctor`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Trampoline => "trampoline",
        }
    }
}

/// What a kernel has to attach to.
pub(crate) struct Symbols {
    /// Each with the number of its prototype.
    functions: HashMap<String, u32>,
    tracepoints: HashSet<String>,
    /// Whether `__seccomp_filter` says yes or no, instead of 0 or -1.
    seccomp_is_bool: bool,
    /// Whether programs of tracepoints can be preempted.
    preempts_tracepoints: bool,
}

impl Symbols {
    /// Reads the kernel's BTF and, for what is wanted of it, its list of symbols: a function
    /// that the compiler has rewritten stands in the one without being in the other.
    pub(crate) fn read() -> Result<Self, SensorError> {
        let btf = Btf::from_vmlinux().map_err(SensorError::bpf("read the kernel's BTF"))?;
        let mut symbols = Self {
            functions: HashMap::new(),
            tracepoints: HashSet::new(),
            seccomp_is_bool: false,
            preempts_tracepoints: false,
        };
        for id in 1..btf.len() {
            let Some(of) = btf.type_by_id::<libbpf_rs::btf::BtfType<'_>>(
                u32::try_from(id).unwrap_or(u32::MAX).into(),
            ) else {
                continue;
            };
            let Some(name) = of.name().and_then(|name| name.to_str()) else {
                continue;
            };
            match of.kind() {
                BtfKind::Func => {
                    let prototype = of.next_type().map_or(0, |of| of.type_id().into());
                    // Of namesakes libbpf takes the first.
                    let entry = symbols.functions.entry(name.to_owned());
                    entry.or_insert(prototype);
                }
                BtfKind::Typedef => {
                    if let Some(tracepoint) = name.strip_prefix("btf_trace_") {
                        symbols.tracepoints.insert(tracepoint.to_owned());
                    }
                }
                BtfKind::Var if name == PREEMPTED_TRACEPOINTS => {
                    symbols.preempts_tracepoints = true;
                }
                _ => {}
            }
        }
        symbols.seccomp_is_bool = btf
            .type_by_name::<types::Func<'_>>("__seccomp_filter")
            .and_then(|function| function.next_type())
            .and_then(|prototype| types::FuncProto::try_from(prototype).ok())
            .and_then(|prototype| prototype.next_type())
            .and_then(|returned| returned.name())
            .is_some_and(|name| name == "bool" || name == "_Bool");
        symbols.keep_linked();
        Ok(symbols)
    }

    /// Whether the programs can be loaded at all.
    pub(crate) fn check(&self) -> Result<(), SensorError> {
        // Since 5.17: the newest of the helpers that no program does without.
        if self.has("bpf_loop") {
            return Ok(());
        }
        Err(SensorError::TooOld {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            lack: "bpf_loop",
        })
    }

    /// Keeps the functions that are in `/proc/kallsyms` (lines of address, type, name).
    fn keep_linked(&mut self) {
        // Where it is hidden, e.g. by systemd, loading tells what is not there.
        let Ok(file) = std::fs::File::open("/proc/kallsyms") else {
            return;
        };
        let mut linked = HashMap::with_capacity(self.functions.len());
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            // Those of modules come last, with the module's name behind theirs.
            if let Some(name) = line.split(' ').nth(2)
                && let Some((function, prototype)) = self.functions.remove_entry(name)
            {
                linked.insert(function, prototype);
            }
        }
        if linked.is_empty() {
            return;
        }
        self.functions = linked;
    }

    fn has(&self, function: &str) -> bool {
        self.functions.contains_key(function)
    }
}

/// A program to load and attach.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Its name in the object.
    pub(crate) program: String,
    /// The function it is for, if its section does not say.
    pub(crate) target: Option<String>,
}

/// What to load.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) set: HookSet,
    pub(crate) programs: Vec<Planned>,
    /// Which hooks are then in use, and which are missing.
    pub(crate) hooks: Vec<HookStatus>,
    /// System calls whose own functions need not be watched, because of what is below them.
    pub(crate) seen_below: SeenBelow,
    pub(crate) seccomp_says_permitted: bool,
    /// Whether programs keep the processor while they work.
    pub(crate) keeps_processor: bool,
}

/// What is seen below the system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenBelow {
    /// Opens by name.
    pub(crate) opens: bool,
    /// Changes of names and attributes that succeed.
    pub(crate) names: bool,
    /// Connections that are accepted.
    pub(crate) accepts: bool,
}

/// In both sets.
const ALWAYS: &[(&str, &str)] = &[
    ("on_cgroup_mkdir", "tp_btf/cgroup_mkdir"),
    ("on_cgroup_rmdir", "tp_btf/cgroup_rmdir"),
    ("on_exec", "tp_btf/sched_process_exec"),
    ("on_sock_state", "tp_btf/inet_sock_set_state"),
];

/// Run once, not attached.
const ITERATORS: &[&str] = &["tasks_at_start", "files_at_start"];

/// Programs for changes of names, with the functions in their sections.
const NAMES: &[(&str, &str)] = &[
    ("permitted_unlink", "security_path_unlink"),
    ("permitted_rmdir", "security_path_rmdir"),
    ("permitted_mkdir", "security_path_mkdir"),
    ("permitted_symlink", "security_path_symlink"),
    ("permitted_link", "security_path_link"),
    ("permitted_rename", "security_path_rename"),
    ("changed_unlink", "vfs_unlink"),
    ("changed_rmdir", "vfs_rmdir"),
    ("changed_mkdir", "vfs_mkdir"),
    ("changed_symlink", "vfs_symlink"),
    ("changed_link", "vfs_link"),
    ("changed_rename", "vfs_rename"),
    ("on_chmod_common", "chmod_common"),
    ("on_chown_common", "chown_common"),
    ("on_vfs_truncate", "vfs_truncate"),
];

/// What opens a file by name: since 7.1 under the second name.
const OPENS: [&str; 2] = ["do_filp_open", "do_file_open"];

/// A function that came with 6.15, when programs that may not be preempted were first allowed
/// global functions. Trampolines can be preempted on any preemptible kernel.
const KEEPING_PROCESSOR_SINCE: &str = "bpf_res_spin_lock";

/// A variable of kernels (since 7.0) whose tracepoints can be preempted, too.
const PREEMPTED_TRACEPOINTS: &str = "tracepoint_srcu_srcu_data";

/// Families of programs for the functions behind system calls, one for each prototype:
/// `call_exit_a000`, ..., whose work `on_call_exit_a` does.
const FAMILIES: [&str; 2] = ["a", "b"];
/// Programs in a family.
const FAMILY_SIZE: usize = 200;

impl Plan {
    /// The tracepoints of this kernel.
    pub(crate) fn tracepoints(kernel: &Symbols) -> Self {
        let mut plan = Self::with(HookSet::Tracepoint, kernel);
        if kernel.preempts_tracepoints {
            plan.add("on_sys_exit_kept", "tp/raw_syscalls/sys_exit");
        } else {
            plan.add("on_sys_exit", "tp_btf/sys_exit");
        }
        plan.add_prepare_exec(kernel);
        plan.add_capable_tracepoint(kernel);
        plan
    }

    /// The trampolines of this kernel, with tracepoints where those are as good.
    pub(crate) fn trampolines(kernel: &Symbols) -> Result<Self, SensorError> {
        let mut plan = Self::with(HookSet::Trampoline, kernel);
        plan.add_opens(kernel);
        plan.add_names(kernel);
        plan.add_accepts(kernel);
        plan.add_calls(kernel)?;
        plan.add_seccomp(kernel);
        plan.add_socket_reads(kernel);
        if kernel.tracepoints.contains("sched_prepare_exec") || !kernel.has("begin_new_exec") {
            plan.add_prepare_exec(kernel);
        } else {
            plan.add("on_begin_new_exec", "fentry/begin_new_exec");
        }
        if kernel.has("cap_capable") {
            plan.add("on_cap_capable", "fexit/cap_capable");
        } else {
            plan.add_capable_tracepoint(kernel);
        }
        Ok(plan)
    }

    fn with(set: HookSet, kernel: &Symbols) -> Self {
        let mut plan = Self {
            set,
            programs: Vec::new(),
            hooks: Vec::new(),
            seen_below: SeenBelow::default(),
            seccomp_says_permitted: false,
            keeps_processor: kernel.has(KEEPING_PROCESSOR_SINCE)
                && (set == HookSet::Trampoline || kernel.preempts_tracepoints),
        };
        for &(program, hook) in ALWAYS {
            plan.add(program, hook);
        }
        for &program in ITERATORS {
            plan.load(program, None);
        }
        plan
    }

    fn load(&mut self, program: &str, target: Option<&str>) {
        self.programs.push(Planned {
            program: program.to_owned(),
            target: target.map(str::to_owned),
        });
    }

    fn attached(&mut self, hook: impl Into<String>) {
        self.hooks.push(HookStatus {
            hook: hook.into(),
            attached: true,
            note: String::new(),
        });
    }

    fn missing(&mut self, hook: &str, consequence: &str) {
        self.hooks.push(HookStatus {
            hook: hook.to_owned(),
            attached: false,
            note: consequence.to_owned(),
        });
    }

    /// A program whose section says where it belongs.
    fn add(&mut self, program: &str, hook: &str) {
        self.load(program, None);
        self.attached(hook);
    }

    fn add_prepare_exec(&mut self, kernel: &Symbols) {
        if kernel.tracepoints.contains("sched_prepare_exec") {
            self.add("on_prepare_exec", "tp_btf/sched_prepare_exec");
        } else {
            self.add("on_fork", "tp_btf/sched_process_fork");
        }
    }

    fn add_capable_tracepoint(&mut self, kernel: &Symbols) {
        const HOOK: &str = "tp_btf/cap_capable";
        if kernel.tracepoints.contains("cap_capable") {
            self.add("on_capable", HOOK);
        } else {
            self.missing(
                HOOK,
                "capability checks are not seen (kernel 6.14 has the tracepoint)",
            );
        }
    }

    fn add_opens(&mut self, kernel: &Symbols) {
        let Some(function) = OPENS.into_iter().find(|function| kernel.has(function)) else {
            self.missing(
                "fexit/do_filp_open",
                "opens by io_uring are not seen, those by system calls are",
            );
            return;
        };
        self.load("on_open", Some(function));
        self.attached(format!("fexit/{function}"));
        self.seen_below.opens = true;
    }

    fn add_names(&mut self, kernel: &Symbols) {
        if let Some((_, function)) = NAMES.iter().find(|(_, function)| !kernel.has(function)) {
            self.missing(
                &format!("fexit/{function}"),
                "files that io_uring makes, renames or removes are not seen, and those of system calls have the path that was asked for",
            );
            return;
        }
        for (program, function) in NAMES {
            self.add(program, &format!("fexit/{function}"));
        }
        self.seen_below.names = true;
    }

    fn add_accepts(&mut self, kernel: &Symbols) {
        const FUNCTION: &str = "security_sock_graft";
        let hook = format!("fexit/{FUNCTION}");
        if kernel.has(FUNCTION) {
            self.add("on_accepted", &hook);
            self.seen_below.accepts = true;
        } else {
            self.missing(
                &hook,
                "connections accepted by io_uring or by socketcall are not seen, nor the first of a server that waited already",
            );
        }
    }

    fn add_calls(&mut self, kernel: &Symbols) -> Result<(), SensorError> {
        let targets = calls::targets(self.seen_below, |function| kernel.has(function));
        let mut prototypes: BTreeMap<u32, Vec<&String>> = BTreeMap::new();
        for target in &targets {
            let prototype = kernel.functions.get(target).copied().unwrap_or(0);
            prototypes.entry(prototype).or_default().push(target);
        }
        let largest = prototypes.values().map(Vec::len).max().unwrap_or(0);
        if largest == 0 || largest > FAMILY_SIZE || prototypes.len() > FAMILIES.len() {
            return Err(SensorError::NoTrampolines(format!(
                "it has {} functions of system calls with {} prototypes, which is not as expected",
                targets.len(),
                prototypes.len()
            )));
        }
        for (family, targets) in FAMILIES.into_iter().zip(prototypes.into_values()) {
            // Whatever function it is for: it only gets control from the others.
            self.load(&format!("on_call_exit_{family}"), Some(targets[0]));
            for (index, function) in targets.into_iter().enumerate() {
                self.load(&format!("call_exit_{family}{index:03}"), Some(function));
            }
        }
        self.attached(format!("fexit/*_sys_* ({} functions)", targets.len()));
        Ok(())
    }

    fn add_socket_reads(&mut self, kernel: &Symbols) {
        const HOOK: &str = "fexit/sock_read_iter";
        if kernel.has("sock_read_iter") {
            self.add("on_socket_read", HOOK);
        } else {
            self.missing(
                HOOK,
                "names in answers of name servers that are received with read() are not seen",
            );
        }
    }

    fn add_seccomp(&mut self, kernel: &Symbols) {
        let function = if kernel.has("__secure_computing") {
            "__secure_computing"
        } else if kernel.has("__seccomp_filter") {
            self.seccomp_says_permitted = kernel.seccomp_is_bool;
            "__seccomp_filter"
        } else {
            self.missing(
                "fexit/__secure_computing",
                "system calls that a seccomp filter refuses are not seen",
            );
            return;
        };
        self.load("on_seccomp", Some(function));
        self.attached(format!("fexit/{function}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(functions: &[&str], tracepoints: &[&str]) -> Symbols {
        Symbols {
            functions: functions.iter().map(|f| ((*f).to_owned(), 1)).collect(),
            tracepoints: tracepoints.iter().map(|&t| t.to_owned()).collect(),
            seccomp_is_bool: false,
            preempts_tracepoints: false,
        }
    }

    fn native(call: &str) -> String {
        let prefix = if cfg!(target_arch = "x86_64") {
            "x64"
        } else {
            "arm64"
        };
        format!("__{prefix}_sys_{call}")
    }

    #[test]
    fn what_is_missing_below_is_watched_at_the_calls() {
        let (openat, bind) = (native("openat"), native("bind"));
        let plan = Plan::trampolines(&kernel(&[&openat, &bind], &[])).unwrap();
        assert_eq!(plan.seen_below, SeenBelow::default());
        let aimed = |plan: &Plan, at: &str| {
            let mut programs = plan.programs.iter();
            programs.any(|p| p.program.starts_with("call_exit_") && p.target.as_deref() == Some(at))
        };
        assert!(aimed(&plan, &openat) && aimed(&plan, &bind));
        for missing in ["fexit/do_filp_open", "fexit/__secure_computing"] {
            let said = plan.hooks.iter().find(|hook| hook.hook == missing).unwrap();
            assert!(!said.attached && !said.note.is_empty(), "{missing}");
        }
        let plan = Plan::trampolines(&kernel(&[&openat, &bind, "do_file_open"], &[])).unwrap();
        assert!(plan.seen_below.opens && !plan.seen_below.names);
        assert!(!aimed(&plan, &openat) && aimed(&plan, &bind));
    }

    #[test]
    fn where_tracepoints_are_preempted_calls_are_seen_through_perf() {
        let mut kernel = kernel(&[KEEPING_PROCESSOR_SINCE], &[]);
        for (preempts, program) in [(false, "on_sys_exit"), (true, "on_sys_exit_kept")] {
            kernel.preempts_tracepoints = preempts;
            let plan = Plan::tracepoints(&kernel);
            assert_eq!(plan.keeps_processor, preempts);
            let of_calls = |p: &&Planned| p.program.starts_with("on_sys_exit");
            let chosen: Vec<_> = plan.programs.iter().filter(of_calls).collect();
            assert!(matches!(chosen[..], [one] if one.program == program));
        }
    }

    #[test]
    fn a_kernel_without_functions_of_calls_is_refused() {
        assert!(Plan::trampolines(&kernel(&["do_filp_open"], &[])).is_err());
        assert!(kernel(&[], &[]).check().is_err());
    }
}
