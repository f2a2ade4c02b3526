//! Comments on rules, where `nft` puts and finds them: in a rule's user data, which the kernel only keeps.

use crate::netlink::text;

/// How libnftnl marks a comment among other user data.
const COMMENT: u8 = 0;
/// The longest comment that `nft` itself would take (`NFTNL_UDATA_COMMENT_MAXLEN`).
pub(super) const BYTES_MAX: usize = 128;

/// User data that holds a comment: its kind, its length with the NUL, itself.
pub(super) fn userdata(comment: &str) -> Vec<u8> {
    debug_assert!(comment.len() < BYTES_MAX);
    let mut userdata = vec![COMMENT, (comment.len() + 1) as u8];
    userdata.extend(comment.as_bytes());
    userdata.push(0);
    userdata
}

/// The comment in user data; empty if there is none.
pub(super) fn comment_of(mut userdata: &[u8]) -> String {
    while let [kind, length, rest @ ..] = userdata {
        let Some((value, following)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        if *kind == COMMENT {
            return text(value);
        }
        userdata = following;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_survive_the_way_through_user_data() {
        assert_eq!(comment_of(&userdata("a rule")), "a rule");
        assert_eq!(comment_of(&[9, 1, 7, 0, 2, b'x', 0]), "x");
        assert_eq!(comment_of(&[0, 200, 1]), "");
        assert_eq!(comment_of(&[]), "");
    }
}
