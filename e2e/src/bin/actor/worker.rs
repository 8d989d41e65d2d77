//! A worker process, and what a thread of it has at hand.

use crate::{
    layout::{Layout, Plan, shown},
    net::Sockets,
    ops::Mix,
    place::{Dir, Place},
    rng::Rng,
    sys,
};
use anyhow::{Context, Result, anyhow, ensure};
use ethogram_e2e::truth::Ledger;
use ethogram_model::{Access, Behaviour, Kind, Name, Status};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

/// The user that may do nothing here.
const NOBODY: u32 = 65534;

/// A forked child holds every descriptor of its process until it calls exec, so that the
/// name of a socket is not free again when its owner closes it. Whoever forks holds this
/// for writing, whoever wants a name back holds it for reading.
static FORKS: RwLock<()> = RwLock::new(());

/// Keeps other threads from binding names while a child has this process's descriptors.
pub(crate) fn forking() -> RwLockWriteGuard<'static, ()> {
    FORKS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps other threads from forking while a name is bound for a moment.
pub(crate) fn binding() -> RwLockReadGuard<'static, ()> {
    FORKS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Performs one worker's part of the plan and prints its ledger.
pub(crate) fn run(plan: &str, worker: &str) -> Result<()> {
    let plan: Arc<Plan> = Arc::new(serde_json::from_str(plan).context("the plan")?);
    let worker: usize = worker.parse().context("the worker's number")?;
    let threads: Vec<_> = (0..plan.threads)
        .map(|thread| {
            let plan = Arc::clone(&plan);
            thread::spawn(move || Worker::new(plan, worker, thread)?.perform())
        })
        .collect();
    let mut all = Ledger::default();
    for thread in threads {
        all.merge(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
    }
    all.write(&mut io::BufWriter::new(io::stdout().lock()))?;
    Ok(())
}

/// One thread: its files and sockets, and its account of what it did.
pub(crate) struct Worker {
    pub(crate) plan: Arc<Plan>,
    pub(crate) rng: Rng,
    /// Its number among all threads of all workers.
    pub(crate) number: usize,
    operations: u64,
    /// The executable.
    me: Name,
    ledger: Ledger,
    pub(crate) own: Rc<Dir>,
    /// Directories it has opened, any of which may be opened again.
    pub(crate) dirs: Vec<PathBuf>,
    /// Files of its own that are always there.
    pub(crate) files: Vec<Rc<Place>>,
    /// Names of its own that are free.
    pub(crate) free: Vec<Rc<Place>>,
    /// Files of everyone that are always there.
    pub(crate) shared: Vec<Rc<Place>>,
    /// Files that [`NOBODY`] may not touch.
    pub(crate) secrets: Vec<Rc<Place>>,
    pub(crate) sockets: Sockets,
    /// The network namespace it is in.
    pub(crate) network: OwnedFd,
}

impl Worker {
    fn new(plan: Arc<Plan>, worker: usize, thread: usize) -> Result<Self> {
        let layout = plan.layout.clone();
        let number = worker * plan.threads + thread;
        let of_all = (plan.threads * plan.processes) as u64;
        let extra = u64::from((number as u64) < plan.operations % of_all);
        let mut ledger = Ledger::default();
        let me = shown(&layout.worker(worker));
        let mut hold = |path: PathBuf, relative: Option<PathBuf>| {
            let fd = sys::openat(
                libc::AT_FDCWD,
                &crate::layout::c_path(&path),
                libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
                0,
            )?;
            let mut row = Behaviour::new(Kind::File, me.clone(), shown(&path));
            row.access = Access::READ;
            ledger.add(row, 1);
            anyhow::Ok(Rc::new(Dir { fd, path, relative }))
        };
        let relative = PathBuf::from(format!("t{thread}"));
        let own = hold(layout.thread_dir(worker, thread), Some(relative))?;
        let shared = hold(layout.shared(), Some("../shared".into()))?;
        let deep = hold(layout.deep(), None)?;
        let place = |dir, leaf: &[u8]| Rc::new(Place::new(dir, leaf));
        let mut free: Vec<_> = names::FREE.iter().map(|leaf| place(&own, leaf)).collect();
        free.push(place(&deep, format!("new-{number}").as_bytes()));
        let mut shared_files: Vec<_> = names::shared().iter().map(|l| place(&shared, l)).collect();
        shared_files.push(place(&deep, names::DEEP));
        Ok(Self {
            rng: Rng::new(plan.seed, worker, thread),
            number,
            operations: plan.operations / of_all + extra,
            files: names::own().iter().map(|leaf| place(&own, leaf)).collect(),
            free,
            shared: shared_files,
            secrets: vec![place(&own, names::SECRET), place(&deep, names::SECRET)],
            dirs: vec![own.path.clone(), shared.path.clone(), deep.path.clone()],
            own,
            sockets: Sockets::new(number)?,
            network: sys::openat(
                libc::AT_FDCWD,
                c"/proc/thread-self/ns/net",
                libc::O_CLOEXEC,
                0,
            )?,
            plan,
            me,
            ledger,
        })
    }

    fn perform(mut self) -> Result<Ledger> {
        let mix = Mix::new(&self.plan)?;
        for turn in 0..self.operations {
            let op = mix.draw(turn, &mut self.rng);
            (op.run)(&mut self).with_context(|| {
                format!("thread {}, operation {turn}: {}", self.number, op.name)
            })?;
        }
        Ok(self.ledger)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.plan.layout
    }

    /// Records one behaviour of this executable.
    pub(crate) fn did(&mut self, kind: Kind, target: Name, with: impl FnOnce(&mut Behaviour)) {
        self.other_did(self.me.clone(), kind, target, with);
    }

    /// Records one behaviour of an executable that this thread started.
    pub(crate) fn other_did(
        &mut self,
        source: Name,
        kind: Kind,
        target: Name,
        with: impl FnOnce(&mut Behaviour),
    ) {
        let mut behaviour = Behaviour::new(kind, source, target);
        with(&mut behaviour);
        self.ledger.add(behaviour, 1);
    }

    /// Records one use of a file.
    pub(crate) fn used(&mut self, place: &Place, access: Access) {
        self.did(Kind::File, place.name.clone(), |row| row.access = access);
    }

    /// Records one refused use of a file.
    pub(crate) fn was_denied(&mut self, place: &Place, access: Access) {
        self.did(Kind::File, place.name.clone(), |row| {
            row.access = access;
            row.status = Status::Deny;
        });
    }

    /// Records a sensitive system call with the outcome it had.
    pub(crate) fn called(&mut self, name: &str, result: &io::Result<()>) {
        let status = match result {
            Ok(()) => Status::Allow,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Status::Deny,
            Err(_) => Status::Failed,
        };
        self.did(Kind::Syscall, name.into(), |row| row.status = status);
    }

    /// Runs something with the rights of nobody, and takes root's back.
    pub(crate) fn as_nobody(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.become_user(NOBODY)?;
        act(self)?;
        self.become_user(0)
    }

    fn become_user(&mut self, user: u32) -> Result<()> {
        let result = sys::setresuid(sys::KEEP, user, sys::KEEP);
        self.called("setresuid", &result);
        Ok(result?)
    }

    /// A place of its own that is not in any list.
    pub(crate) fn own_place(&self, leaf: &[u8]) -> Place {
        Place::new(&self.own, leaf)
    }

    /// One of its own files.
    pub(crate) fn file(&mut self) -> Rc<Place> {
        Rc::clone(self.rng.pick(&self.files))
    }

    /// One of everyone's files.
    pub(crate) fn shared_file(&mut self) -> Rc<Place> {
        Rc::clone(self.rng.pick(&self.shared))
    }

    /// One of its free names.
    pub(crate) fn free_name(&mut self) -> Rc<Place> {
        Rc::clone(self.rng.pick(&self.free))
    }

    /// One of the files that nobody may touch.
    pub(crate) fn secret(&mut self) -> Rc<Place> {
        Rc::clone(self.rng.pick(&self.secrets))
    }
}

/// Fails unless the call was refused for lack of rights.
pub(crate) fn must_be_denied<T>(result: io::Result<T>) -> Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(e) => Err(anyhow!(e).context("this should have been refused for lack of rights")),
        Ok(_) => Err(anyhow!("this should have been refused, and succeeded")),
    }
}

