//! What is read of a message: its header and the one question in it.

use hickory_proto::op::{Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Before its length even UDP has an id and flags.
pub(crate) const HEADER_BYTES: usize = 12;

/// A question of a client, or the question that an answer is for.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) metadata: Metadata,
    pub(crate) query: Query,
    /// Whether the message has records too; of a client, most likely EDNS.
    pub(crate) has_additionals: bool,
}

/// A message that is no question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not worth an answer: too short to have an id, or an answer itself, which might begin a game of ping-pong.
    Ignored,
    /// To be answered with this code.
    Refused(ResponseCode),
}

impl Question {
    /// Read the question of a client.
    pub(crate) fn read(message: &[u8]) -> Result<Self, Unfit> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder).map_err(|_| Unfit::Ignored)?;
        if header.metadata.message_type == MessageType::Response {
            return Err(Unfit::Ignored);
        }
        if header.metadata.op_code != OpCode::Query {
            return Err(Unfit::Refused(ResponseCode::NotImp));
        }
        Self::rest(&header, &mut decoder).ok_or(Unfit::Refused(ResponseCode::FormErr))
    }

    /// Read the question that an answer says it is for.
    pub(crate) fn of_answer(message: &[u8]) -> Option<Self> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder).ok()?;
        if header.metadata.message_type != MessageType::Response {
            return None;
        }
        Self::rest(&header, &mut decoder)
    }

    fn rest(header: &Header, decoder: &mut BinDecoder<'_>) -> Option<Self> {
        // All servers refuse more than one; and the library would make room for as many as the header promises.
        if header.counts.queries != 1 {
            return None;
        }
        Some(Self {
            metadata: header.metadata,
            query: Query::read(decoder).ok()?,
            has_additionals: header.counts.additionals > 0,
        })
    }

    /// The name in lower case, without the dot at its end. None: it is the root, or has bytes that no container's
    /// name has.
    pub(crate) fn name(&self) -> Option<String> {
        let mut text = String::new();
        for label in self.query.name() {
            if label.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'.') {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
        (!text.is_empty()).then_some(text)
    }

    /// The whole message, if all of it can be read.
    pub(crate) fn whole(message: &[u8]) -> Option<Message> {
        Message::from_vec(message).ok()
    }
}

/// What an answer says of itself to one who has asked `question` under `id`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is for somebody else, or made up.
    Foreign,
    /// The answer, good or bad: the name, or that there is none.
    Answer,
    /// The server could not or would not; another may.
    Failure,
}

/// Judge what came as an answer.
pub(crate) fn judge(message: &[u8], id: u16, question: &Question) -> Verdict {
    let Ok(header) = Header::read(&mut BinDecoder::new(message)) else {
        return Verdict::Foreign;
    };
    let metadata = header.metadata;
    if metadata.id != id
        || metadata.message_type != MessageType::Response
        || metadata.op_code != OpCode::Query
    {
        return Verdict::Foreign;
    }
    let is_answer = matches!(
        metadata.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    );
    match Question::of_answer(message) {
        // Names compare without regard to case.
        Some(answer) if answer.query == question.query => {}
        // A server that could not read the question does not repeat it.
        None if !is_answer && header.counts.queries == 0 => {}
        _ => return Verdict::Foreign,
    }
    if is_answer {
        Verdict::Answer
    } else {
        Verdict::Failure
    }
}

/// Give a message another id.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(bytes) = message.get_mut(..2) {
        bytes.copy_from_slice(&id.to_be_bytes());
    }
}
