//! What a cell is, and how it keeps its record.

use anyhow::Result;
use ethogram_e2e::coverage::{Deed, shown};
use ethogram_model::{Access, Behaviour, Kind, Name, Protocol, Status};
use std::{collections::BTreeMap, net::IpAddr, os::unix::ffi::OsStrExt, path::Path};

/// Blind spots, by their ids in `ethogram doctor`.
pub(crate) mod spot {
    pub(crate) const IO_URING: &str = "io-uring";
    pub(crate) const IO_URING_SOCKETS: &str = "io-uring-sockets";
    pub(crate) const REQUESTED_PATHS: &str = "requested-paths";
    pub(crate) const REQUESTED_REFUSALS: &str = "requested-refusals";
    pub(crate) const UDP_WITHOUT_SENDER: &str = "udp-without-sender";
    pub(crate) const SOCKETS_32_BIT: &str = "32-bit-sockets";
    pub(crate) const ACCEPTED_OTHERWISE: &str = "accepted-otherwise";
    pub(crate) const OTHER_DATAGRAMS: &str = "other-datagrams";
}

type SetUp = Box<dyn Fn(&Path) -> Result<()>>;
type Act = Box<dyn Fn(&mut Record) -> Result<()>>;

/// One way to do a thing in one place.
pub(crate) struct Cell {
    pub(crate) what: String,
    pub(crate) place: String,
    /// Makes what is needed in the cell's folder; seen of another program.
    pub(crate) set_up: SetUp,
    /// Does it.
    pub(crate) act: Act,
    /// Whether it changes the machine for others.
    pub(crate) machine_wide: bool,
}

impl Cell {
    pub(crate) fn new(
        what: &str,
        place: &str,
        set_up: impl Fn(&Path) -> Result<()> + 'static,
        act: impl Fn(&mut Record) -> Result<()> + 'static,
    ) -> Self {
        Self {
            what: what.into(),
            place: place.into(),
            set_up: Box::new(set_up),
            act: Box::new(act),
            machine_wide: false,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{} × {}", self.what, self.place)
    }
}

/// The kernel cannot do what a cell is about.
#[derive(Debug, thiserror::Error)]
#[error("this kernel lacks {0}")]
pub(crate) struct Lacking(pub(crate) String);

/// What a cell did so far.
pub(crate) struct Record {
    program: Name,
    /// The cell's folder.
    pub(crate) folder: std::path::PathBuf,
    /// A port of its own, below those that the kernel hands out.
    pub(crate) port: u16,
    rows: BTreeMap<(Behaviour, Vec<&'static str>, Vec<&'static str>), u64>,
}

const FIRST_PORT: u16 = 10_000;

impl Record {
    pub(crate) fn new(index: usize, program: &Path, folder: &Path) -> Self {
        let offset = u16::try_from(index).expect("there are a few hundred cells");
        Self {
            program: name(program),
            folder: folder.to_owned(),
            port: FIRST_PORT + 2 * offset,
            rows: BTreeMap::new(),
        }
    }

    /// A path in the cell's folder.
    pub(crate) fn path(&self, below: &str) -> std::path::PathBuf {
        self.folder.join(below)
    }

    /// Records a row of another program.
    pub(crate) fn other_did(
        &mut self,
        source: Name,
        kind: Kind,
        target: Name,
        hidden_by: &[&'static str],
        shown_by: &[&'static str],
        more: impl FnOnce(&mut Behaviour),
    ) {
        let mut row = Behaviour::new(kind, source, target);
        more(&mut row);
        *self
            .rows
            .entry((row, hidden_by.to_vec(), shown_by.to_vec()))
            .or_default() += 1;
    }

    /// Records a row that some hooks do not see.
    pub(crate) fn did_unseen(
        &mut self,
        kind: Kind,
        target: impl Into<Name>,
        hidden_by: &[&'static str],
        more: impl FnOnce(&mut Behaviour),
    ) {
        self.other_did(
            self.program.clone(),
            kind,
            target.into(),
            hidden_by,
            &[],
            more,
        );
    }

    /// Records a row that all must see.
    pub(crate) fn did(
        &mut self,
        kind: Kind,
        target: impl Into<Name>,
        more: impl FnOnce(&mut Behaviour),
    ) {
        self.did_unseen(kind, target, &[], more);
    }

    /// Records what is shown instead of what happened where one of these spots is listed.
    pub(crate) fn shown_instead(
        &mut self,
        target: impl Into<Name>,
        by: &[&'static str],
        more: impl FnOnce(&mut Behaviour),
    ) {
        self.other_did(
            self.program.clone(),
            Kind::File,
            target.into(),
            &[],
            by,
            more,
        );
    }

    pub(crate) fn used(&mut self, target: impl Into<Name>, access: Access) {
        self.did(Kind::File, target, |row| row.access = access);
    }

    pub(crate) fn called(&mut self, call: &str) {
        self.did(Kind::Syscall, call, |_| ());
    }

    /// Records a behaviour of an internet socket.
    pub(crate) fn net(
        &mut self,
        kind: Kind,
        protocol: Protocol,
        address: impl Into<IpAddr>,
        port: u16,
    ) {
        self.net_unseen(kind, protocol, address, port, &[]);
    }

    pub(crate) fn net_unseen(
        &mut self,
        kind: Kind,
        protocol: Protocol,
        address: impl Into<IpAddr>,
        port: u16,
        hidden_by: &[&'static str],
    ) {
        let target = address.into().to_canonical().to_string();
        self.did_unseen(kind, target.as_str(), hidden_by, |row| {
            (row.protocol, row.port) = (protocol, port);
        });
    }

    pub(crate) fn listened(&mut self, protocol: Protocol, address: impl Into<IpAddr>, port: u16) {
        let target = address.into().to_canonical().to_string();
        self.did(Kind::Bind, target.as_str(), |row| {
            (row.protocol, row.port, row.access) = (protocol, port, Access::LISTEN);
        });
    }

    /// Records a behaviour of a socket that is no internet socket.
    pub(crate) fn other_net(&mut self, kind: Kind, protocol: Protocol, target: impl Into<Name>) {
        self.did(kind, target, |row| row.protocol = protocol);
    }

    pub(crate) fn denied(
        &mut self,
        target: impl Into<Name>,
        access: Access,
        hidden_by: &[&'static str],
    ) {
        self.did_unseen(Kind::File, target, hidden_by, |row| {
            (row.access, row.status) = (access, Status::Deny);
        });
    }

    pub(crate) fn into_rows(self) -> Vec<Deed> {
        let deed = |((row, hidden_by, shown_by), count): ((Behaviour, Vec<_>, Vec<_>), u64)| {
            Deed::new(&row, count, &hidden_by, &shown_by)
        };
        self.rows.into_iter().map(deed).collect()
    }
}

/// A path as summaries show it.
pub(crate) fn name(path: &Path) -> Name {
    debug_assert_eq!(
        Name::from_bytes(path.as_os_str().as_bytes()).as_str(),
        shown(path)
    );
    Name::from_bytes(path.as_os_str().as_bytes())
}
