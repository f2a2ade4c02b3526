//! What the fuzz targets call.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Message;

use crate::answer::{Outcome, Transport, outcome};
use crate::question::{Question, judge};
use crate::{Server, View};

/// A container that knows every name that does not end in `x`.
struct Everybody;

impl View for Everybody {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let addresses = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        (!name.ends_with('x')).then(|| addresses.repeat(name.len()))
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        address.is_ipv4().then(|| "web.net".to_owned())
    }

    fn servers(&self) -> Vec<Server> {
        Vec::new()
    }

    fn completes_names(&self) -> bool {
        true
    }
}

/// What a container asks.
///
/// # Panics
/// When the answer is longer than may be, cannot be read, or is not one to the question.
pub fn question(message: &[u8]) {
    for (transport, longest) in [(Transport::Udp, 65535), (Transport::Tcp, 65535)] {
        let Outcome::Answer(answer) = outcome(message, transport, &Everybody) else {
            continue;
        };
        assert!(answer.len() <= longest && answer[..2] == message[..2]);
        let answer = Message::from_vec(&answer).expect("an answer of ours can be read");
        if let Ok(question) = Question::read(message) {
            assert_eq!(answer.queries, [question.query]);
        }
    }
}

/// What a server answers, after the question in front of it.
pub fn answer(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else {
        return;
    };
    let Some((asked, message)) = rest.split_at_checked(usize::from(*length)) else {
        return;
    };
    if let Ok(question) = Question::read(asked) {
        judge(message, question.metadata.id, &question);
    }
}
