//! Changes to a container that is there. They are on record before the running container has them, marked as not
//! carried out, so that whatever comes in between, the next manager carries out what is on record.

use std::sync::Arc;

use super::Owner;
use crate::Error;
use crate::request::{CreateRequest, Resources, UpdateRequest};
use crate::shim::Shim;
use crate::spec::{self, cgroups::Cgroups, resources};

impl Owner {
    pub(super) async fn update(&mut self, changes: &UpdateRequest) -> Result<(), Error> {
        let old = Arc::clone(&self.container.request);
        let new = Arc::new(changes.applied_to(&old)?);
        resources::check_here(&new.resources, &Cgroups::of_this_machine())?;
        // What it has was allowed when it was made; the user may have fewer controllers by now.
        if limits_of(&old) != limits_of(&new) {
            self.engine.config.groups.check(&new)?;
        }
        match self.shim.clone() {
            Some(shim) if spec::update(&old, &new)?.is_some() => {
                if let Err(refused) = self.carry_over(&shim, &old, &new).await {
                    // Some of it may have come about.
                    if let Err(error) = self.carry_over(&shim, &new, &old).await {
                        tracing::warn!(id = self.container.id, %error, "an update is half undone");
                    }
                    return Err(refused);
                }
            }
            _ => self.engine.store.updated(&self.container.id, &new, false).await?,
        }
        Arc::make_mut(&mut self.container).request = new;
        self.publish();
        self.tell("update", &[]);
        Ok(())
    }

    /// Make a running container that was asked to be `old` one that was asked to be `new`.
    async fn carry_over(
        &mut self,
        shim: &Shim,
        old: &CreateRequest,
        new: &Arc<CreateRequest>,
    ) -> Result<(), Error> {
        let id = self.container.id.clone();
        self.engine.store.updated(&id, new, true).await?;
        failpoint::reach("update.recorded");
        if let Some(resources) = spec::update(old, new)? {
            shim.update(&resources).await?;
        }
        failpoint::reach("update.applied");
        self.engine.store.updated(&id, new, false).await
    }
}

fn limits_of(request: &CreateRequest) -> (i64, i64, i64, &Resources) {
    (
        request.memory_bytes,
        request.cpu_quota_millis,
        request.pids_limit,
        &request.resources,
    )
}
