//! A Kubernetes node without Kubernetes: a container runtime, the pods that are asked of
//! it, and the network between them.

use crate::{
    cri::{
        Cri, Executed,
        runtime::{
            ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig,
            LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
            LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig,
            PodSandboxMetadata,
        },
    },
    sockets, testbed,
};
use anyhow::{Context, Result, bail};
use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

/// The namespace of every pod of the testbed.
pub const NAMESPACE: &str = "dvwa";
/// The node's own address on the pods' bridge: the peer that a request from the node has.
pub const NODE_ADDRESS: &str = "10.89.7.1";
/// The addresses of the pods of a node on its own.
pub const SUBNET: &str = "10.89.7.0/24";
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which cgroup hierarchies containers are in, and which the node sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As the machine has them.
    Host,
    /// v1 hierarchies only: every v2 id is that of the root.
    V1,
    /// cgroup2 only.
    V2,
}

/// How the kubelet's cgroup driver names cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupNames {
    /// `/kubepods/burstable/podUID/ID`
    Cgroupfs,
    /// `/kubepods.slice/…/kubepods-burstable-podUID.slice/cri-containerd-ID.scope`
    Systemd,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    name: String,
    cgroup_root: String,
    names: CgroupNames,
    cri: Cri,
}

impl Node {
    /// Starts a node, or takes it over where it runs already, with images that pods can use
    /// beside `pause` and `busybox`. Pods of an earlier run are removed: containerd's
    /// memory of them outlives them.
    ///
    /// # Errors
    /// When the machine lacks what it takes; the text says what.
    pub fn up(name: &str, layout: Layout, names: CgroupNames, images: &[&str]) -> Result<Self> {
        Self::up_in(SUBNET, "", name, layout, names, images)
    }

    /// The same as one node of several: its pods have a subnet and a cgroup of their own.
    ///
    /// # Errors
    /// When the machine lacks what it takes; the text says what.
    pub fn up_joined(name: &str, subnet: &str, images: &[&str]) -> Result<Self> {
        let root = format!("/ethogram-{name}");
        Self::up_in(
            subnet,
            &root,
            name,
            Layout::Host,
            CgroupNames::Cgroupfs,
            images,
        )
    }

    fn up_in(
        subnet: &str,
        cgroup_root: &str,
        name: &str,
        layout: Layout,
        names: CgroupNames,
        images: &[&str],
    ) -> Result<Self> {
        testbed::install_packages()?;
        let layout = match layout {
            Layout::Host => "host",
            Layout::V1 => "v1",
            Layout::V2 => "v2",
        };
        let driver = match names {
            CgroupNames::Cgroupfs => "cgroupfs",
            CgroupNames::Systemd => "systemd",
        };
        let mut args = vec!["up", name, layout, driver];
        args.extend(images);
        testbed::run(
            Command::new(testbed::script("node.sh"))
                .args(&args)
                .env("ETHOGRAM_POD_SUBNET", subnet),
        )?;
        let cri = Cri::connect(&directory(name).join("containerd.sock"))?;
        for sandbox in cri.sandboxes()? {
            cri.remove_sandbox(&sandbox)?;
        }
        Ok(Self {
            name: name.into(),
            cgroup_root: cgroup_root.into(),
            names,
            cri,
        })
    }

    /// The runtime.
    #[must_use]
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// The runtime's socket.
    #[must_use]
    pub fn cri_socket(&self) -> PathBuf {
        directory(&self.name).join("containerd.sock")
    }

    /// Ends the node with all its pods.
    ///
    /// # Errors
    /// When the script fails.
    pub fn down(self) -> Result<()> {
        testbed::run_script("node.sh", &["down", &self.name]).map(drop)
    }

