//! Questions about the outside: to servers that are slow, lie, fail or are not there.

mod world;

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use world::{Upstream, World, addresses, failing, honest, query, with_edns, write};

const NAME: &str = "www.example.org.";

#[test]
fn other_names_are_asked_of_the_servers_in_their_order() {
    let (first, second) = (
        Upstream::knowing(&["192.0.2.1"]),
        Upstream::knowing(&["192.0.2.2"]),
    );
    let world = World::new(&[("web", &["172.31.0.2"])], &[&first, &second]);
    assert_eq!(addresses(&world.ask(NAME, RecordType::A)), ["192.0.2.1"]);
    assert_eq!(addresses(&world.ask_by_tcp(NAME, RecordType::A)), ["192.0.2.1"]);
    assert_eq!((first.asked(), second.asked()), (2, 0));
}

#[test]
fn a_message_is_passed_on_as_it_is_but_for_its_id() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = Arc::clone(&seen);
    let outside = Upstream::of_datagrams(move |asked| {
        saw.lock().unwrap().push((asked.raw.to_vec(), asked.from.port()));
        asked.say(&honest(&asked.question, &["192.0.2.1"]));
    });
    let world = World::new(&[], &[&outside]);
    let mut message = with_edns(query("wWw.exAmple.org.", RecordType::A), 1400)
        .to_vec()
        .unwrap();
    // A record of a type that nobody knows.
    message.extend([0, 0xff, 0x77, 0, 1, 0, 0, 0, 0, 0, 1, 7]);
    message[11] = 2;
    for _ in 0..20 {
        world.exchange(&message);
    }
    let seen = seen.lock().unwrap();
    let mut ids = std::collections::BTreeSet::new();
    let mut ports = std::collections::BTreeSet::new();
    for (raw, port) in seen.iter() {
        assert_eq!(raw[2..], message[2..]);
        ids.insert(&raw[..2]);
        ports.insert(port);
    }
    // Who cannot see a question cannot guess its id and port.
    assert!(ids.len() > 10 && ports.len() > 10, "{ids:?} {ports:?}");
}

#[test]
fn an_answer_is_passed_on_to_the_byte() {
    // What the library could not read: a record of a known type with data that are none.
    let mut odd = Vec::new();
    let made = query(NAME, RecordType::A);
    odd.extend(honest(&made, &[]).to_vec().unwrap());
    odd[7] = 1;
    odd.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 9, 0, 3, 1, 2, 3]);
    let said = odd.clone();
    let outside = Upstream::of_datagrams(move |asked| {
        let mut answer = said.clone();
        answer[..2].copy_from_slice(&asked.raw[..2]);
        asked.socket.send_to(&answer, asked.from).unwrap();
    });
    let world = World::new(&[], &[&outside]);
    let client = world.client();
    client.send(&made.to_vec().unwrap()).unwrap();
    let mut buffer = [0; 1000];
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(buffer[..length], odd);
}

#[test]
fn answers_that_belong_to_another_question_or_come_from_others_do_not_count() {
    let outside = Upstream::of_datagrams(|asked| {
        let lie = |change: &dyn Fn(&mut Message)| {
            let mut answer = honest(&asked.question, &["198.51.100.66"]);
            change(&mut answer);
            answer
        };
        asked.say(&lie(&|answer| {
            answer.metadata.id = answer.metadata.id.wrapping_add(1);
        }));
        asked.say(&lie(&|answer| {
            answer.queries[0].set_name(Name::from_ascii("evil.example.org.").unwrap());
        }));
        asked.say(&lie(&|answer| {
            answer.queries[0].set_query_type(RecordType::AAAA);
        }));
        asked.say(&lie(&|answer| answer.queries.clear()));
        asked.socket.send_to(asked.raw, asked.from).unwrap();
        asked.socket.send_to(&asked.raw[..3], asked.from).unwrap();
        // Another's, with everything right.
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        other
            .send_to(&lie(&|_| {}).to_vec().unwrap(), asked.from)
            .unwrap();
        asked.say(&honest(&asked.question, &["192.0.2.1"]));
    });
    let world = World::new(&[], &[&outside]);
    assert_eq!(addresses(&world.ask(NAME, RecordType::A)), ["192.0.2.1"]);
}

#[test]
fn a_connection_whose_answer_is_a_lie_does_not_count() {
    let lying = Upstream::new(
        |_| {},
        |question, stream| {
            let mut answer = honest(question, &["198.51.100.66"]);
            answer.metadata.id = answer.metadata.id.wrapping_add(1);
            write(stream, &answer.to_vec().unwrap());
        },
    );
    let good = Upstream::knowing(&["192.0.2.1"]);
    let world = World::new(&[], &[&lying, &good]);
    assert_eq!(addresses(&world.ask_by_tcp(NAME, RecordType::A)), ["192.0.2.1"]);
}

