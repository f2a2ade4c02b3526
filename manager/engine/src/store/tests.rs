//! What the database must keep.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::container::State;
use crate::request::{Bind, CreateRequest, Mount, Source, VolumeSource};

pub(crate) fn container(id: &str, name: &str) -> Container {
    Container {
        id: id.to_owned(),
        name: name.to_owned(),
        mounts: Vec::new(),
        image_id: "sha256:1".to_owned(),
        command: vec!["true".to_owned()],
        stop_signal: 15,
        request: Arc::new(CreateRequest {
            image: "busybox".to_owned(),
            ..CreateRequest::default()
        }),
        state: State::Created,
        pid: 0,
        runs: 0,
        exit: None,
        created_unix_nanos: 1,
        started_unix_nanos: 0,
        address: None,
        bridge_slot: 0,
        ports: Vec::new(),
        error: String::new(),
        restarts: 0,
        stopped_by_hand: false,
        update_pending: false,
        health: None,
    }
}

const SUBNET: Option<Subnet> = Some(Subnet {
    gateway: Ipv4Addr::new(10, 0, 0, 1),
    prefix: 29,
});

#[tokio::test]
async fn what_is_acknowledged_is_there_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.db");
    let (store, none, _) = Store::open(&path).unwrap();
    assert!(none.is_empty());
    let address = store.insert(container("a1", "one"), SUBNET).await.unwrap();
    assert_eq!(address, Some(Ipv4Addr::new(10, 0, 0, 2)));
    let port = |host_port| PublishedPort {
        host_address: Ipv4Addr::LOCALHOST.into(),
        host_port,
        protocol: network::Protocol::Udp,
        container_port: 53,
    };
    let on_v6 = PublishedPort {
        host_address: std::net::Ipv6Addr::UNSPECIFIED.into(),
        ..port(1053)
    };
    let ports = vec![port(1053), port(2053), on_v6];
    let started = store.started("a1", 42, 7, By::Hand, ports.clone());
    started.await.unwrap();
    drop(store);
    let (store, read, _) = Store::open(&path).unwrap();
    assert_eq!(read[0].ports, ports);
    assert_eq!(
        (read[0].state, read[0].pid, read[0].runs),
        (State::Running, 42, 1)
    );
    assert_eq!(read[0].address, address);

    let exit = Exit {
        code: 137,
        at_unix_nanos: 9,
        oom_killed: true,
    };
    store.exited("a1", exit, "", Next::Restart).await.unwrap();
    drop(store);
    let (_, read, _) = Store::open(&path).unwrap();
    assert_eq!(
        (read[0].state, read[0].pid, read[0].exit),
        (State::Restarting, 0, Some(exit))
    );
    assert_eq!(read[0].ports, []);
}

#[tokio::test]
async fn a_second_container_of_the_same_name_is_told_who_has_it_and_takes_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let (store, ..) = Store::open(&folder.path().join("engine.db")).unwrap();
    store.insert(container("a1", "one"), SUBNET).await.unwrap();
    let error = store.insert(container("b2", "one"), SUBNET).await.unwrap_err();
    assert!(
        matches!(&error, Error::NameTaken { name, holder } if name == "one" && holder == "a1"),
        "{error}"
    );
    let address = store.insert(container("c3", "three"), SUBNET).await.unwrap();
    assert_eq!(address, Some(Ipv4Addr::new(10, 0, 0, 3)));
}

#[tokio::test]
async fn a_deleted_container_gives_its_name_and_address_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, ..) = Store::open(&folder.path().join("engine.db")).unwrap();
    for _ in 0..3 {
        let address = store.insert(container("a1", "one"), SUBNET).await.unwrap();
        assert_eq!(address, Some(Ipv4Addr::new(10, 0, 0, 2)));
        store.delete("a1", false).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_free_address_no_container_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.db");
    let (store, ..) = Store::open(&path).unwrap();
    for index in 0..5 {
        store
            .insert(container(&format!("a{index}"), &format!("n{index}")), SUBNET)
            .await
            .unwrap();
    }
    let error = store.insert(container("a9", "n9"), SUBNET).await.unwrap_err();
    assert!(matches!(error, Error::NoAddress(_)), "{error}");
    drop(store);
    assert_eq!(Store::open(&path).unwrap().1.len(), 5);
}

#[tokio::test]
async fn many_writes_at_once_are_each_answered_for_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (store, ..) = Store::open(&folder.path().join("engine.db")).unwrap();
    let inserts = (0..100).map(|index| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .insert(container(&format!("{index}"), &format!("n{}", index / 2)), None)
                .await
        })
    });
    let inserts: Vec<_> = inserts.collect();
    let mut kept = 0;
    for insert in inserts {
        kept += usize::from(insert.await.unwrap().is_ok());
    }
    assert_eq!(kept, 50);
}

#[test]
fn a_database_of_the_future_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.db");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    assert!(matches!(
        Store::open(&path).unwrap_err(),
        Error::SchemaTooNew { found: 99, .. }
    ));
}

