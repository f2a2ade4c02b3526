//! Kills for want of memory, told as they happen and noted in the exit of the container's init.

use std::time::Duration;

use containerd_shim_protos::events::task::TaskOOM;
use containerd_shim_protos::topics::TASK_OOM_EVENT_TOPIC;

use crate::cgroup::{Cgroup, MemoryWatch};
use crate::daemon::Shim;
use crate::reactor::{Deadline, Token};
use crate::shim_log;
use crate::task::Container;

/// Cgroup v1 wakes its watchers before it kills, and not again when it has: so the count is looked at again, after this
/// time and then after twice the time of the last look.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LOOKS: u32 = 9;

/// The watch on the container's memory group.
#[derive(Debug, Default)]
pub(crate) struct OutOfMemory {
    watch: Option<MemoryWatch>,
    /// What the group counts: those of its time before this container, and those that were told.
    kills: u64,
    /// One was told.
    pub told: bool,
    /// That are still to come.
    looks: u32,
}

impl Shim {
    /// Begins the watch. The container's groups are known.
    pub(crate) fn watch_memory(&mut self, id: &str) {
        let Some(Container {
            number,
            cgroup: Some(cgroup),
            out_of_memory,
            ..
        }) = self.containers.get_mut(id)
        else {
            return;
        };
        out_of_memory.kills = cgroup.oom_kills().unwrap_or(0);
        let watched = cgroup.watch_memory().and_then(|watch| {
            if let Some(watch) = &watch {
                self.reactor
                    .watch(watch, Token::OutOfMemory(*number), watch.interest())?;
            }
            Ok(watch)
        });
        match watched {
            Ok(watch) => out_of_memory.watch = watch,
            Err(error) => {
                shim_log::warn(format_args!(
                    "container {id}: no watch for out-of-memory kills: {error}"
                ));
            }
        }
    }

    pub(crate) fn unwatch_memory(&self, container: &mut Container) {
        if let Some(watch) = container.out_of_memory.watch.take() {
            self.reactor.forget(&watch);
        }
    }

    /// The watch has woken up.
    pub(crate) fn memory_ran_out(&mut self, number: u32) {
        let Some(id) = self.id_of(number) else { return };
        if let Some(watch) = &self.containers[&id].out_of_memory.watch {
            watch.settle();
            let tells_too_early = matches!(watch, MemoryWatch::Eventfd(_));
            if tells_too_early && let Some(container) = self.containers.get_mut(&id) {
                if container.out_of_memory.looks == 0 {
                    self.reactor.after(FIRST_LOOK, Deadline::OutOfMemory(number));
                }
                container.out_of_memory.looks = LOOKS;
            }
        }
        self.look_for_memory_kills(&id);
    }

    pub(crate) fn look_again_for_memory_kills(&mut self, number: u32) {
        let Some(id) = self.id_of(number) else { return };
        if let Some(container) = self.containers.get_mut(&id) {
            let looks = container.out_of_memory.looks.saturating_sub(1);
            container.out_of_memory.looks = looks;
            if looks > 0 {
                let pause = FIRST_LOOK * (1 << (LOOKS - looks));
                self.reactor.after(pause, Deadline::OutOfMemory(number));
            }
        }
        self.look_for_memory_kills(&id);
    }

    fn look_for_memory_kills(&mut self, id: &str) {
        if !self.tell_memory_kills(id)
            && let Some(container) = self.containers.get_mut(id)
            && let Some(watch) = container.out_of_memory.watch.take()
        {
            // The group is gone, and its watch would be ready for ever.
            self.reactor.forget(&watch);
        }
    }

    fn id_of(&self, number: u32) -> Option<String> {
        let mut containers = self.containers.iter();
        let found = containers.find(|(_, container)| container.number == number);
        found.map(|(id, _)| id.clone())
    }

    /// Tells of kills that were not told yet. False when the group tells nothing any more.
    pub(crate) fn tell_memory_kills(&mut self, id: &str) -> bool {
        let Some(container) = self.containers.get_mut(id) else {
            return false;
        };
        let Some(kills) = container.cgroup.as_ref().and_then(Cgroup::oom_kills) else {
            return false;
        };
        if kills > container.out_of_memory.kills {
            container.out_of_memory.kills = kills;
            container.out_of_memory.told = true;
            let mut event = TaskOOM::new();
            id.clone_into(&mut event.container_id);
            self.events.publish(
                TASK_OOM_EVENT_TOPIC,
                "containerd.events.TaskOOM",
                &event,
                &mut self.reactor,
            );
        }
        true
    }
}
