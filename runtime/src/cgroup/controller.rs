//! The kernel's resource controllers by both of their names, and what each is asked to do by `linux.resources`.

use oci_spec::runtime::LinuxResources;

use super::layout::Version;
use super::setting::Setting;
use super::{v1, v2};
use crate::error::Result;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Controller {
    Cpu,
    Cpuset,
    Memory,
    Pids,
    Io,
    Hugetlb,
    Rdma,
    NetCls,
    NetPrio,
}

impl Controller {
    pub(super) const ALL: [Self; 9] = [
        Self::Cpu,
        Self::Cpuset,
        Self::Memory,
        Self::Pids,
        Self::Io,
        Self::Hugetlb,
        Self::Rdma,
        Self::NetCls,
        Self::NetPrio,
    ];

    pub(super) fn v1_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => "blkio",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
        }
    }

    /// `None` for what cgroup2 does not have.
    pub(super) fn v2_name(self) -> Option<&'static str> {
        match self {
            Self::Io => Some("io"),
            Self::NetCls | Self::NetPrio => None,
            other => Some(other.v1_name()),
        }
    }

    /// The first field that needs this controller, if any does.
    pub(super) fn wanted_by(self, resources: &LinuxResources) -> Result<Option<String>> {
        let v1 = self.settings(Version::V1, resources)?;
        Ok(v1.into_iter().next().map(|setting| setting.field))
    }

    pub(super) fn settings(self, version: Version, resources: &LinuxResources) -> Result<Vec<Setting>> {
        match version {
            Version::V1 => Ok(v1::settings(self, resources)),
            Version::V2 => v2::settings(self, resources),
        }
    }
}
