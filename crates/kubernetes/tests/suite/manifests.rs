//! The manifests say what the API server understands, and fit together.
//!
//! Each document is read into the type of its kind and written again: what is missing
//! then was a field that the API does not know. Patches are applied first, as `kubectl` does:
//! what it builds must be the same.

use ethogram_kubernetes::Kind;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, StatefulSet},
    core::v1::{ConfigMap, Container, Namespace, PodTemplateSpec, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

/// What a kustomization of ours may say.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(
    dead_code,
    reason = "fields that only have to be there in the right form"
)]
struct Kustomization {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: Vec<Value>,
    #[serde(default)]
    images: Vec<Value>,
    #[serde(default)]
    resources: Vec<PathBuf>,
    #[serde(default)]
    components: Vec<PathBuf>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: PathBuf,
    target: Target,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: String,
}

/// What we use of the Prometheus operator's kind.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceMonitor {
    api_version: String,
    kind: String,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: ServiceMonitorSpec,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceMonitorSpec {
    selector: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    endpoints: Vec<MonitorEndpoint>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MonitorEndpoint {
    port: String,
    path: String,
    interval: String,
    scheme: String,
    tls_config: Value,
    authorization: Value,
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes");
    root.canonicalize().unwrap()
}

/// The folders with a kustomization.
fn folders() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.ends_with("kustomization.yaml") {
                found.push(folder.clone());
            }
        }
    }
    found.sort();
    assert!(found.len() >= 5, "{found:?}");
    found
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn kustomization(folder: &Path) -> Kustomization {
    let mut all = documents(&folder.join("kustomization.yaml"));
    assert_eq!(all.len(), 1);
    serde_json::from_value(all.remove(0))
        .unwrap_or_else(|why| panic!("{}: {why}", folder.display()))
}

/// The objects that a folder makes, patched.
fn build(folder: &Path) -> Vec<Value> {
    let what = kustomization(folder);
    let mut objects = Vec::new();
    for resource in &what.resources {
        let path = folder.join(resource);
        if path.is_dir() {
            objects.extend(build(&path));
        } else {
            objects.extend(documents(&path));
        }
    }
    for component in &what.components {
        patch_all(&mut objects, &folder.join(component));
    }
    patch_all(&mut objects, folder);
    objects
}

/// Does to objects what a folder's patches say.
fn patch_all(objects: &mut [Value], folder: &Path) {
    for patch in kustomization(folder).patches {
        let is_target = |object: &&mut Value| {
            object["kind"] == patch.target.kind && object["metadata"]["name"] == patch.target.name
        };
        let object = objects
            .iter_mut()
            .find(is_target)
            .expect("a patch has a target");
        let steps = documents(&folder.join(&patch.path)).remove(0);
        for step in steps.as_array().unwrap() {
            apply(object, step);
        }
    }
}

/// One step of a JSON patch (RFC 6902).
fn apply(object: &mut Value, step: &Value) {
    let path = step["path"].as_str().unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap();
    let op = step["op"].as_str().unwrap();
    if op == "test" {
        assert_eq!(object.pointer(path), Some(&step["value"]), "{step}");
        return;
    }
    let parent = object
        .pointer_mut(parent)
        .unwrap_or_else(|| panic!("{step}"));
    let value = step["value"].clone();
    match (op, parent) {
        ("add", Value::Array(list)) if last == "-" => list.push(value),
        ("add", Value::Object(map)) => assert!(map.insert(last.into(), value).is_none(), "{step}"),
        ("replace", Value::Array(list)) => list[last.parse::<usize>().unwrap()] = value,
        ("replace", Value::Object(map)) => {
            assert!(map.insert(last.into(), value).is_some(), "{step}");
        }
        ("remove", Value::Object(map)) => assert!(map.remove(last).is_some(), "{step}"),
        _ => panic!("a step this test does not know: {step}"),
    }
}

