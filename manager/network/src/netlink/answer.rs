//! Taking apart what the kernel sends: messages, results, attributes.

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN,
    NetlinkBuffer, NlasIterator,
};

pub(super) const HEADER_BYTES: usize = 16;
/// `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const ERROR_MESSAGE: u16 = 1;

/// One message from the kernel.
pub(super) struct Answer<'a> {
    pub(super) sequence: u32,
    /// Nothing more will come in answer to this request.
    pub(super) ends: bool,
    /// Part of a list that was changed while it was read.
    pub(super) inconsistent: bool,
    pub(super) content: Content<'a>,
}

pub(super) enum Content<'a> {
    Object(&'a [u8]),
    Acknowledged,
    Refused { errno: i32, message: Option<String> },
}

impl<'a> Answer<'a> {
    /// The first message of `bytes` and the bytes after it; `None` when there are none left.
    pub(super) fn split(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = NetlinkBuffer::new_checked(bytes).map_err(|error| error.to_string())?;
        let payload = &bytes[HEADER_BYTES..header.length() as usize];
        let flags = header.flags();
        let (content, ends) = match header.message_type() {
            NLMSG_ERROR | NLMSG_DONE => (Content::of_result(payload, header.message_type(), flags)?, true),
            NLMSG_OVERRUN => return Err("data was lost".to_owned()),
            _ => (Content::Object(payload), flags & NLM_F_MULTIPART == 0),
        };
        let answer = Self {
            sequence: header.sequence_number(),
            ends,
            inconsistent: flags & NLM_F_DUMP_INTR != 0,
            content,
        };
        let next = (header.length() as usize).next_multiple_of(4).min(bytes.len());
        Ok(Some((answer, &bytes[next..])))
    }
}

impl Content<'_> {
    /// Reads what follows the header of an error, an acknowledgement or a list's end: the negated error number
    /// and then (in an error, after the request or its header) attributes.
    fn of_result(payload: &[u8], message_type: u16, flags: u16) -> Result<Self, String> {
        let Some((code, rest)) = payload.split_first_chunk() else {
            // The end of a list may be empty.
            return if payload.is_empty() && message_type == NLMSG_DONE {
                Ok(Self::Acknowledged)
            } else {
                Err(format!("a result of {} bytes", payload.len()))
            };
        };
        let errno = i32::from_ne_bytes(*code).wrapping_neg();
        if errno <= 0 {
            return Ok(Self::Acknowledged);
        }
        if flags & NLM_F_ACK_TLVS == 0 {
            return Ok(Self::Refused { errno, message: None });
        }
        let skipped = match (message_type, rest.first_chunk()) {
            (NLMSG_ERROR, Some(length)) if flags & NLM_F_CAPPED == 0 => u32::from_ne_bytes(*length) as usize,
            (NLMSG_ERROR, _) => HEADER_BYTES,
            _ => 0,
        };
        let mut message = None;
        each_attribute(
            rest.get(skipped.next_multiple_of(4)..).unwrap_or_default(),
            |kind, value| {
                if kind == ERROR_MESSAGE {
                    message = Some(text(value));
                }
            },
        )?;
        Ok(Self::Refused { errno, message })
    }
}

/// Calls `visit` with kind and value of each attribute in `bytes`.
pub(crate) fn each_attribute(bytes: &[u8], mut visit: impl FnMut(u16, &[u8])) -> Result<(), String> {
    for attribute in NlasIterator::new(bytes) {
        let attribute = attribute.map_err(|error| error.to_string())?;
        visit(attribute.kind(), attribute.value());
    }
    Ok(())
}

/// The text of an attribute, without the NUL that ends it.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(message_type: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER_BYTES + payload.len()) as u32).to_ne_bytes());
        bytes.extend(message_type.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut payload = (-libc::EBUSY).to_ne_bytes().to_vec();
        payload.extend(message(16, 0, &[]));
        payload.extend([8, 0, 1, 0]);
        payload.extend(b"no\0\0");
        let bytes = message(NLMSG_ERROR, NLM_F_ACK_TLVS, &payload);
        let (answer, rest) = Answer::split(&bytes).unwrap().unwrap();
        assert!(rest.is_empty() && answer.ends && answer.sequence == 7);
        let Content::Refused { errno, message } = answer.content else {
            panic!("not a refusal")
        };
        assert_eq!((errno, message.as_deref()), (libc::EBUSY, Some("no")));
    }

    #[test]
    fn parts_of_a_list_do_not_end_it() {
        let mut bytes = message(16, NLM_F_MULTIPART, &[1, 2, 3, 4]);
        bytes.extend(message(NLMSG_DONE, NLM_F_MULTIPART, &0_i32.to_ne_bytes()));
        let (part, rest) = Answer::split(&bytes).unwrap().unwrap();
        assert!(!part.ends && matches!(part.content, Content::Object([1, 2, 3, 4])));
        let (done, rest) = Answer::split(rest).unwrap().unwrap();
        assert!(done.ends && matches!(done.content, Content::Acknowledged) && rest.is_empty());
    }

    #[test]
    fn truncated_answers_are_errors() {
        let bytes = message(16, 0, &[1, 2, 3, 4]);
        for length in 1..bytes.len() {
            assert!(Answer::split(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Answer::split(&message(NLMSG_ERROR, 0, &[1])).is_err());
    }
}
