//! The names of containers, as a client in another one finds them.

mod world;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use world::{Upstream, World, addresses, query, read, receive, with_edns, write};

#[test]
fn a_containers_name_has_its_addresses_and_nobody_else_is_asked() {
    let outside = Upstream::knowing(&["192.0.2.1"]);
    let world = World::new(&[("web", &["172.31.0.2", "fd00::2"])], &[&outside]);
    for answer in [
        world.ask("web.", RecordType::A),
        world.ask_by_tcp("WEB.", RecordType::A),
    ] {
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
        assert_eq!(addresses(&answer), ["172.31.0.2"]);
    }
    assert_eq!(addresses(&world.ask("web.", RecordType::AAAA)), ["fd00::2"]);
    assert_eq!(outside.asked(), 0);
}

#[test]
fn the_question_comes_back_letter_by_letter() {
    // Clients that mix cases to be harder to deceive (0x20) compare them.
    let world = World::new(&[("web", &["172.31.0.2"])], &[]);
    let answer = world.ask("wEb.", RecordType::A);
    assert!(
        answer.queries[0]
            .name()
            .eq_case(&Name::from_ascii("wEb.").unwrap())
    );
    assert!(answer.answers[0].name.eq_case(&Name::from_ascii("wEb.").unwrap()));
}

#[test]
fn a_name_without_an_ipv6_address_is_there_all_the_same() {
    // musl takes NXDOMAIN for one family as the end of the name.
    let outside = Upstream::saying(ResponseCode::NXDomain);
    let world = World::new(&[("web", &["172.31.0.2"])], &[&outside]);
    for kind in [
        RecordType::AAAA,
        RecordType::HTTPS,
        RecordType::MX,
        RecordType::TXT,
    ] {
        let answer = world.ask("web.", kind);
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len()),
            (ResponseCode::NoError, 0),
            "{kind}"
        );
    }
    assert_eq!(outside.asked(), 0);
}

#[test]
fn a_shared_name_has_all_addresses_in_changing_order() {
    let world = World::new(&[("db", &["172.31.0.2", "172.31.0.3", "172.31.0.4"])], &[]);
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let answer = world.ask("db.", RecordType::A);
        assert_eq!(addresses(&answer), ["172.31.0.2", "172.31.0.3", "172.31.0.4"]);
        first.insert(answer.answers[0].data.ip_addr());
    }
    assert_eq!(first.len(), 3);
}

#[test]
fn an_address_has_its_containers_name() {
    let outside = Upstream::saying(ResponseCode::NXDomain);
    let world = World::new(&[("brave_anchor", &["172.31.0.2", "fd00::2"])], &[&outside]);
    for address in ["172.31.0.2", "fd00::2"] {
        let name = Name::from(address.parse::<std::net::IpAddr>().unwrap());
        let answer = world.ask(&name.to_ascii(), RecordType::PTR);
        assert_eq!(answer.answers[0].data.to_string(), "brave_anchor.net.");
    }
    assert_eq!(outside.asked(), 0);
    // That of another, and of a whole network.
    for name in ["3.0.31.172.in-addr.arpa.", "31.172.in-addr.arpa."] {
        let answer = world.ask(name, RecordType::PTR);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    }
    assert_eq!(outside.asked(), 2);
}

#[test]
fn what_does_not_fit_into_a_datagram_is_had_by_a_connection() {
    let many: Vec<String> = (1..=200).map(|last| format!("172.31.0.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let world = World::new(&[("db", &many)], &[]);
    let short = world.ask("db.", RecordType::A);
    assert!(short.metadata.truncation && !short.answers.is_empty() && short.answers.len() < 40);
    let edns = world.exchange(&with_edns(query("db.", RecordType::A), 4096).to_vec().unwrap());
    assert!(!edns.metadata.truncation && edns.edns.is_some());
    assert_eq!(edns.answers.len(), 200);
    let whole = world.ask_by_tcp("db.", RecordType::A);
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
}

#[test]
fn one_connection_may_ask_often_and_all_at_once() {
    let world = World::new(&[("web", &["172.31.0.2"]), ("db", &["172.31.0.3"])], &[]);
    let mut stream = world.connect();
    for name in ["web.", "db.", "web."] {
        write(&mut stream, &query(name, RecordType::A).to_vec().unwrap());
    }
    let found: Vec<_> = std::iter::from_fn(|| read(&mut stream))
        .take(3)
        .flat_map(|answer| addresses(&answer))
        .collect();
    assert_eq!(found, ["172.31.0.2", "172.31.0.3", "172.31.0.2"]);
}

#[test]
fn names_change_from_one_question_to_the_next() {
    let world = World::new(&[("web", &["172.31.0.2"])], &[]);
    assert_eq!(addresses(&world.ask("web.", RecordType::A)), ["172.31.0.2"]);
    assert_eq!(world.ask("web.", RecordType::A).answers[0].ttl, 0);
    world.known.lock().unwrap().names = [("www".to_owned(), world::parsed(&["172.31.0.9"]))].into();
    assert_eq!(addresses(&world.ask("www.", RecordType::A)), ["172.31.0.9"]);
    assert_eq!(
        world.ask("web.", RecordType::A).metadata.response_code,
        ResponseCode::ServFail
    );
}

#[test]
fn nonsense_gets_an_error_or_nothing_and_the_next_is_answered() {
    let outside = Upstream::knowing(&["192.0.2.1"]);
    let world = World::new(&[("web", &["172.31.0.2"])], &[&outside]);
    let good = query("web.", RecordType::A).to_vec().unwrap();
    let code = |message: &[u8]| world.exchange(message).metadata.response_code;
    assert_eq!(code(&good[..12]), ResponseCode::FormErr);
    let mut two_questions = good.clone();
    two_questions[5] = 2;
    assert_eq!(code(&two_questions), ResponseCode::FormErr);
    let mut endless_name = good.clone();
    endless_name[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(code(&endless_name), ResponseCode::FormErr);
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(code(&update), ResponseCode::NotImp);

    let client = world.client();
    let mut answer = good.clone();
    answer[2] |= 0x80;
    for silent in [&good[..5], &[], &answer, &[7; 5000]] {
        client.send(silent).unwrap();
    }
    client.send(&good).unwrap();
    // The first that comes is the answer to the last.
    assert_eq!(addresses(&receive(&client)), ["172.31.0.2"]);
    assert_eq!(outside.asked(), 0);
}

#[test]
fn a_server_that_is_closed_leaves_its_port() {
    let mut world = World::new(&[("web", &["172.31.0.2"])], &[]);
    let _idle = world.connect();
    world.close();
    let freed = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        std::net::UdpSocket::bind(world.address).is_ok()
    });
    assert!(freed);
}