/// Panics if the API does not know the object or a field of it.
fn check(object: &Value) {
    let kind = object["kind"]
        .as_str()
        .unwrap_or_else(|| panic!("no kind: {object}"));
    let written = match (object["apiVersion"].as_str().unwrap(), kind) {
        ("v1", "Namespace") => rewritten::<Namespace>(object),
        ("v1", "ConfigMap") => rewritten::<ConfigMap>(object),
        ("v1", "ServiceAccount") => rewritten::<ServiceAccount>(object),
        ("v1", "Service") => rewritten::<Service>(object),
        ("apps/v1", "DaemonSet") => rewritten::<DaemonSet>(object),
        ("apps/v1", "StatefulSet") => rewritten::<StatefulSet>(object),
        ("policy/v1", "PodDisruptionBudget") => rewritten::<PodDisruptionBudget>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => rewritten::<NetworkPolicy>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => rewritten::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => rewritten::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            rewritten::<ClusterRoleBinding>(object)
        }
        ("monitoring.coreos.com/v1", "ServiceMonitor") => rewritten::<ServiceMonitor>(object),
        other => panic!("a kind that this test does not know: {other:?}"),
    };
    if let Some(lost) = lost(object, &written, String::new()) {
        panic!(
            "the API does not know {lost} of {kind} {}",
            object["metadata"]["name"]
        );
    }
}

fn rewritten<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = typed(object);
    serde_json::to_value(typed).unwrap()
}

fn typed<T: DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone())
        .unwrap_or_else(|why| panic!("{} {}: {why}", object["kind"], object["metadata"]["name"]))
}

/// The first field that is in one and not the same in the other.
fn lost(there: &Value, here: &Value, path: String) -> Option<String> {
    match (there, here) {
        (Value::Object(there), Value::Object(here)) => there.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match here.get(key) {
                Some(other) => lost(value, other, path),
                None => Some(path),
            }
        }),
        (Value::Array(there), Value::Array(here)) if there.len() == here.len() => {
            let pairs = there.iter().zip(here).enumerate();
            pairs
                .into_iter()
                .find_map(|(n, (a, b))| lost(a, b, format!("{path}[{n}]")))
        }
        _ => (there != here).then_some(path),
    }
}

fn one<T: DeserializeOwned>(objects: &[Value], kind: &str, name: &str) -> T {
    let is_it = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
    let found: Vec<_> = objects.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    typed(found[0])
}

fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    objects
        .iter()
        .filter(|o| o["kind"] == kind)
        .cloned()
        .collect()
}

/// Every folder with all it can be combined with.
fn variants() -> Vec<(String, Vec<Value>)> {
    let mut all = Vec::new();
    for main in ["base", "overlays/clickhouse"] {
        let folder = root().join(main);
        all.push((main.to_owned(), build(&folder)));
        for component in components() {
            let mut objects = build(&folder);
            patch_all(&mut objects, &component);
            for resource in kustomization(&component).resources {
                objects.extend(documents(&component.join(resource)));
            }
            all.push((format!("{main} with {}", component.display()), objects));
        }
    }
    all
}

fn components() -> Vec<PathBuf> {
    let is_component = |f: &PathBuf| {
        f.components()
            .any(|part| part == Component::Normal("components".as_ref()))
    };
    folders().into_iter().filter(is_component).collect()
}

#[test]
fn the_api_knows_every_field() {
    let mut checked = 0;
    for (_, objects) in variants() {
        for object in &objects {
            check(object);
            checked += 1;
        }
    }
    assert!(checked > 90, "{checked}");
}

#[test]
fn a_field_that_the_api_does_not_know_is_found() {
    let mut agent = of_kind(&build(&root().join("base")), "DaemonSet").remove(0);
    check(&agent);
    agent["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always".into();
    let said = std::panic::catch_unwind(|| check(&agent)).unwrap_err();
    let said = said.downcast_ref::<String>().unwrap();
    assert!(
        said.contains(".spec.template.spec.containers[0].imagePullPolice"),
        "{said}"
    );
}

#[test]
fn every_file_is_used() {
    for folder in folders() {
        let what = kustomization(&folder);
        let used = what
            .resources
            .into_iter()
            .chain(what.patches.into_iter().map(|p| p.path));
        let used: BTreeSet<_> = used.filter(|path| !folder.join(path).is_dir()).collect();
        let there: BTreeSet<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| PathBuf::from(entry.unwrap().file_name()))
            .filter(|name| name.extension().is_some_and(|e| e == "yaml"))
            .filter(|name| !name.ends_with("kustomization.yaml"))
            .collect();
        assert_eq!(used, there, "{}", folder.display());
    }
}

