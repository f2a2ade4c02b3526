//! `userns-remap`: whose subordinate ids all containers get that ask for nothing else. The words are dockerd's.

use image::{IdMap, IdRange, Owners};

use super::subordinate::{self, GROUPS, Range, USERS};
use crate::Error;

/// The user that dockerd makes for `default`: with the same, its images and ours have the same owners.
const DEFAULT_USER: &str = "dockremap";
const OPTION: &str = "userns-remap";

/// Which ids of the host containers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remap {
    /// As it was asked for, with names in the place of ids: `USER[:GROUP]`.
    pub name: String,
    /// From their subordinate ids.
    pub owners: Owners,
}

impl Remap {
    /// Look up `default`, `USER[:GROUP]` or `UID[:GID]` in passwd(5), group(5), subuid(5) and subgid(5).
    pub fn find(asked: &str) -> Result<Remap, Error> {
        if image::is_in_user_namespace() {
            let rule = "needs a manager with root's rights: a user's manager works in a user namespace itself, which its \
                        containers are kept apart by already; leave it out";
            return Err(Error::invalid(OPTION, rule));
        }
        let databases = Databases {
            users: subordinate::read("/etc/passwd")?,
            groups: subordinate::read("/etc/group")?,
        };
        let asked = databases.resolve(asked)?;
        let users = asked.map(USERS, &asked.user_names)?;
        // As older dockerds have it: a group's own line.
        let of_group =
            subordinate::of(GROUPS, &asked.user_names)?.is_empty() && !asked.group_names.is_empty();
        let groups = asked.map(
            GROUPS,
            if of_group {
                &asked.group_names
            } else {
                &asked.user_names
            },
        )?;
        Ok(Remap {
            name: asked.name,
            owners: Owners {
                uids: users,
                gids: groups,
            },
        })
    }
}

struct Databases {
    users: String,
    groups: String,
}

/// Who is meant: names and ids, as text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    name: String,
    user_names: Vec<String>,
    group_names: Vec<String>,
    /// Neither is needed where there are ids for it: it may be of a service that this program does not ask.
    is_known: bool,
}

impl Databases {
    fn resolve(&self, asked: &str) -> Result<Asked, Error> {
        let refuse = |rule: String| Err(Error::invalid(OPTION, rule));
        let (user, group) = match asked.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (asked, None),
        };
        let is_odd = |name: &str| name.is_empty() || name.contains([':', '\n', '\0', ' ']);
        if is_odd(user) || group.is_some_and(is_odd) {
            return refuse(format!(
                "{asked:?}: it has to be default, USER, USER:GROUP, UID or UID:GID"
            ));
        }
        let user = if user == "default" && group.is_none() {
            DEFAULT_USER
        } else {
            user
        };
        let found = subordinate::entry(&self.users, user);
        let is_known = found.is_some();
        let (user, uid) = found.unwrap_or_else(|| (user.to_owned(), user.to_owned()));
        if uid == "0" {
            return refuse(format!(
                "{asked:?}: root cannot be remapped to itself; leave it out for that"
            ));
        }
        let mut resolved = Asked {
            name: user.clone(),
            user_names: vec![user, uid],
            group_names: Vec::new(),
            is_known,
        };
        if let Some(group) = group {
            let found = subordinate::entry(&self.groups, group);
            let (group, gid) = match (found, group.parse::<u32>()) {
                (Some(found), _) => found,
                (None, Ok(_)) => (group.to_owned(), group.to_owned()),
                (None, Err(_)) => {
                    return refuse(format!("{asked:?}: there is no group {group} in /etc/group"));
                }
            };
            resolved.name = format!("{}:{group}", resolved.name);
            resolved.group_names = vec![group, gid];
        }
        resolved.user_names.dedup();
        resolved.group_names.dedup();
        Ok(resolved)
    }
}

impl Asked {
    fn map(&self, file: &str, names: &[String]) -> Result<IdMap, Error> {
        let ranges = subordinate::of(file, names)?;
        let who = names.first().map_or("", String::as_str);
        if ranges.is_empty() {
            let user = if self.is_known {
                String::new()
            } else {
                format!("`useradd --system --shell /usr/sbin/nologin {who}` and ")
            };
            let rule = format!(
                "{}: {file} gives {who} no ids for containers; as root: {user}`usermod --add-subuids 100000-165535 \
                 --add-subgids 100000-165535 {who}`, with ranges that nobody else has",
                self.name
            );
            return Err(Error::invalid(OPTION, rule));
        }
        joined(&ranges).map_err(|error| Error::invalid(OPTION, format!("{}: {file}: {error}", self.name)))
    }
}

/// One range after the other, from the container's 0 on.
fn joined(ranges: &[Range]) -> Result<IdMap, String> {
    let mut next = 0u32;
    let mut all = Vec::new();
    for range in ranges {
        if range.first == 0 {
            return Err("a range begins with 0: the host's root is to be nobody in a container".to_owned());
        }
        all.push(IdRange {
            container: next,
            host: range.first,
            size: range.count,
        });
        next = next
            .checked_add(range.count)
            .ok_or("its ranges have more ids than there are")?;
    }
    IdMap::new(all).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(asked: &str) -> Result<Asked, String> {
        let databases = Databases {
            users: "root:x:0:0::/:/bin/sh\nme:x:1000:1000::/:/bin/sh\n".to_owned(),
            groups: "root:x:0:\nus:x:2000:\n".to_owned(),
        };
        databases.resolve(asked).map_err(|error| error.to_string())
    }

    fn asked(name: &str, users: &[&str], groups: &[&str], is_known: bool) -> Asked {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Asked {
            name: name.to_owned(),
            user_names: names(users),
            group_names: names(groups),
            is_known,
        }
    }

    #[test]
    fn names_and_ids_are_the_same_user() {
        let me = asked("me", &["me", "1000"], &[], true);
        assert_eq!(resolve("me").unwrap(), me);
        assert_eq!(resolve("1000").unwrap(), me);
        let us = asked("me:us", &["me", "1000"], &["us", "2000"], true);
        assert_eq!(resolve("me:us").unwrap(), us);
        assert_eq!(resolve("1000:2000").unwrap(), us);
        assert_eq!(
            resolve("default").unwrap(),
            asked("dockremap", &["dockremap"], &[], false)
        );
        assert_eq!(resolve("7:8").unwrap(), asked("7:8", &["7"], &["8"], false));
    }

    #[test]
    fn who_cannot_be_meant_is_refused() {
        for (text, word) in [
            ("", "it has to be default"),
            ("me:", "it has to be default"),
            ("me:us:x", "it has to be default"),
            ("root", "itself"),
            ("0:2000", "itself"),
            ("me:them", "no group them"),
        ] {
            let refused = resolve(text).unwrap_err();
            assert!(refused.contains(word), "{text}: {refused}");
        }
    }

    #[test]
    fn ranges_follow_one_another_in_the_container() {
        let range = |first, count| Range { first, count };
        let map = joined(&[range(100_000, 1000), range(500_000, 64_536)]).unwrap();
        assert_eq!(map.to_string(), "0:100000:1000,1000:500000:64536");
        assert!(joined(&[range(0, 10)]).unwrap_err().contains("root"));
        assert!(joined(&[range(1, u32::MAX), range(5, 10)]).is_err());
        assert!(
            joined(&[range(10, 10), range(15, 10)])
                .unwrap_err()
                .contains("overlap")
        );
    }
}
