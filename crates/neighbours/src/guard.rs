//! Who may ask, and what is written down about it.

use ethogram_cluster::{
    access::{Access, Caller, Denied, Role},
    listen::Remote,
};
use std::sync::Arc;
use tonic::{Code, Request, Status};

/// Somebody asked something.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who; empty for somebody unknown.
    pub who: String,
    /// In which role; empty likewise.
    pub role: String,
    /// What for, on one line.
    pub what: String,
    /// What came of it.
    pub outcome: Code,
}

/// Where questions are written down.
type Audit = dyn Fn(Question) + Send + Sync;

/// Lets in who may read.
#[derive(Clone)]
pub struct Guard {
    access: Arc<Access>,
    audit: Option<Arc<Audit>>,
}

impl Guard {
    /// Lets in whom `access` knows.
    #[must_use]
    pub fn new(access: Arc<Access>) -> Self {
        let audit = None;
        Self { access, audit }
    }

    /// Lets in everybody who can connect.
    #[must_use]
    pub fn open() -> Self {
        let access = Access::new(None, false).expect("without files nothing can fail");
        Self::new(Arc::new(access))
    }

    /// Has every question written down.
    #[must_use]
    pub fn audited(self, audit: impl Fn(Question) + Send + Sync + 'static) -> Self {
        Self {
            audit: Some(Arc::new(audit)),
            ..self
        }
    }

    /// Who asks, if it may read anything of a namespace; an empty one stands for whatever
    /// the caller may read.
    pub(crate) fn admit<T>(
        &self,
        request: &Request<T>,
        what: &str,
        namespace: &str,
    ) -> Result<Caller, Status> {
        let caller = self.identify(request);
        let admitted = match &caller {
            Ok(caller) => may_read(caller, namespace),
            Err(denied) => Err(Status::unauthenticated(denied.to_string())),
        };
        if let Some(audit) = &self.audit {
            let known = caller.as_ref().ok();
            audit(Question {
                who: known.map(|caller| caller.name.clone()).unwrap_or_default(),
                role: known.map(|c| c.role.to_string()).unwrap_or_default(),
                what: format!("{what} namespace={namespace:?}"),
                outcome: admitted.as_ref().err().map_or(Code::Ok, Status::code),
            });
        }
        admitted?;
        caller.map_err(|denied| Status::unauthenticated(denied.to_string()))
    }

    fn identify<T>(&self, request: &Request<T>) -> Result<Caller, Denied> {
        let header = request.metadata().get("authorization");
        let header = header.map(|value| value.to_str().unwrap_or_default());
        let remote = request.extensions().get::<Remote>();
        let certificates = remote.map_or(&[][..], |remote| &remote.certificates);
        self.access.identify(header, certificates, Role::Admin)
    }
}

fn may_read(caller: &Caller, namespace: &str) -> Result<(), Status> {
    let name = &caller.name;
    if caller.role == Role::Agent {
        return Err(Status::permission_denied(format!(
            "{name:?} is an agent: agents report, they read nothing"
        )));
    }
    if !namespace.is_empty() && !caller.reads(Some(namespace)) {
        return Err(Status::permission_denied(format!(
            "{name:?} may not read the namespace {namespace:?}"
        )));
    }
    Ok(())
}