#[test]
fn the_collector_may_do_what_names_need_and_nothing_else() {
    for (variant, objects) in variants() {
        let role: ClusterRole = one(&objects, "ClusterRole", "ethogram-collector");
        let mut allowed = BTreeSet::new();
        for rule in role.rules.unwrap() {
            assert_eq!(rule.verbs, ["list", "watch"], "{variant}");
            assert!(rule.non_resource_urls.is_none() && rule.resource_names.is_none());
            for group in rule.api_groups.unwrap() {
                for resource in rule.resources.iter().flatten() {
                    let prefix = if group.is_empty() { "/api/v1" } else { "/apis" };
                    let group = if group.is_empty() {
                        group.clone()
                    } else {
                        format!("/{group}/v1")
                    };
                    allowed.insert(format!("{prefix}{group}/{resource}"));
                }
            }
        }
        let needed = Kind::ALL.iter().map(|kind| kind.path().to_owned());
        assert_eq!(allowed, needed.collect(), "{variant}");
        let binding: ClusterRoleBinding = one(&objects, "ClusterRoleBinding", "ethogram-collector");
        assert_eq!(binding.role_ref.name, "ethogram-collector");
        let subjects = binding.subjects.unwrap();
        assert_eq!(subjects.len(), 1);
        assert_eq!(subjects[0].name, "ethogram-collector");
        assert_eq!(subjects[0].namespace.as_deref(), Some("ethogram"));
    }
}

#[test]
fn a_reader_may_reach_the_collector_and_nothing_else() {
    for (variant, objects) in variants() {
        let role: Role = one(&objects, "Role", "ethogram-reader");
        let mut allowed = Vec::new();
        for rule in role.rules.unwrap() {
            assert_eq!(rule.api_groups.unwrap(), [""], "{variant}");
            let names = rule.resource_names.unwrap_or_default();
            let resources = rule.resources.unwrap();
            allowed.push((resources[0].clone(), names, rule.verbs));
            assert_eq!(resources.len(), 1, "{variant}");
        }
        // As forward.rs asks for them.
        let may = |what: &str, name: &str, verbs: &[&str]| {
            let names = Some(name.to_owned()).filter(|name| !name.is_empty());
            let verbs = verbs.iter().map(|verb| (*verb).to_owned());
            (what.to_owned(), Vec::from_iter(names), verbs.collect())
        };
        assert_eq!(
            allowed,
            [
                may("services", "ethogram-collector", &["get"]),
                may("pods", "", &["list"]),
                may("pods/portforward", "", &["get", "create"]),
                may("secrets", "ethogram-reader", &["get"]),
            ],
            "{variant}"
        );
        assert!(of_kind(&objects, "RoleBinding").is_empty(), "{variant}");
    }
}

#[test]
fn karmor_finds_the_collector_by_its_labels() {
    for (component, label, port) in [
        ("karmor-summary", ("app", "discovery-engine"), 9089),
        ("karmor-logs", ("kubearmor-app", "kubearmor-relay"), 32767),
    ] {
        let mut objects = build(&root().join("base"));
        patch_all(&mut objects, &root().join("components").join(component));
        let collector: StatefulSet = one(&objects, "StatefulSet", "ethogram-collector");
        let template = collector.spec.unwrap().template;
        let env = container(&template).env.clone().unwrap();
        let listens = Some(format!("127.0.0.1:{port}"));
        assert!(env.iter().any(|one| one.value == listens), "{component}");
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels[label.0], label.1);
    }
}

fn container(template: &PodTemplateSpec) -> &Container {
    let pod = template.spec.as_ref().unwrap();
    assert_eq!(pod.containers.len(), 1);
    assert!(pod.init_containers.is_none());
    &pod.containers[0]
}

fn rights(container: &Container) -> Vec<String> {
    let context = container.security_context.as_ref().unwrap();
    assert_eq!(context.privileged, Some(false));
    assert_eq!(context.allow_privilege_escalation, Some(false));
    assert_eq!(context.read_only_root_filesystem, Some(true));
    let capabilities = context.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    capabilities.add.clone().unwrap_or_default()
}

