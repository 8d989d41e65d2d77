//! The real binary, reading stores whose content is known.

mod collector;
mod containers;
mod doctor;
#[allow(
    clippy::unwrap_used,
    dead_code,
    reason = "it is the test suite's of another crate"
)]
#[path = "../../../kubernetes/tests/suite/fake_api.rs"]
mod fake_api;
#[allow(
    clippy::unwrap_used,
    dead_code,
    reason = "it is the test suite's of another crate"
)]
#[path = "../../../kubernetes/tests/suite/fake_forward.rs"]
mod fake_forward;
#[allow(
    clippy::unwrap_used,
    dead_code,
    reason = "it is the test suite's of another crate"
)]
#[path = "../../../kubernetes/tests/suite/fake_http.rs"]
mod fake_http;
mod forward;
mod image;
mod names;
mod streams;
mod summary;
mod support;
mod terminal;
