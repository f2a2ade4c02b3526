//! Device nodes as config.json and the specification ask for them. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::inside;
use super::plan::no_nul;
use crate::error::{Error, Result};

/// A device node below the rootfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) path: PathBuf,
    pub(super) kind: DeviceKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceKind {
    Char(u64),
    Block(u64),
    Fifo,
}

/// The devices that every container has, and those of config.json, which win.
pub(super) fn devices(linux: Option<&Linux>) -> Result<Vec<Device>> {
    let standard = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    let mut devices: Vec<Device> = Vec::new();
    for (index, device) in linux
        .and_then(|l| l.devices().as_ref())
        .into_iter()
        .flatten()
        .enumerate()
    {
        let device = Device::from_spec(index, device)?;
        devices.retain(|have| have.path != device.path);
        devices.push(device);
    }
    for (name, major, minor) in standard {
        let path = Path::new("dev").join(name);
        if !devices.iter().any(|have| have.path == path) {
            let kind = DeviceKind::Char(libc::makedev(major, minor));
            devices.push(Device {
                path,
                kind,
                mode: 0o666,
                uid: 0,
                gid: 0,
            });
        }
    }
    Ok(devices)
}

impl Device {
    fn from_spec(index: usize, device: &LinuxDevice) -> Result<Self> {
        let broken = |field: &str, rule: &str| Error::spec(format!("linux.devices[{index}].{field}"), rule);
        let path = inside::names(device.path());
        if !device.path().is_absolute() || path.as_os_str().is_empty() {
            return Err(broken("path", "must be an absolute path below the root"));
        }
        no_nul(device.path()).map_err(|rule| broken("path", &rule))?;
        let number = || {
            let major = u32::try_from(device.major())
                .ok()
                .filter(|major| *major < 1 << 12);
            let minor = u32::try_from(device.minor())
                .ok()
                .filter(|minor| *minor < 1 << 20);
            Ok(libc::makedev(
                major.ok_or_else(|| broken("major", "must be from 0 to 4095"))?,
                minor.ok_or_else(|| broken("minor", "must be from 0 to 1048575"))?,
            ))
        };
        let kind = match device.typ() {
            LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char(number()?),
            LinuxDeviceType::B => DeviceKind::Block(number()?),
            LinuxDeviceType::P => DeviceKind::Fifo,
            LinuxDeviceType::A => return Err(broken("type", "must be c, u, b or p")),
        };
        Ok(Self {
            path,
            kind,
            // Some engines write the type of the node into the mode, too.
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        })
    }
}
