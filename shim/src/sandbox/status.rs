//! What the sandbox service tells of a sandbox.

use std::time::SystemTime;

use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::types::platform::Platform;

use crate::daemon::Shim;
use crate::start::phase_name;
use crate::status::Status;
use crate::task::{Phase, Reply};
use crate::{stats, timestamp};

impl Shim {
    pub(crate) fn sandbox_status(
        &mut self,
        reply: Reply,
        request: &api::SandboxStatusRequest,
    ) -> Result<(), Status> {
        let sandbox = self.sandbox_mut(&request.sandbox_id)?;
        let mut response = api::SandboxStatusResponse::new();
        response.sandbox_id.clone_from(&sandbox.id);
        response.pid = sandbox.pid;
        // CRI knows these two, by their names in its own enumeration.
        let is_ready = sandbox.phase == Phase::Running;
        response.state = if is_ready {
            "SANDBOX_READY"
        } else {
            "SANDBOX_NOTREADY"
        }
        .into();
        response.created_at = Some(timestamp::protobuf(sandbox.created_at)).into();
        if let Phase::Stopped(exit) = sandbox.phase {
            response.exited_at = Some(timestamp::protobuf(exit.at)).into();
        }
        if request.verbose {
            // The form that containerd's own sandboxer has, for `crictl inspectp`.
            let info = serde_json::json!({
                "pid": sandbox.pid,
                "processStatus": phase_name(sandbox.phase),
            });
            response.info.insert("info".into(), info.to_string());
        }
        self.answer(reply, &response);
        Ok(())
    }

    pub(crate) fn ping_sandbox(&mut self, reply: Reply, request: &api::PingRequest) -> Result<(), Status> {
        self.sandbox_mut(&request.sandbox_id)?;
        self.answer(reply, &api::PingResponse::new());
        Ok(())
    }

    pub(crate) fn sandbox_platform(
        &mut self,
        reply: Reply,
        request: &api::PlatformRequest,
    ) -> Result<(), Status> {
        self.sandbox_mut(&request.sandbox_id)?;
        let mut platform = Platform::new();
        platform.os = "linux".into();
        // As Go calls them.
        (platform.architecture, platform.variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64".into(), String::new()),
            "aarch64" => ("arm64".into(), "v8".into()),
            other => (other.into(), String::new()),
        };
        let mut response = api::PlatformResponse::new();
        response.platform = Some(platform).into();
        self.answer(reply, &response);
        Ok(())
    }

    /// The statistics of the whole pod: those of the group that the kubelet made for it.
    pub(crate) fn sandbox_metrics(
        &mut self,
        reply: Reply,
        request: &api::SandboxMetricsRequest,
    ) -> Result<(), Status> {
        let sandbox = self.sandbox_mut(&request.sandbox_id)?;
        let Some(cgroup) = &sandbox.pod_cgroup else {
            return Err(Status::not_found(format!(
                "sandbox {} has no control group for its pod (no cgroup_parent was asked for)",
                sandbox.id
            )));
        };
        let mut response = api::SandboxMetricsResponse::new();
        let metric = response.metrics.mut_or_insert_default();
        metric.id.clone_from(&sandbox.id);
        metric.timestamp = Some(timestamp::protobuf(SystemTime::now())).into();
        metric.data = Some(stats::read(cgroup)).into();
        self.answer(reply, &response);
        Ok(())
    }
}
