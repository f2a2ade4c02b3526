//! What is answered at once: the names of containers, and refusals.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use rand::seq::SliceRandom;

use crate::question::{HEADER_BYTES, Question, Unfit};
use crate::{View, totals};

/// A container's address is its own until it stops, which may be at once: nobody should keep it. (docker says 600.)
const TTL_SECONDS: u32 = 0;
/// The most that every client takes in a datagram (RFC 1035, 2.3.4).
const DATAGRAM_BYTES: u16 = 512;
/// What we would take in one (dnsflagday.net/2020).
const OUR_DATAGRAM_BYTES: u16 = 1232;

/// How a question came, and so how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What to do about a message from a container.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing: it is no question.
    Ignore,
    /// Say this.
    Answer(Vec<u8>),
    /// Ask others.
    Forward(Box<Question>),
}

/// What to do about `message`.
pub(crate) fn outcome(message: &[u8], transport: Transport, view: &dyn View) -> Outcome {
    let question = match Question::read(message) {
        Ok(question) => question,
        Err(Unfit::Ignored) => return Outcome::Ignore,
        Err(Unfit::Refused(code)) => return refusal_of_unread(message, code),
    };
    totals::count(&totals::QUESTIONS);
    match records(&question, view) {
        Some(records) => Outcome::Answer(encode(message, &question, transport, records)),
        None => Outcome::Forward(Box::new(question)),
    }
}

/// The records that answer `question`. None: it is not about a container.
fn records(question: &Question, view: &dyn View) -> Option<Vec<Record>> {
    let query = &question.query;
    if query.query_class() != DNSClass::IN {
        return None;
    }
    let record = |data| Record::from_rdata(query.name().clone(), TTL_SECONDS, data);
    if query.query_type() == RecordType::PTR
        && let Some(address) = address_in(query.name())
    {
        // As bytes: what may stand in a container's name is more than in a host's.
        let name = view.name_of(address)?;
        let name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
        return Some(vec![record(RData::PTR(PTR(name)))]);
    }
    let name = question.name()?;
    let Some(mut addresses) = view.addresses(&name) else {
        let is_address = matches!(query.query_type(), RecordType::A | RecordType::AAAA);
        let is_left_to_search = is_address && !name.contains('.') && view.completes_names();
        return is_left_to_search.then(Vec::new);
    };
    // The name is a container's for every type of record. To pass on what else is asked (HTTPS, MX) would get an
    // NXDOMAIN of somebody who knows nothing of it, and some resolvers take that for the whole name.
    addresses.retain(|address| match query.query_type() {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        kind => kind == RecordType::ANY,
    });
    // Who takes the first takes another one each time.
    addresses.shuffle(&mut rand::rng());
    Some(
        addresses
            .into_iter()
            .map(|address| record(address.into()))
            .collect(),
    )
}

/// The address that a name below in-addr.arpa or ip6.arpa stands for.
fn address_in(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    let whole = network.prefix_len() == network.max_prefix_len();
    whole.then(|| network.addr())
}

fn encode(asked: &[u8], question: &Question, transport: Transport, records: Vec<Record>) -> Vec<u8> {
    let mut message = reply(&question.metadata, ResponseCode::NoError);
    message.add_query(question.query.clone());
    message.insert_answers(records);
    let mut longest = DATAGRAM_BYTES;
    if question.has_additionals
        && let Some(edns) = Question::whole(asked).and_then(|whole| whole.edns)
    {
        longest = longest.max(edns.max_payload());
        let mut ours = Edns::new();
        ours.set_max_payload(OUR_DATAGRAM_BYTES);
        if edns.version() > 0 {
            message.metadata.response_code = ResponseCode::BADVERS;
            message.answers.clear();
        }
        message.set_edns(ours);
    }
    if transport == Transport::Tcp {
        longest = u16::MAX;
    }
    bytes_of(&message, longest)
}

fn reply(asked: &Metadata, code: ResponseCode) -> Message {
    let mut message = Message::new(asked.id, MessageType::Response, asked.op_code);
    message.metadata = Metadata::response_from_request(asked);
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message
}

/// The message in at most `longest` bytes; records that do not fit are left out, and the answer says so.
fn bytes_of(message: &Message, longest: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(longest);
    match message.emit(&mut encoder) {
        Ok(()) => bytes,
        // Not even the question fits, which was in such a message before.
        Err(error) => {
            tracing::debug!(%error, "an answer could not be written");
            Vec::new()
        }
    }
}

/// `code` as the answer to `question`.
pub(crate) fn refusal(question: &Question, code: ResponseCode) -> Vec<u8> {
    let mut message = reply(&question.metadata, code);
    message.add_query(question.query.clone());
    bytes_of(&message, DATAGRAM_BYTES)
}

/// `code` as the answer to what has a header and nothing else that could be read.
fn refusal_of_unread(message: &[u8], code: ResponseCode) -> Outcome {
    let Some(&[high, low, flags, ..]) = message.get(..HEADER_BYTES) else {
        return Outcome::Ignore;
    };
    let op_code = OpCode::from_u8(flags >> 3 & 0xf);
    let answer = Message::error_msg(u16::from_be_bytes([high, low]), op_code, code);
    Outcome::Answer(bytes_of(&answer, DATAGRAM_BYTES))
}