#[test]
fn nobody_has_more_rights_than_needed() {
    for (variant, objects) in variants() {
        let agent: DaemonSet = one(&objects, "DaemonSet", "ethogram-agent");
        let template = agent.spec.unwrap().template;
        let three = ["BPF", "PERFMON", "DAC_READ_SEARCH"];
        assert_eq!(rights(container(&template)), three, "{variant}");
        let pod = template.spec.unwrap();
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!((pod.host_network, pod.host_ipc), (None, None));
        let mounts = pod.containers[0].volume_mounts.as_ref().unwrap();
        for volume in pod
            .volumes
            .as_ref()
            .unwrap()
            .iter()
            .filter(|v| v.host_path.is_some())
        {
            let mount = mounts
                .iter()
                .find(|mount| mount.name == volume.name)
                .unwrap();
            let is_own = volume.name == "data";
            assert_eq!(mount.read_only.unwrap_or(false), !is_own, "{}", volume.name);
        }
        let collector: StatefulSet = one(&objects, "StatefulSet", "ethogram-collector");
        let template = collector.spec.unwrap().template;
        assert!(rights(container(&template)).is_empty(), "{variant}");
        let pod = template.spec.unwrap();
        let context = pod.security_context.unwrap();
        assert_eq!(context.run_as_non_root, Some(true));
        assert!(context.run_as_user.unwrap() > 0);
        assert!(pod.volumes.unwrap().iter().all(|v| v.host_path.is_none()));
        assert_eq!(
            (pod.host_pid, pod.host_network, pod.host_ipc),
            (None, None, None)
        );
    }
}

#[test]
fn names_lead_to_something() {
    for (variant, objects) in variants() {
        let agent: DaemonSet = one(&objects, "DaemonSet", "ethogram-agent");
        let agent = agent.spec.unwrap();
        let collector: StatefulSet = one(&objects, "StatefulSet", "ethogram-collector");
        let collector = collector.spec.unwrap();
        let mut claimed = Vec::new();
        for claim in collector.volume_claim_templates.iter().flatten() {
            claimed.push(claim.metadata.name.clone().unwrap());
        }
        let accounts = of_kind(&objects, "ServiceAccount");
        let settings: ConfigMap = one(&objects, "ConfigMap", "ethogram-settings");
        for (selector, template) in [
            (agent.selector, &agent.template),
            (collector.selector, &collector.template),
        ] {
            let labels = template.metadata.as_ref().unwrap().labels.clone().unwrap();
            let wanted = selector.match_labels.unwrap();
            assert!(
                wanted.iter().all(|(k, v)| labels.get(k) == Some(v)),
                "{variant}"
            );
            let pod = template.spec.as_ref().unwrap();
            let account = pod.service_account_name.as_ref().unwrap();
            assert!(accounts.iter().any(|a| a["metadata"]["name"] == **account));
            let volumes: Vec<_> = pod
                .volumes
                .iter()
                .flatten()
                .map(|v| v.name.clone())
                .collect();
            let container = container(template);
            for mount in container.volume_mounts.iter().flatten() {
                let is_there = volumes.contains(&mount.name) || claimed.contains(&mount.name);
                assert!(is_there, "{variant}: {}", mount.name);
            }
            let keys = container
                .env
                .iter()
                .flatten()
                .filter_map(|env| env.value_from.as_ref()?.config_map_key_ref.clone());
            for key in keys {
                assert_eq!(key.name, "ethogram-settings");
                assert!(
                    settings.data.as_ref().unwrap().contains_key(&key.key),
                    "{}",
                    key.key
                );
            }
        }
        let ports: Vec<_> = container(&collector.template).ports.clone().unwrap();
        let service: Service = one(&objects, "Service", "ethogram-collector");
        let spec = service.spec.unwrap();
        let labels = collector.template.metadata.unwrap().labels.unwrap();
        assert!(
            spec.selector
                .unwrap()
                .iter()
                .all(|(k, v)| labels.get(k) == Some(v))
        );
        let named: Vec<_> = spec
            .ports
            .unwrap()
            .into_iter()
            .map(|p| (p.name.unwrap(), p.port))
            .collect();
        assert_eq!(
            named,
            [("ingest".to_owned(), 8688), ("api".to_owned(), 8687)]
        );
        for (name, port) in &named {
            let is_it = |p: &k8s_openapi::api::core::v1::ContainerPort| {
                p.name.as_ref() == Some(name) && p.container_port == *port
            };
            assert!(ports.iter().any(is_it), "{variant}: {name}");
        }
        let collector_url = &settings.data.unwrap()["collector"];
        assert_eq!(
            collector_url,
            "https://ethogram-collector.ethogram.svc:8688"
        );
        for monitor in of_kind(&objects, "ServiceMonitor") {
            let monitor: ServiceMonitor = typed(&monitor);
            assert!(
                named
                    .iter()
                    .any(|(name, _)| *name == monitor.spec.endpoints[0].port)
            );
        }
    }
}