/// Fails unless the call failed with this error number.
pub(crate) fn must_fail<T>(result: io::Result<T>, errno: i32) -> Result<()> {
    let wanted = io::Error::from_raw_os_error(errno);
    match result {
        Err(e) if e.raw_os_error() == Some(errno) => Ok(()),
        Err(e) => Err(anyhow!(e).context(format!("this should have failed with: {wanted}"))),
        Ok(_) => Err(anyhow!("this should have failed with: {wanted}")),
    }
}

/// Makes the files that workers find: see [`names`].
pub(crate) fn build(plan: &Plan, actor: &Path) -> Result<()> {
    use std::{
        fs,
        os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink, net::UnixListener},
    };
    let layout = &plan.layout;
    let at = |dir: &Path, leaf: &[u8]| dir.join(std::ffi::OsStr::from_bytes(leaf));
    let secret = |dir: &Path| -> Result<()> {
        let path = at(dir, names::SECRET);
        fs::write(&path, "secret\n")?;
        Ok(fs::set_permissions(
            &path,
            fs::Permissions::from_mode(0o600),
        )?)
    };

    ensure!(
        fs::read_dir(layout.dir())?.next().is_none(),
        "{} is not empty",
        layout.dir().display()
    );
    fs::create_dir(layout.bin())?;
    for worker in 0..plan.processes {
        fs::copy(actor, layout.worker(worker))?;
    }
    let tools = layout.tools();
    fs::copy(actor, &tools[0])?;
    fs::hard_link(&tools[0], &tools[1])?;
    for tool in &tools[2..] {
        fs::copy(actor, tool)?;
    }

    for dir in [layout.shared(), layout.deep()] {
        fs::create_dir_all(&dir)?;
    }
    for leaf in names::shared() {
        fs::write(at(&layout.shared(), &leaf), "shared\n")?;
    }
    fs::write(at(&layout.deep(), names::DEEP), "deep\n")?;
    secret(&layout.deep())?;
    symlink(&tools[0], layout.tool_link())?;
    fs::write(layout.not_executable(), "not executable\n")?;
    let interpreter = layout.interpreter();
    fs::write(
        layout.script(),
        format!("#!{} script\n", interpreter.display()),
    )?;
    fs::set_permissions(layout.script(), fs::Permissions::from_mode(0o755))?;

    for worker in 0..plan.processes {
        for thread in 0..plan.threads {
            let dir = layout.thread_dir(worker, thread);
            fs::create_dir_all(&dir)?;
            for leaf in names::own() {
                fs::write(at(&dir, &leaf), "own\n")?;
            }
            secret(&dir)?;
            symlink(at(Path::new(""), &names::own()[0]), at(&dir, names::LINK))?;
            for parent in [names::FROM, names::POINT] {
                fs::create_dir(at(&dir, parent))?;
                fs::write(at(&at(&dir, parent), names::INSIDE), "inside\n")?;
            }
            // The name stays when the listener is gone.
            drop(UnixListener::bind(at(&dir, names::STALE_SOCKET))?);
        }
    }
    Ok(())
}