#[tokio::test]
async fn binds_of_an_older_managers_containers_are_mounts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.db");
    let (store, ..) = Store::open(&path).unwrap();
    let mut old = container("a1", "one");
    old.request = Arc::new(CreateRequest {
        binds: vec![Bind {
            source: "/s".to_owned(),
            target: "/t".to_owned(),
            read_only: true,
        }],
        ..(*old.request).clone()
    });
    store.insert(old, None).await.unwrap();
    drop(store);
    // As the migration leaves them.
    let connection = Connection::open(&path).unwrap();
    connection.busy_timeout(Duration::from_mins(1)).unwrap();
    connection
        .execute("UPDATE containers SET mounts = NULL", [])
        .unwrap();
    drop(connection);
    let (_, read, _) = Store::open(&path).unwrap();
    let [mount] = &read[0].mounts[..] else { panic!() };
    assert_eq!((mount.target.as_str(), mount.read_only), ("/t", true));
}

#[tokio::test]
async fn a_volume_is_removed_with_its_last_user_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (store, ..) = Store::open(&folder.path().join("engine.db")).unwrap();
    let with = |id: &str, anonymous| {
        let mut container = container(id, id);
        container.mounts = vec![Mount {
            target: "/v".to_owned(),
            read_only: false,
            source: Source::Volume(VolumeSource {
                name: "vol".to_owned(),
                driver: "local".to_owned(),
                anonymous,
                ..VolumeSource::default()
            }),
        }];
        container
    };
    store.insert(with("a1", true), None).await.unwrap();
    store.insert(with("b2", true), None).await.unwrap();
    let refused = store.mark_volume("vol").await.unwrap_err().to_string();
    assert!(refused.contains("in use") && refused.contains("b2"), "{refused}");
    store.delete("a1", true).await.unwrap();
    assert_eq!(store.volumes().await.unwrap()[0].containers, ["b2"]);
    store.delete("b2", true).await.unwrap();
    assert!(store.volumes().await.unwrap().is_empty());
    let marked = store.marked_volumes().await.unwrap();
    assert_eq!(marked, [("vol".to_owned(), "local".to_owned())]);
    // Until its folder is gone, nobody gets it anew.
    let refused = store.insert(with("c3", false), None).await.unwrap_err();
    assert!(matches!(refused, Error::VolumeGoing(_)), "{refused}");
    store.forget_volume("vol").await.unwrap();
    store.insert(with("c3", false), None).await.unwrap();
    store.delete("c3", true).await.unwrap();
    assert_eq!(store.volumes().await.unwrap().len(), 1, "it has a name");
}

#[tokio::test]
async fn networks_of_an_older_manager_have_no_ipv6_and_new_ones_keep_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.db");
    let connection = Connection::open(&path).unwrap();
    for step in &schema::STEPS[..7] {
        connection.execute_batch(step).unwrap();
    }
    connection.pragma_update(None, "user_version", 7).unwrap();
    let settings = r#"{"id":"n1","name":"web","driver":"bridge","subnet":{"first":"10.7.0.0","prefix":24},
        "gateway":"10.7.0.1","ip_range":null,"aux_addresses":{},"internal":false,"labels":{},"options":{},
        "created_unix_nanos":1}"#;
    connection
        .execute("INSERT INTO networks VALUES ('n1', 'web', ?1)", [settings])
        .unwrap();
    connection
        .execute_batch(
            r#"INSERT INTO containers (id, name, image_id, request, command, stop_signal, created_ns, state)
               VALUES ('a1', 'one', 'sha256:1', '{"image":"busybox"}', '["true"]', 15, 1, 'exited');
               INSERT INTO endpoints (container, network, address, slot, wanted)
               VALUES ('a1', 'n1', 168230914, 0, '{"network":"web"}');
               INSERT INTO ports VALUES ('tcp', 80, 0, 80, 'a1');"#,
        )
        .unwrap();
    drop(connection);

    let (store, read, networks) = Store::open(&path).unwrap();
    let old = networks.get("n1").unwrap();
    assert_eq!(old.v6, None);
    let place = &networks.of("a1")[0];
    assert_eq!(
        (place.address, place.address6),
        (Ipv4Addr::new(10, 7, 0, 2), None)
    );
    assert!(read[0].ports[0].host_address.is_ipv4());

    let with_v6 = UserNetwork {
        id: "n2".to_owned(),
        name: "six".to_owned(),
        v6: Some(crate::networks::UserNetwork6 {
            subnet: "fd00::/64".parse().unwrap(),
            gateway: "fd00::1".parse().unwrap(),
            ip_range: None,
            aux_addresses: std::collections::BTreeMap::new(),
        }),
        ..(*old).clone()
    };
    store.insert_network(with_v6.clone()).await.unwrap();
    let on_six = |id: &str, address6: Option<&str>| {
        let wanted = Joining {
            network: "six".to_owned(),
            address6: address6.map(|address| address.parse().unwrap()),
            ..Joining::default()
        };
        let place = (Arc::new(with_v6.clone()), wanted);
        store.insert_on_networks(container(id, id), vec![place])
    };
    on_six("b2", None).await.unwrap();
    let taken = on_six("c3", Some("fd00::2")).await.unwrap_err().to_string();
    assert!(taken.contains("already in use"), "{taken}");
    on_six("c3", Some("fd00::9")).await.unwrap();
    drop(store);
    let (_, _, networks) = Store::open(&path).unwrap();
    assert_eq!(networks.get("n2").unwrap().v6, with_v6.v6);
    for (id, address) in [("b2", "fd00::2"), ("c3", "fd00::9")] {
        assert_eq!(networks.of(id)[0].address6, Some(address.parse().unwrap()));
    }
}
