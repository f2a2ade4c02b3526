//! Changing the limits of a running container: only what the request names is written, and a request that the
//! kernel refuses halfway leaves everything as it was.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::devices::{self, Policy};
use super::dir::Dir;
use super::filter;
use super::layout::Version;
use super::make;
use super::paths::Paths;
use super::place;
use super::plan::Limits;
use super::setting::{self, Old};
use super::systemd::CPU_PERIOD_USEC;
use super::validate;
use crate::error::{Error, Result};

impl Paths {
    /// Device rules are changed only if `resources` has some; then they are the whole list.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<()> {
        validate::check(resources)?;
        let mut resources = resources.clone();
        if let Some(memory) = resources.memory() {
            let memory = self.complete_memory(*memory)?;
            resources.set_memory(Some(memory));
        }
        let mut limits = Limits::resolve(Some(&resources), &self.places)?;
        if resources.devices().is_some() {
            limits.devices = Some(Policy::from_resources(Some(&resources))?);
        }
        if let Some(place) = place::v2(&self.places)
            && !limits.controllers.is_empty()
        {
            make::enable(place, &make::open(&place.path)?, &limits, &[])?;
        }
        let mut done: Vec<(Dir, Vec<Old>)> = Vec::new();
        let mut result = self.carry_out(&limits, &mut done);
        if let Some(unit) = &self.unit
            && result.is_ok()
        {
            // systemd writes what it was told into the files, rounded. So they are written again.
            result = unit
                .update(&resources, self.cpu_period(), place::version(&self.places))
                .and_then(|()| self.carry_out(&limits, &mut Vec::new()));
        }
        let Err(error) = result else { return Ok(()) };
        let mut left = String::new();
        for (dir, old) in done.into_iter().rev() {
            if let Err(error) = setting::restore(&dir, old) {
                left = format!("{left}; {error}");
            }
        }
        if left.is_empty() {
            return Err(error);
        }
        Err(Error::Refused(format!("{error}{left}")))
    }

    /// In microseconds.
    fn cpu_period(&self) -> u64 {
        let (place, file, word) = match place::v1(&self.places, "cpu") {
            Some(place) => (Some(place), "cpu.cfs_period_us", 0),
            None => (place::v2(&self.places), "cpu.max", 1),
        };
        let text = place.and_then(|place| std::fs::read_to_string(place.path.join(file)).ok());
        let period = text.and_then(|text| text.split_whitespace().nth(word)?.parse().ok());
        period.unwrap_or(CPU_PERIOD_USEC)
    }

    fn carry_out(&self, limits: &Limits, done: &mut Vec<(Dir, Vec<Old>)>) -> Result<()> {
        for (index, settings) in &limits.settings {
            let dir = make::open(&self.places[*index].path)?;
            let mut old = Vec::new();
            let result = setting::apply(&dir, &settings.iter().collect::<Vec<_>>(), Some(&mut old));
            done.push((dir, old));
            result?;
        }
        let Some(policy) = &limits.devices else {
            return Ok(());
        };
        if let Some(place) = place::v1(&self.places, "devices") {
            return devices::update_v1(&make::open(&place.path)?, policy);
        }
        match place::v2(&self.places) {
            Some(place) => filter::attach(&make::open(&place.path)?, policy),
            None => Ok(()),
        }
    }

    /// `checkBeforeUpdate`, and the memory limit in force where the request has memory+swap alone but v2 needs both.
    fn complete_memory(&self, mut memory: LinuxMemory) -> Result<LinuxMemory> {
        let v1 = place::v1(&self.places, "memory");
        let Some(place) = v1.or_else(|| place::v2(&self.places)) else {
            return Ok(memory);
        };
        let dir = make::open(&place.path)?;
        let number = |file: &str| {
            dir.read(file)
                .ok()
                .and_then(|text| text.trim().parse::<i64>().ok())
        };
        if memory.check_before_update() == Some(true) {
            let files = match place.version {
                Version::V1 => ["memory.usage_in_bytes", "memory.memsw.usage_in_bytes"],
                Version::V2 => ["memory.current", "memory.current"],
            };
            let asked = [("limit", memory.limit()), ("swap", memory.swap())];
            for ((name, limit), file) in asked.into_iter().zip(files) {
                let (Some(limit), Some(usage)) = (limit.filter(|limit| *limit > 0), number(file)) else {
                    continue;
                };
                if limit <= usage {
                    let rule = format!("{limit} is not above the {usage} bytes in use (checkBeforeUpdate)");
                    return Err(Error::spec(format!("linux.resources.memory.{name}"), rule));
                }
            }
        }
        let swap_alone = memory.limit().unwrap_or(0) == 0 && memory.swap().is_some_and(|swap| swap > 0);
        if place.version == Version::V2 && swap_alone {
            memory.set_limit(number("memory.max"));
        }
        Ok(memory)
    }
}
