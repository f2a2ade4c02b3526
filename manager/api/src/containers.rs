//! The `Containers` service.

use std::time::Duration;

use engine::{
    AttachRequest, CommitRequest, CopyRequest, Engine, ExecRequest, ListFilters, LogsRequest, PruneFilters,
    Record, Stream, Until,
};
use proto::v1;
use proto::v1::containers_server::Containers as Service;
use proto::v1::wait_container_request::Condition;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::archives;
use crate::stats;
use crate::status::status;
use crate::stop::{Answers, Stopping};
use crate::streams;
use crate::translate;

pub(crate) struct Containers(pub(crate) Engine, pub(crate) Stopping);

#[tonic::async_trait]
impl Service for Containers {
    async fn create(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        let request = translate::create_request(request.into_inner()).map_err(status)?;
        let (container, warnings) = self.0.create(request).await.map_err(status)?;
        Ok(Response::new(v1::CreateContainerResponse {
            id: container.id.clone(),
            name: container.name.clone(),
            warnings,
        }))
    }

    async fn start(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        self.0
            .start(&request.into_inner().container)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        let request = request.into_inner();
        let timeout = request.timeout_seconds.map(seconds);
        self.0
            .stop(&request.container, timeout, &request.signal)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn restart(
        &self,
        request: Request<v1::RestartContainerRequest>,
    ) -> Result<Response<v1::RestartContainerResponse>, Status> {
        let request = request.into_inner();
        let timeout = request.timeout_seconds.map(seconds);
        self.0
            .restart(&request.container, timeout, &request.signal)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RestartContainerResponse {}))
    }

    async fn pause(
        &self,
        request: Request<v1::PauseContainerRequest>,
    ) -> Result<Response<v1::PauseContainerResponse>, Status> {
        let paused = self.0.pause(&request.into_inner().container).await;
        paused.map_err(status)?;
        Ok(Response::new(v1::PauseContainerResponse {}))
    }

    async fn unpause(
        &self,
        request: Request<v1::UnpauseContainerRequest>,
    ) -> Result<Response<v1::UnpauseContainerResponse>, Status> {
        let unpaused = self.0.unpause(&request.into_inner().container).await;
        unpaused.map_err(status)?;
        Ok(Response::new(v1::UnpauseContainerResponse {}))
    }

    async fn prune(
        &self,
        request: Request<v1::PruneContainersRequest>,
    ) -> Result<Response<v1::PruneContainersResponse>, Status> {
        let filters = PruneFilters::parse(&request.into_inner().filters).map_err(status)?;
        let pruned = self.0.prune_containers(&filters).await.map_err(status)?;
        Ok(Response::new(v1::PruneContainersResponse {
            deleted: pruned.deleted,
            freed_bytes: pruned.freed_bytes,
        }))
    }

    async fn top(&self, request: Request<v1::TopRequest>) -> Result<Response<v1::TopResponse>, Status> {
        let request = request.into_inner();
        let told = self.0.top(&request.container, &request.ps_args).await;
        let told = told.map_err(status)?;
        let process = |fields| v1::top_response::Process { fields };
        Ok(Response::new(v1::TopResponse {
            titles: told.titles,
            processes: told.rows.into_iter().map(process).collect(),
        }))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateContainerRequest>,
    ) -> Result<Response<v1::UpdateContainerResponse>, Status> {
        let (container, changes) = translate::update(request.into_inner()).map_err(status)?;
        let warnings = self.0.update(&container, changes).await.map_err(status)?;
        Ok(Response::new(v1::UpdateContainerResponse { warnings }))
    }

    async fn stats(
        &self,
        request: Request<v1::StatsRequest>,
    ) -> Result<Response<Answers<v1::StatsResponse>>, Status> {
        let request = request.into_inner();
        let sampler = self.0.stats(&request.containers, request.all).map_err(status)?;
        Ok(Response::new(self.1.cut(stats::stats(sampler, request.once))))
    }

    async fn rename(
        &self,
        request: Request<v1::RenameContainerRequest>,
    ) -> Result<Response<v1::RenameContainerResponse>, Status> {
        let request = request.into_inner();
        self.0
            .rename(&request.container, &request.name)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RenameContainerResponse {}))
    }

    async fn kill(
        &self,
        request: Request<v1::KillContainerRequest>,
    ) -> Result<Response<v1::KillContainerResponse>, Status> {
        let request = request.into_inner();
        self.0
            .kill(&request.container, &request.signal)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::KillContainerResponse {}))
    }

    async fn wait(
        &self,
        request: Request<v1::WaitContainerRequest>,
    ) -> Result<Response<v1::WaitContainerResponse>, Status> {
        let request = request.into_inner();
        let until = match request.condition() {
            Condition::NotRunning => Until::NotRunning,
            Condition::NextExit => Until::NextExit,
            Condition::Removed => Until::Removed,
        };
        let mut stopping = self.1.clone();
        let exit = tokio::select! {
            exit = self.0.wait(&request.container, until) => exit.map_err(status)?,
            stops = stopping.status() => return Err(stops),
        };
        Ok(Response::new(v1::WaitContainerResponse {
            exit: exit.map(translate::exit),
        }))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        let request = request.into_inner();
        self.0
            .remove(&request.container, request.force, request.volumes)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        let prefix = self.0.subnet_prefix();
        let request = request.into_inner();
        let filters = ListFilters::parse(&request.filters).map_err(status)?;
        let listed = self.0.list_filtered(request.all, &filters).await;
        let mut containers = listed.map_err(status)?;
        if request.last > 0 {
            containers.truncate(usize::try_from(request.last).unwrap_or(usize::MAX));
        }
        let mut messages: Vec<_> = containers
            .iter()
            .map(|container| translate::container(container, prefix))
            .map(|message| translate::networks::add(&self.0, message))
            .map(without_health_log)
            .collect();
        if request.size {
            let sizes = self.0.sizes(&containers).await.map_err(status)?;
            for (message, size) in messages.iter_mut().zip(sizes) {
                message.size = Some(translate::size(size));
            }
        }
        let containers = messages;
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectContainerRequest>,
    ) -> Result<Response<v1::InspectContainerResponse>, Status> {
        let request = request.into_inner();
        let inspection = self.0.inspect(&request.container).await.map_err(status)?;
        let mut container = translate::networks::add(
            &self.0,
            translate::container(&inspection.container, self.0.subnet_prefix()),
        );
        if request.size {
            let sizes = self.0.sizes(std::slice::from_ref(&inspection.container)).await;
            container.size = sizes.map_err(status)?.into_iter().next().map(translate::size);
        }
        Ok(Response::new(v1::InspectContainerResponse {
            container: Some(container),
            bundle_config_json: inspection.bundle_config_json,
            log_path: inspection.log_path.to_string_lossy().into_owned(),
            request: Some(translate::create_message(&inspection.container.request)),
            mounts: inspection
                .container
                .mounts
                .iter()
                .map(translate::storage::mount_message)
                .collect(),
        }))
    }

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Answers<v1::LogChunk>>, Status> {
        let request = request.into_inner();
        let details = request.details;
        let records = self
            .0
            .logs(LogsRequest {
                container: request.container,
                follow: request.follow,
                tail_lines: request.tail_lines,
                since_unix_nanos: request.since_unix_nanos,
                until_unix_nanos: request.until_unix_nanos,
            })
            .await
            .map_err(status)?;
        let chunks = ReceiverStream::new(records)
            .map(move |record| record.map(|record| chunk(record, details)).map_err(status));
        Ok(Response::new(self.1.cut(chunks)))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachInput>>,
    ) -> Result<Response<Answers<v1::AttachOutput>>, Status> {
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.and_then(|input| input.kind);
        let Some(v1::attach_input::Kind::Start(start)) = first else {
            return Err(Status::invalid_argument(
                "the first input of an attach has to be `start`",
            ));
        };
        let request = AttachRequest {
            container: start.container,
            stdin: start.stdin,
            replay: start.replay,
            without_output: start.without_output,
        };
        let attachment = self.0.attach(request).await.map_err(status)?;
        let attached = v1::Attached {
            tty: attachment.tty,
            exec_id: String::new(),
        };
        streams::feed(inputs, attachment.input);
        let outputs = streams::outputs(attached, attachment.output);
        Ok(Response::new(self.1.cut(outputs)))
    }

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecInput>>,
    ) -> Result<Response<Answers<v1::AttachOutput>>, Status> {
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.and_then(|input| input.kind);
        let Some(v1::exec_input::Kind::Start(start)) = first else {
            return Err(Status::invalid_argument(
                "the first input of an exec has to be `start`",
            ));
        };
        let tty = start.tty;
        let attachment = self
            .0
            .exec(ExecRequest {
                container: start.container,
                args: start.args,
                env: start.env,
                working_dir: start.working_dir,
                user: start.user,
                tty,
                stdin: start.stdin,
                detach: start.detach,
                privileged: start.privileged,
                window: start.window.map(|size| (size.columns, size.rows)),
            })
            .await
            .map_err(status)?;
        let attached = v1::Attached {
            tty,
            exec_id: attachment.exec_id,
        };
        streams::feed(inputs, attachment.input);
        let outputs = streams::outputs(attached, attachment.output);
        Ok(Response::new(self.1.cut(outputs)))
    }

    async fn diff(
        &self,
        request: Request<v1::DiffRequest>,
    ) -> Result<Response<Answers<v1::DiffResponse>>, Status> {
        let (engine, container) = (self.0.clone(), request.into_inner().container);
        let changes = archives::send(|messages| async move {
            let mut changes = archives::Changes::new(messages);
            engine.diff(&container, move |change| changes.put(change)).await
        });
        Ok(Response::new(self.1.cut(changes)))
    }

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Answers<v1::Chunk>>, Status> {
        let (engine, container) = (self.0.clone(), request.into_inner().container);
        let chunks =
            archives::send(
                |chunks| async move { engine.export(&container, archives::Sender::new(chunks)).await },
            );
        Ok(Response::new(self.1.cut(chunks)))
    }

    async fn stat_path(
        &self,
        request: Request<v1::StatPathRequest>,
    ) -> Result<Response<v1::StatPathResponse>, Status> {
        let request = request.into_inner();
        let found = self.0.stat_path(&request.container, &request.path).await;
        let found = found.map_err(status)?;
        Ok(Response::new(v1::StatPathResponse {
            name: found.name,
            size_bytes: found.size_bytes,
            mode: found.mode,
            modified_unix_nanos: found.modified_unix_nanos,
            link_target: found.link_target,
        }))
    }

    async fn copy_from(
        &self,
        request: Request<v1::CopyFromRequest>,
    ) -> Result<Response<Answers<v1::Chunk>>, Status> {
        let (engine, request) = (self.0.clone(), request.into_inner());
        let chunks = archives::send(|chunks| async move {
            let cut = chunks.cut.clone();
            let sender = archives::Sender::new(chunks);
            engine
                .copy_from(&request.container, &request.path, request.name, sender, cut)
                .await
        });
        Ok(Response::new(self.1.cut(chunks)))
    }

    async fn copy_to(
        &self,
        request: Request<Streaming<v1::CopyInput>>,
    ) -> Result<Response<v1::CopyToResponse>, Status> {
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.and_then(|input| input.kind);
        let Some(v1::copy_input::Kind::Start(start)) = first else {
            return Err(Status::invalid_argument(
                "the first input of a copy has to be `start`",
            ));
        };
        let request = CopyRequest {
            container: start.container,
            path: start.path,
            to_user: start.to_user,
        };
        let cut = CancellationToken::new();
        let archive = archives::receive(inputs, &self.1, cut.clone());
        self.0.copy_to(request, archive, cut).await.map_err(status)?;
        Ok(Response::new(v1::CopyToResponse {}))
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::ImageResponse>, Status> {
        let request = request.into_inner();
        let image = self
            .0
            .commit(CommitRequest {
                container: request.container,
                name: request.name,
                author: request.author,
                message: request.message,
                changes: request.changes,
                pause: request.pause,
            })
            .await
            .map_err(status)?;
        Ok(Response::new(v1::ImageResponse {
            image: Some(translate::image(&image)),
        }))
    }
}

/// What probes wrote would make the list of many containers longer than an answer may be.
fn without_health_log(mut container: v1::Container) -> v1::Container {
    if let Some(health) = &mut container.health {
        health.log.clear();
    }
    container
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn chunk(record: Record, details: bool) -> v1::LogChunk {
    let stream = match record.stream {
        Stream::Stdout => v1::log_chunk::Stream::Stdout,
        Stream::Stderr => v1::log_chunk::Stream::Stderr,
    };
    v1::LogChunk {
        stream: stream.into(),
        data: record.data,
        at_unix_nanos: record.at_unix_nanos,
        attributes: record
            .attributes
            .filter(|_| details)
            .map(|attributes| attributes.into_iter().collect())
            .unwrap_or_default(),
    }
}