    /// The node's mount namespace, in which a command sees the node's cgroup hierarchies.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn mount_namespace(&self) -> Result<PathBuf> {
        let pidfile = directory(&self.name).join("containerd.pid");
        let pid = fs::read_to_string(&pidfile)
            .with_context(|| format!("node {} does not run: {}", self.name, pidfile.display()))?;
        Ok(format!("/proc/{}/ns/mnt", pid.trim()).into())
    }

    /// Does something in the node's network.
    ///
    /// # Errors
    /// When its network namespace is gone, or as `action` says.
    pub fn in_network<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        testbed::in_network(&self.network(), action)
    }

    /// The cgroup that all its pods are below; empty where the machine is the node.
    #[must_use]
    pub fn cgroup_root(&self) -> &str {
        &self.cgroup_root
    }

    /// The name of its network namespace.
    #[must_use]
    pub fn network(&self) -> String {
        format!("ethogram-{}", self.name)
    }

    /// Asks a pod's web server for a page, on a connection of its own, and returns the
    /// body.
    ///
    /// # Errors
    /// When the server cannot be reached or does not say 200.
    pub fn get(&self, ip: &str, path: &str) -> Result<String> {
        self.in_network(|| {
            let mut stream =
                TcpStream::connect((ip, 80)).with_context(|| format!("http://{ip}{path}"))?;
            stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
            // A fixed session, so that the server's session file is always the same.
            write!(
                stream,
                "GET {path} HTTP/1.0\r\nHost: dvwa\r\nCookie: PHPSESSID=visitor\r\n\r\n"
            )?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            if head
                .lines()
                .next()
                .is_none_or(|line| !line.contains(" 200 "))
            {
                bail!("http://{ip}{path} answers {head}");
            }
            Ok(body.to_owned())
        })
    }

    /// Makes a pod with one container, as a kubelet would.
    ///
    /// # Errors
    /// As the runtime says.
    pub fn run(&self, spec: &PodSpec) -> Result<Pod<'_>> {
        self.remember(&spec.uid)?;
        let config = self.sandbox_config(spec);
        let sandbox = self.cri.run_sandbox(config.clone())?;
        let ip = if spec.host_network {
            NODE_ADDRESS.to_owned()
        } else {
            self.cri.sandbox_ip(&sandbox)?
        };
        let mut pod = Pod {
            node: self,
            spec: spec.clone(),
            config,
            sandbox,
            ip,
            container: String::new(),
        };
        pod.container = pod.start(&spec.container)?;
        Ok(pod)
    }

    /// Notes a pod's uid where `node.sh down` finds it, before there is anything to clean up.
    fn remember(&self, uid: &str) -> Result<()> {
        let mut list = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory(&self.name).join("pods"))?;
        writeln!(list, "{uid}")?;
        Ok(())
    }

    fn sandbox_config(&self, spec: &PodSpec) -> PodSandboxConfig {
        let below_root = match self.names {
            CgroupNames::Cgroupfs => format!("/kubepods/burstable/pod{}", spec.uid),
            CgroupNames::Systemd => format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
                spec.uid.replace('-', "_")
            ),
        };
        let mut labels = kubernetes_labels(spec);
        labels.extend(spec.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: spec.name.clone(),
                uid: spec.uid.clone(),
                namespace: NAMESPACE.into(),
            }),
            // With the node's network comes the node's name.
            hostname: if spec.host_network {
                String::new()
            } else {
                spec.name.clone()
            },
            log_directory: directory(&self.name)
                .join("logs")
                .join(&spec.name)
                .display()
                .to_string(),
            labels,
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}{below_root}", self.cgroup_root),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces(spec)),
                }),
            }),
        }
    }
}

/// A pod to be made. Application labels belong to the pod, as in Kubernetes; containers
/// get only the kubelet's own.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    /// The pod's name.
    pub name: String,
    /// The pod's uid, 36 characters; no two pods of the machine may share one.
    pub uid: String,
    /// The application's labels.
    pub labels: HashMap<String, String>,
    /// Lines of its `/etc/hosts` beside those of localhost.
    pub hosts: String,
    /// Whether it is in the node's network namespace.
    pub host_network: bool,
    /// Whether its processes are in the node's pid namespace.
    pub host_pid: bool,
    /// Its container.
    pub container: ContainerSpec,
}

/// A container to be made.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// Its name in the pod.
    pub name: String,
    /// Its image.
    pub image: String,
    /// The command; empty for the image's.
    pub command: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Its memory limit.
    pub memory_mebibytes: i64,
}

/// A running pod, removed when dropped.
#[derive(Debug)]
pub struct Pod<'node> {
    node: &'node Node,
    spec: PodSpec,
    config: PodSandboxConfig,
    /// The sandbox's id.
    pub sandbox: String,
    /// Its address.
    pub ip: String,
    /// The id of the container it was made with.
    pub container: String,
}