#[test]
fn kubectl_builds_the_same() {
    let version = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    let version = version.expect("kubectl is there: tools/packages.sh test installs it");
    assert!(version.status.success());
    let folder =
        tempfile::tempdir_in(root().parent().unwrap().parent().unwrap().join("target")).unwrap();
    for main in ["base", "overlays/clickhouse"] {
        for component in [None].into_iter().chain(components().into_iter().map(Some)) {
            let relative = |path: &Path| Path::new("../../deploy/kubernetes").join(path);
            let component = component.map(|c| c.strip_prefix(root()).unwrap().to_owned());
            let with = component.as_ref().map_or(String::new(), |c| {
                format!("components: [{}]\n", relative(c).display())
            });
            let text = format!(
                "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
                 namespace: ethogram\nresources: [{}]\n{with}",
                relative(Path::new(main)).display()
            );
            fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
            let built = Command::new("kubectl")
                .arg("kustomize")
                .arg(folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&built.stderr);
            assert!(built.status.success(), "{main} {component:?}: {said}");
            let text = String::from_utf8(built.stdout).unwrap();
            let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            objects.iter().for_each(check);
            let mut ours = build(&root().join(main));
            if let Some(component) = component.map(|c| root().join(c)) {
                patch_all(&mut ours, &component);
                for resource in kustomization(&component).resources {
                    ours.extend(documents(&component.join(resource)));
                }
            }
            assert_eq!(objects.len(), ours.len());
            for object in &ours {
                let name = &object["metadata"]["name"];
                let is_it =
                    |o: &&Value| o["kind"] == object["kind"] && o["metadata"]["name"] == *name;
                let built = objects.iter().find(is_it).unwrap();
                // Images are named by kustomize, everything else is as we patched it.
                let mut ours = object.clone();
                if let Some(image) = ours.pointer_mut("/spec/template/spec/containers/0/image") {
                    *image = "ethogram:0.1.0".into();
                }
                let lost = lost(&ours, built, String::new());
                assert_eq!(lost, None, "{main} {} {name}", object["kind"]);
            }
        }
    }
}

/// What `helm` makes of our chart with these values.
fn helm(chart: &Path, values: &str) -> Vec<Value> {
    let made = Command::new("helm")
        .args([
            "template",
            "ethogram",
            "--namespace",
            "watching",
            "--set",
            values,
        ])
        .arg(chart)
        .output();
    let made = made.expect("helm is there: tools/packages.sh test installs it");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let text = String::from_utf8(made.stdout).unwrap();
    let objects: Vec<Option<Value>> = serde_saphyr::from_multiple(&text).unwrap();
    objects.into_iter().flatten().collect()
}

#[test]
fn the_chart_is_what_kubectl_builds_but_for_its_values() {
    let folder = tempfile::tempdir().unwrap();
    // This also holds it, with the values it has by itself, against what kubectl builds.
    let script = root().join("../../tools/chart.sh");
    let made = Command::new(script).arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    let chart = fs::read_dir(folder.path()).unwrap().next().unwrap();
    let chart = chart.unwrap().path();
    for store in ["sqlite", "clickhouse"] {
        let values = format!(
            "store={store},image=registry/e:2,cluster=c1,runtime.folder=/run/crio,\
             runtime.socket=/run/crio/crio.sock"
        );
        let objects = helm(&chart, &values);
        objects.iter().for_each(check);
        for object in &objects {
            let namespace = &object["metadata"]["namespace"];
            let is_everywhere = object["kind"].as_str().unwrap().starts_with("Cluster");
            assert!(is_everywhere || namespace == "watching", "{object}");
        }
        let text = serde_json::to_string(&objects).unwrap();
        for (words, count) in [
            ("registry/e:2", 2),
            ("\"cluster\":\"c1\"", 1),
            ("ethogram-collector.watching.svc", 1),
            ("/run/crio/crio.sock", 1),
            ("containerd", 0),
        ] {
            assert_eq!(text.matches(words).count(), count, "{store}: {words}");
        }
    }
}
