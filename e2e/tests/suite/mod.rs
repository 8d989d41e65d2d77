//! The tests, in the order in which they run.

mod churn;
mod coverage;
mod dvwa;
mod engines;
mod host_namespaces;
mod late_names;
mod layouts;
mod look_back;
mod record;
mod restart;
mod truth;

use anyhow::{Result, anyhow};
use ethogram_e2e::{
    dvwa::IMAGES,
    expected::{Count, Expected},
    node::{CgroupNames, ContainerSpec, Layout, Node, PodSpec},
};
use ethogram_model::Kind;
use std::sync::LazyLock;

/// A test with its name.
type Test = (&'static str, fn() -> Result<()>);

/// Every test.
pub(crate) const TESTS: &[Test] = &[
    (
        "record::ends_as_the_command_does_and_keeps_what_it_did",
        record::ends_as_the_command_does_and_keeps_what_it_did,
    ),
    (
        "dvwa::the_header_names_the_pod",
        dvwa::the_header_names_the_pod,
    ),
    (
        "coverage::every_way_is_seen_or_a_stated_blind_spot",
        coverage::every_way_is_seen_or_a_stated_blind_spot,
    ),
    (
        "truth::a_million_operations_equal_the_truth",
        truth::a_million_operations_equal_the_truth,
    ),
    (
        "truth::names_on_pages_in_motion_are_read",
        truth::names_on_pages_in_motion_are_read,
    ),
    (
        "truth::other_crowds_equal_the_truth",
        truth::other_crowds_equal_the_truth,
    ),
    (
        "truth::what_a_tiny_map_loses_is_reported",
        truth::what_a_tiny_map_loses_is_reported,
    ),
    (
        "record::programs_that_no_image_holds_are_marked",
        record::programs_that_no_image_holds_are_marked,
    ),
    (
        "record::addresses_have_the_names_that_were_asked_for",
        record::addresses_have_the_names_that_were_asked_for,
    ),
    ("dvwa::processes", dvwa::processes),
    ("dvwa::files", dvwa::files),
    ("dvwa::ingress", dvwa::ingress),
    ("dvwa::egress", dvwa::egress),
    ("dvwa::bind_points", dvwa::bind_points),
    ("dvwa::capabilities", dvwa::capabilities),
    ("dvwa::system_calls", dvwa::system_calls),
    (
        "dvwa::shells_come_from_the_runtime",
        dvwa::shells_come_from_the_runtime,
    ),
    ("dvwa::peers_are_named", dvwa::peers_are_named),
    ("dvwa::nothing_is_lost", dvwa::nothing_is_lost),
    (
        "dvwa::the_text_is_as_the_model_shows_it",
        dvwa::the_text_is_as_the_model_shows_it,
    ),
    (
        "look_back::running_pods_are_marked_present_at_start",
        look_back::running_pods_are_marked_present_at_start,
    ),
    (
        "look_back::listening_and_connected_sockets_are_found",
        look_back::listening_and_connected_sockets_are_found,
    ),
    (
        "late_names::events_before_the_name_get_it_later",
        late_names::events_before_the_name_get_it_later,
    ),
    (
        "restart::a_clean_restart_continues_the_counts",
        restart::a_clean_restart_continues_the_counts,
    ),
    (
        "restart::a_crash_loses_nothing_flushed_and_counts_nothing_twice",
        restart::a_crash_loses_nothing_flushed_and_counts_nothing_twice,
    ),
    (
        "churn::five_hundred_containers_are_told_apart",
        churn::five_hundred_containers_are_told_apart,
    ),
    (
        "churn::short_lived_containers_of_a_pod_are_named",
        churn::short_lived_containers_of_a_pod_are_named,
    ),
    (
        "host_namespaces::pods_in_them_are_told_apart_from_the_node",
        host_namespaces::pods_in_them_are_told_apart_from_the_node,
    ),
    ("layouts::v1_hierarchies_only", layouts::v1_hierarchies_only),
    ("layouts::v2_hierarchy_only", layouts::v2_hierarchy_only),
    (
        "layouts::names_of_the_systemd_driver",
        layouts::names_of_the_systemd_driver,
    ),
    (
        "engines::docker_containers_are_named",
        engines::docker_containers_are_named,
    ),
    (
        "engines::hostile_names_are_escaped",
        engines::hostile_names_are_escaped,
    ),
    (
        "engines::podman_containers_are_named_from_its_files",
        engines::podman_containers_are_named_from_its_files,
    ),
    (
        "engines::podman_containers_are_named_by_its_service",
        engines::podman_containers_are_named_by_its_service,
    ),
];

/// Where every program of the small image comes from.
const BUSYBOX: &str = "/bin/busybox";

/// Something that several tests use and that may have failed to come about.
type Shared<T> = LazyLock<Result<T, String>>;

/// The value of something shared.
fn shared<T>(value: &'static Shared<T>) -> Result<&'static T> {
    value.as_ref().map_err(|error| anyhow!("{error}"))
}

/// The node of all tests that do not need a special one.
static NODE: Shared<Node> = LazyLock::new(|| {
    Node::up("main", Layout::Host, CgroupNames::Cgroupfs, IMAGES)
        .map_err(|error| format!("{error:#}"))
});

/// A pod with one container of the small image. `number` makes its uid; no two tests may
/// use the same.
fn busybox_pod(name: &str, number: u16, command: &[&str]) -> PodSpec {
    PodSpec {
        name: name.into(),
        uid: format!("5b1f0c9e-1111-4222-8333-e7406ab1{number:04x}"),
        labels: [("app".to_owned(), name.to_owned())].into(),
        container: container("box", command),
        ..PodSpec::default()
    }
}

fn container(name: &str, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        image: "localhost/busybox:1".into(),
        command: command.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        memory_mebibytes: 64,
    }
}

/// The row of a file that is read some times with busybox.
fn reads(path: &str, times: u64) -> Expected {
    Expected::new(Kind::File, BUSYBOX, path, Count::Exactly(times))
}