#[test]
fn the_next_server_is_asked_when_one_is_silent_or_fails_or_is_not_there() {
    let gone = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        dns::Server {
            address: socket.local_addr().unwrap(),
            side: dns::Side::Host,
        }
    };
    let good = Upstream::knowing(&["192.0.2.1"]);
    let speechless = Upstream::of_datagrams(|asked| {
        // Without the question, as some who cannot read it.
        let mut answer = failing(&asked.question, ResponseCode::FormErr);
        answer.queries.clear();
        asked.say(&answer);
    });
    for bad in [
        gone,
        Upstream::silent().server(),
        Upstream::saying(ResponseCode::ServFail).server(),
        Upstream::saying(ResponseCode::Refused).server(),
        speechless.server(),
    ] {
        let world = World::new(&[], &[]);
        world.known.lock().unwrap().servers = vec![bad, good.server()];
        assert_eq!(
            addresses(&world.ask(NAME, RecordType::A)),
            ["192.0.2.1"],
            "{bad:?}"
        );
    }
}

#[test]
fn a_server_that_answered_in_the_place_of_a_silent_one_is_asked_first_then() {
    let (silent, good) = (Upstream::silent(), Upstream::knowing(&["192.0.2.1"]));
    let world = World::new(&[], &[&silent, &good]);
    for _ in 0..3 {
        assert_eq!(addresses(&world.ask(NAME, RecordType::A)), ["192.0.2.1"]);
    }
    assert_eq!((silent.asked(), good.asked()), (1, 3));
}

#[test]
fn a_name_that_is_not_there_is_not_looked_for_elsewhere() {
    let (first, second) = (
        Upstream::saying(ResponseCode::NXDomain),
        Upstream::knowing(&["192.0.2.1"]),
    );
    let world = World::new(&[], &[&first, &second]);
    assert_eq!(
        world.ask(NAME, RecordType::A).metadata.response_code,
        ResponseCode::NXDomain
    );
    assert_eq!(second.asked(), 0);
}

#[test]
fn the_servers_own_refusal_is_told_when_nobody_knows() {
    let (first, second) = (
        Upstream::saying(ResponseCode::Refused),
        Upstream::saying(ResponseCode::NotImp),
    );
    let world = World::new(&[], &[&first, &second]);
    assert_eq!(
        world.ask(NAME, RecordType::A).metadata.response_code,
        ResponseCode::NotImp
    );
    let silent = Upstream::silent();
    let world = World::new(&[], &[&silent]);
    assert_eq!(
        world.ask(NAME, RecordType::A).metadata.response_code,
        ResponseCode::ServFail
    );
    let world = World::new(&[], &[]);
    assert_eq!(
        world.ask(NAME, RecordType::A).metadata.response_code,
        ResponseCode::ServFail
    );
    assert_eq!(
        world.ask_by_tcp(NAME, RecordType::A).metadata.response_code,
        ResponseCode::ServFail
    );
}

#[test]
fn a_truncated_answer_sends_the_client_to_a_connection_that_has_all_of_it() {
    let many: &'static [&'static str] = vec!["192.0.2.1"; 2000].leak();
    let outside = Upstream::new(
        |asked| {
            let mut answer = honest(&asked.question, &["192.0.2.1"]);
            answer.metadata.truncation = true;
            asked.say(&answer);
        },
        move |question, stream| write(stream, &honest(question, many).to_vec().unwrap()),
    );
    let world = World::new(&[], &[&outside]);
    assert!(world.ask(NAME, RecordType::A).metadata.truncation);
    assert_eq!(world.ask_by_tcp(NAME, RecordType::A).answers.len(), 2000);
}

#[test]
fn a_long_answer_fits_a_client_that_takes_it() {
    let many: &'static [&'static str] = vec!["192.0.2.1"; 2000].leak();
    let outside = Upstream::knowing(many);
    let world = World::new(&[], &[&outside]);
    let question = with_edns(query(NAME, RecordType::A), 65000);
    assert_eq!(world.exchange(&question.to_vec().unwrap()).answers.len(), 2000);
}

#[test]
fn names_to_be_completed_do_not_go_out() {
    let outside = Upstream::knowing(&["192.0.2.1"]);
    let world = World::new(&[], &[&outside]);
    world.known.lock().unwrap().completes_names = true;
    let answer = world.ask("printer.", RecordType::A);
    assert_eq!(
        (answer.metadata.response_code, answer.answers.len()),
        (ResponseCode::NoError, 0)
    );
    assert_eq!(outside.asked(), 0);
    assert_eq!(
        addresses(&world.ask("printer.example.org.", RecordType::A)),
        ["192.0.2.1"]
    );
}

#[test]
fn a_flood_is_bounded_and_containers_names_are_answered_meanwhile() {
    let silent = Upstream::silent();
    let world = World::new(&[("web", &["172.31.0.2"])], &[&silent]);
    let flood = world.client();
    flood.set_nonblocking(true).unwrap();
    let mut buffer = [0; 512];
    let refused = (0..100_000).any(|number| {
        let question = query(&format!("{number}.example.org."), RecordType::A);
        flood.send(&question.to_vec().unwrap()).unwrap();
        // Its own names are known to the container that floods, too.
        assert_eq!(addresses(&world.ask("web.", RecordType::A)), ["172.31.0.2"]);
        let answer = flood.recv(&mut buffer).ok();
        answer.is_some_and(|length| {
            Message::from_vec(&buffer[..length])
                .unwrap()
                .metadata
                .response_code
                == ResponseCode::Refused
        })
    });
    assert!(refused);
    assert_eq!(
        addresses(&world.ask_by_tcp("web.", RecordType::A)),
        ["172.31.0.2"]
    );
}