impl Pod<'_> {
    /// What it was made of.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// Starts another container in it and returns its id.
    ///
    /// # Errors
    /// As the runtime says.
    pub fn start(&self, spec: &ContainerSpec) -> Result<String> {
        let config = self.container_config(spec)?;
        let id = self
            .node
            .cri
            .create_container(&self.sandbox, self.config.clone(), config)?;
        self.node.cri.start_container(&id)?;
        Ok(id)
    }

    /// Runs a command in its container.
    ///
    /// # Errors
    /// As the runtime says. A command that fails is no error here.
    pub fn exec(&self, cmd: &[&str]) -> Result<Executed> {
        self.node.cri.exec(&self.container, cmd)
    }

    /// Asks its web server for a page.
    ///
    /// # Errors
    /// When it cannot be reached or does not say 200.
    pub fn get(&self, path: &str) -> Result<String> {
        self.node.get(&self.ip, path)
    }

    /// Waits until something in it listens on a TCP port.
    ///
    /// # Errors
    /// When nothing does in time; the text has the container's log.
    pub fn wait_listening(&self, port: u16) -> Result<()> {
        sockets::wait_listening(self.node.cri.container_pid(&self.container)?, port)
            .with_context(|| format!("pod {} said: {}", self.spec.name, self.log()))
    }

    /// Waits until something in it is connected to a TCP port elsewhere.
    ///
    /// # Errors
    /// When nothing is in time; the text has the container's log.
    pub fn wait_connected(&self, port: u16) -> Result<()> {
        sockets::wait_connected(self.node.cri.container_pid(&self.container)?, port)
            .with_context(|| format!("pod {} said: {}", self.spec.name, self.log()))
    }

    /// What its container printed, for those who wait in vain.
    fn log(&self) -> String {
        let log = PathBuf::from(&self.config.log_directory)
            .join(format!("{}.log", self.spec.container.name));
        fs::read_to_string(log).unwrap_or_else(|error| error.to_string())
    }

    /// Leaves it running: somebody else ends it.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    fn container_config(&self, spec: &ContainerSpec) -> Result<ContainerConfig> {
        let files = directory(&self.node.name)
            .join("kubelet")
            .join(&self.spec.uid);
        fs::create_dir_all(files.join("token"))?;
        fs::create_dir_all(&self.config.log_directory)?;
        fs::write(
            files.join("hosts"),
            format!(
                "127.0.0.1 localhost\n::1 localhost\n{} {}\n{}",
                self.ip, self.spec.name, self.spec.hosts
            ),
        )?;
        fs::write(files.join("token/token"), "not a secret\n")?;
        let mount = |container_path: &str, host: &str, readonly| Mount {
            container_path: container_path.into(),
            host_path: files.join(host).display().to_string(),
            readonly,
        };
        let mut labels = kubernetes_labels(&self.spec);
        labels.insert("io.kubernetes.container.name".into(), spec.name.clone());
        Ok(ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: spec.name.clone(),
            }),
            image: Some(ImageSpec {
                image: spec.image.clone(),
            }),
            command: spec.command.clone(),
            envs: spec
                .env
                .iter()
                .map(|(key, value)| KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                })
                .collect(),
            mounts: vec![
                mount("/etc/hosts", "hosts", false),
                mount(
                    "/var/run/secrets/kubernetes.io/serviceaccount",
                    "token",
                    true,
                ),
            ],
            labels,
            log_path: format!("{}.log", spec.name),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources {
                    cpu_shares: 102,
                    memory_limit_in_bytes: spec.memory_mebibytes << 20,
                }),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces(&self.spec)),
                }),
            }),
        })
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // A failing test must not fail those after it, whose pods may have the same name.
        if let Err(error) = self.node.cri.remove_sandbox(&self.sandbox) {
            eprintln!("cannot remove pod {}: {error:#}", self.spec.name);
        }
    }
}

fn directory(node: &str) -> PathBuf {
    testbed::state_dir().join("nodes").join(node)
}

/// Each container its own pid namespace, which is Kubernetes' default and not the
/// interface's, unless the pod shares the node's.
fn namespaces(spec: &PodSpec) -> NamespaceOption {
    let or_node = |of_node, mode: NamespaceMode| {
        let mode = if of_node { NamespaceMode::Node } else { mode };
        mode.into()
    };
    NamespaceOption {
        network: or_node(spec.host_network, NamespaceMode::Pod),
        pid: or_node(spec.host_pid, NamespaceMode::Container),
    }
}

/// The labels a kubelet puts on the sandbox and on each container.
fn kubernetes_labels(spec: &PodSpec) -> HashMap<String, String> {
    [
        ("io.kubernetes.pod.name", spec.name.as_str()),
        ("io.kubernetes.pod.namespace", NAMESPACE),
        ("io.kubernetes.pod.uid", &spec.uid),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}
