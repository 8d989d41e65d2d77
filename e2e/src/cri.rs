//! The part of a kubelet that makes pods: a client of the Container Runtime Interface.

use anyhow::{Context, Result, bail};
use std::{future::Future, path::Path, time::Duration};
use tokio::runtime::Runtime;
use tonic::{Response, Status, transport::Channel};

/// What the interface's definition generates.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated from proto/runtime.proto, which is the documentation"
)]
pub mod runtime {
    tonic::include_proto!("runtime.v1");
}

use runtime::{
    ContainerConfig, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ListPodSandboxRequest, PodSandboxConfig,
    PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest, runtime_service_client::RuntimeServiceClient,
};

/// No call of a healthy runtime takes longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A command in a container may take that long.
const EXEC_TIMEOUT_SECONDS: i64 = 30;

/// How a command in a container ended.
#[derive(Clone, Debug)]
pub struct Executed {
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// Its exit status.
    pub code: i32,
}

/// A connection to a runtime.
#[derive(Debug)]
pub struct Cri {
    tokio: Runtime,
    client: RuntimeServiceClient<Channel>,
}

impl Cri {
    /// Connects to a runtime's socket.
    ///
    /// # Errors
    /// When nothing answers there.
    pub fn connect(socket: &Path) -> Result<Self> {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("unix://{}", socket.display()))?
                .timeout(CALL_TIMEOUT);
        let channel = tokio
            .block_on(endpoint.connect())
            .with_context(|| format!("no runtime answers on {}", socket.display()))?;
        Ok(Self {
            tokio,
            client: RuntimeServiceClient::new(channel),
        })
    }

    /// Makes one call; the client is cheap to clone and wants to be mutable.
    fn call<T, F>(
        &self,
        what: &str,
        call: impl FnOnce(RuntimeServiceClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.tokio
            .block_on(call(self.client.clone()))
            .map(Response::into_inner)
            .with_context(|| format!("the runtime refused {what}"))
    }

    /// Starts a pod's sandbox and returns its id.
    ///
    /// # Errors
    /// As the runtime says.
    pub fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String> {
        let request = RunPodSandboxRequest {
            config: Some(config),
        };
        self.call("RunPodSandbox", |mut c| async move {
            c.run_pod_sandbox(request).await
        })
        .map(|r| r.pod_sandbox_id)
    }

    /// The ids of all sandboxes, running or not.
    ///
    /// # Errors
    /// As the runtime says.
    pub fn sandboxes(&self) -> Result<Vec<String>> {
        let answer = self.call("ListPodSandbox", |mut c| async move {
            c.list_pod_sandbox(ListPodSandboxRequest {}).await
        })?;
        Ok(answer.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    /// The address of a sandbox.
    ///
    /// # Errors
    /// As the runtime says, or when it has none.
    pub fn sandbox_ip(&self, sandbox: &str) -> Result<String> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.into(),
        };
        self.call("PodSandboxStatus", |mut c| async move {
            c.pod_sandbox_status(request).await
        })?
        .status
        .and_then(|s| s.network)
        .map(|n| n.ip)
        .filter(|ip| !ip.is_empty())
        .with_context(|| format!("sandbox {sandbox} has no address"))
    }

    /// Ends a sandbox with all its containers, and forgets it.
    ///
    /// # Errors
    /// As the runtime says.
    pub fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: sandbox.into(),
        };
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: sandbox.into(),
        };
        self.call("StopPodSandbox", |mut c| async move {
            c.stop_pod_sandbox(stop).await
        })?;
        self.call("RemovePodSandbox", |mut c| async move {
            c.remove_pod_sandbox(remove).await
        })?;
        Ok(())
    }

    /// Creates a container in a sandbox, without starting it, and returns its id.
    ///
    /// # Errors
    /// As the runtime says.
    pub fn create_container(
        &self,
        sandbox: &str,
        pod: PodSandboxConfig,
        config: ContainerConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.into(),
            config: Some(config),
            sandbox_config: Some(pod),
        };
        self.call("CreateContainer", |mut c| async move {
            c.create_container(request).await
        })
        .map(|r| r.container_id)
    }

    /// Starts a created container.
    ///
    /// # Errors
    /// As the runtime says.
    pub fn start_container(&self, container: &str) -> Result<()> {
        let request = StartContainerRequest {
            container_id: container.into(),
        };
        self.call("StartContainer", |mut c| async move {
            c.start_container(request).await
        })
        .map(drop)
    }

    /// Waits for a container's own end and returns its exit status.
    ///
    /// # Errors
    /// As the runtime says, or when it does not end.
    pub fn wait_container(&self, container: &str) -> Result<i32> {
        for _ in 0..3000 {
            let (status, _) = self.container_status(container)?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(status.exit_code);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("container {container} does not end")
    }

    /// The first process of a container, as the machine numbers it.
    ///
    /// # Errors
    /// As the runtime says, or when it does not run.
    pub fn container_pid(&self, container: &str) -> Result<u32> {
        let (_, info) = self.container_status(container)?;
        let info: serde_json::Value =
            serde_json::from_str(&info).context("the runtime's verbose info")?;
        info["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0)
            .with_context(|| format!("container {container} does not run"))
    }

    fn container_status(&self, container: &str) -> Result<(ContainerStatus, String)> {
        let request = ContainerStatusRequest {
            container_id: container.into(),
            verbose: true,
        };
        let mut answer = self.call("ContainerStatus", |mut c| async move {
            c.container_status(request).await
        })?;
        let info = answer.info.remove("info").unwrap_or_default();
        Ok((
            answer.status.context("the runtime's status is empty")?,
            info,
        ))
    }

    /// Runs a command in a container, as `kubectl exec` does.
    ///
    /// # Errors
    /// As the runtime says. A command that fails is no error here.
    pub fn exec(&self, container: &str, cmd: &[&str]) -> Result<Executed> {
        let request = ExecSyncRequest {
            container_id: container.into(),
            cmd: cmd.iter().map(ToString::to_string).collect(),
            timeout: EXEC_TIMEOUT_SECONDS,
        };
        let answer = self.call(
            "ExecSync",
            |mut c| async move { c.exec_sync(request).await },
        )?;
        Ok(Executed {
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
            code: answer.exit_code,
        })
    }
}