/// Names of the files that are there before the first operation, and of those that come
/// and go.
pub(crate) mod names {
    /// In the deep directory: readable by all.
    pub(crate) const DEEP: &[u8] = b"end";
    /// In a thread's directory and the deep one: root's alone.
    pub(crate) const SECRET: &[u8] = b"secret";
    /// A symbolic link to the thread's first file.
    pub(crate) const LINK: &[u8] = b"link";
    /// A directory with a file, to be renamed, and bound elsewhere.
    pub(crate) const FROM: &[u8] = b"from";
    /// A directory with a file, to bind the other one onto.
    pub(crate) const POINT: &[u8] = b"point";
    /// The file in both.
    pub(crate) const INSIDE: &[u8] = b"inside";
    /// A unix socket without a listener, which only root may connect to.
    pub(crate) const STALE_SOCKET: &[u8] = b"stale.sock";
    /// A name that never is.
    pub(crate) const MISSING: &[u8] = b"missing";
    /// Names that come and go.
    pub(crate) const FREE: &[&[u8]] = &[
        b"new-0",
        b"new-1",
        b"new-2",
        b"new-3",
        b"new name",
        b"new\nline",
        b"new \xff\xfe",
        b"new \x1b]0;title\x07",
    ];

    /// A thread's own files.
    pub(crate) fn own() -> Vec<Vec<u8>> {
        let mut names: Vec<_> = (0..24).map(|n| format!("f{n}").into_bytes()).collect();
        names.extend([b"with space".to_vec(), b"own \x80 \\".to_vec()]);
        names
    }

    /// Files that all threads share.
    pub(crate) fn shared() -> Vec<Vec<u8>> {
        /// NAME_MAX.
        const NAME_BYTES_MAX: usize = 255;
        let hostile: [&[u8]; 7] = [
            b"two\nlines",
            b"\x1b[31mred\x1b[0m",
            b"\xff\xfe\x80",
            b"back\\slash\\x41",
            b" ",
            "\u{202e}txt.exe".as_bytes(),
            b"\"quotes\",<b>&amp;",
        ];
        let mut names: Vec<_> = (0..32).map(|n| format!("s{n}").into_bytes()).collect();
        names.extend(hostile.map(<[u8]>::to_vec));
        names.push(vec![b'n'; NAME_BYTES_MAX]);
        names
    }
}
