//! `ContainerResources`.

use engine::{Device, DeviceValue, Resources, Ulimit};
use proto::v1::ContainerResources;
use proto::v1::container_resources as v1;

pub(super) fn of_message(message: ContainerResources) -> Resources {
    let values = |list: Vec<v1::DeviceValue>| {
        let value = |v1::DeviceValue { path, value }| DeviceValue { path, value };
        list.into_iter().map(value).collect()
    };
    let device = |v1::Device {
                      source,
                      target,
                      access,
                  }| Device {
        source,
        target,
        access,
    };
    let ulimit = |v1::Ulimit { name, soft, hard }| Ulimit { name, soft, hard };
    Resources {
        memory_swap_bytes: message.memory_swap_bytes,
        memory_reservation_bytes: message.memory_reservation_bytes,
        memory_swappiness: message.memory_swappiness,
        oom_kill_disable: message.oom_kill_disable,
        oom_score_adj: message.oom_score_adj,
        cpu_shares: message.cpu_shares,
        cpu_period_micros: message.cpu_period_micros,
        cpu_quota_micros: message.cpu_quota_micros,
        cpu_rt_period_micros: message.cpu_rt_period_micros,
        cpu_rt_runtime_micros: message.cpu_rt_runtime_micros,
        cpuset_cpus: message.cpuset_cpus,
        cpuset_mems: message.cpuset_mems,
        blkio_weight: message.blkio_weight,
        blkio_weight_devices: values(message.blkio_weight_devices),
        read_bps: values(message.read_bps),
        write_bps: values(message.write_bps),
        read_iops: values(message.read_iops),
        write_iops: values(message.write_iops),
        devices: message.devices.into_iter().map(device).collect(),
        ulimits: message.ulimits.into_iter().map(ulimit).collect(),
        device_cgroup_rules: message.device_cgroup_rules,
        shm_bytes: message.shm_bytes,
        cgroup_parent: message.cgroup_parent,
    }
}

pub(super) fn message(resources: Resources) -> ContainerResources {
    let values = |list: Vec<DeviceValue>| {
        let value = |DeviceValue { path, value }| v1::DeviceValue { path, value };
        list.into_iter().map(value).collect()
    };
    let device = |Device {
                      source,
                      target,
                      access,
                  }| v1::Device {
        source,
        target,
        access,
    };
    let ulimit = |Ulimit { name, soft, hard }| v1::Ulimit { name, soft, hard };
    ContainerResources {
        memory_swap_bytes: resources.memory_swap_bytes,
        memory_reservation_bytes: resources.memory_reservation_bytes,
        memory_swappiness: resources.memory_swappiness,
        oom_kill_disable: resources.oom_kill_disable,
        oom_score_adj: resources.oom_score_adj,
        cpu_shares: resources.cpu_shares,
        cpu_period_micros: resources.cpu_period_micros,
        cpu_quota_micros: resources.cpu_quota_micros,
        cpu_rt_period_micros: resources.cpu_rt_period_micros,
        cpu_rt_runtime_micros: resources.cpu_rt_runtime_micros,
        cpuset_cpus: resources.cpuset_cpus,
        cpuset_mems: resources.cpuset_mems,
        blkio_weight: resources.blkio_weight,
        blkio_weight_devices: values(resources.blkio_weight_devices),
        read_bps: values(resources.read_bps),
        write_bps: values(resources.write_bps),
        read_iops: values(resources.read_iops),
        write_iops: values(resources.write_iops),
        devices: resources.devices.into_iter().map(device).collect(),
        ulimits: resources.ulimits.into_iter().map(ulimit).collect(),
        device_cgroup_rules: resources.device_cgroup_rules,
        shm_bytes: resources.shm_bytes,
        cgroup_parent: resources.cgroup_parent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_come_back_as_they_were_asked_for() {
        let disk = |value| {
            vec![v1::DeviceValue {
                path: "/dev/sda".to_owned(),
                value,
            }]
        };
        let asked = ContainerResources {
            memory_swap_bytes: 1,
            memory_reservation_bytes: 2,
            memory_swappiness: Some(3),
            oom_kill_disable: true,
            oom_score_adj: -4,
            cpu_shares: 5,
            cpu_period_micros: 6,
            cpu_quota_micros: -7,
            cpu_rt_period_micros: 90,
            cpu_rt_runtime_micros: 91,
            cpuset_cpus: "0".to_owned(),
            cpuset_mems: "1".to_owned(),
            blkio_weight: 8,
            blkio_weight_devices: disk(9),
            read_bps: disk(10),
            write_bps: disk(11),
            read_iops: disk(12),
            write_iops: disk(13),
            devices: vec![v1::Device {
                source: "/dev/a".to_owned(),
                target: "/dev/b".to_owned(),
                access: "r".to_owned(),
            }],
            device_cgroup_rules: vec!["c 1:3 r".to_owned()],
            shm_bytes: 14,
            ulimits: vec![v1::Ulimit {
                name: "core".to_owned(),
                soft: 15,
                hard: 16,
            }],
            cgroup_parent: "/p".to_owned(),
        };
        assert_eq!(message(of_message(asked.clone())), asked);
    }
}
