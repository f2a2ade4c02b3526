//! Who a process runs as: `user`, `uid`, `user:group`, `uid:gid`, looked up in the container's own
//! etc/passwd and etc/group as docker does.

use std::path::Path;

use super::layers::Layers;
use crate::Error;

/// Far more than any real user database that is kept in a file.
const DATABASE_MAX_BYTES: u64 = 4 << 20;
/// The kernel's `NGROUPS_MAX`.
const GROUPS_MAX: usize = 65_536;

/// The identity of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) additional_gids: Vec<u32>,
    /// The home directory, `/` if the user database has none for it.
    pub(crate) home: String,
}

/// Look `wanted` up (empty: root) in the file system of `layers`, and the groups that it is to be in besides.
pub(crate) fn resolve(layers: &Layers, wanted: &str, group_add: &[String]) -> Result<User, Error> {
    let read = |path: &str| {
        let content = layers
            .read(Path::new(path), DATABASE_MAX_BYTES)
            .map_err(|error| Error::User {
                user: wanted.to_owned(),
                why: format!("read {path} of the container: {error}"),
            })?;
        Ok::<_, Error>(String::from_utf8_lossy(&content.unwrap_or_default()).into_owned())
    };
    let groups = read("/etc/group")?;
    let mut user = find(&read("/etc/passwd")?, &groups, wanted)?;
    for asked in group_add {
        let gid = group_id(&groups, asked).ok_or_else(|| {
            let rule = format!(
                "unable to find group {asked}: it is neither an id nor in the container's /etc/group"
            );
            Error::invalid("group_add", rule)
        })?;
        if !user.additional_gids.contains(&gid) {
            user.additional_gids.push(gid);
        }
    }
    Ok(user)
}

fn group_id(groups: &str, wanted: &str) -> Option<u32> {
    let mut entries = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let named = entries.find(|fields| fields.len() >= 3 && fields[0] == wanted);
    named.and_then(|fields| id(fields[2])).or_else(|| id(wanted))
}

fn find(passwd: &str, group: &str, wanted: &str) -> Result<User, Error> {
    let unknown = |why: String| Error::User {
        user: wanted.to_owned(),
        why,
    };
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok().filter(|&uid| i32::try_from(uid).is_ok());

    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 6 && (fields[0] == name || number.is_some_and(|uid| fields[2].parse() == Ok(uid)))
        });
    let mut user = match (&entry, number) {
        (Some(fields), _) => User {
            uid: id(fields[2]).ok_or_else(|| unknown(format!("uid {:?} in /etc/passwd", fields[2])))?,
            gid: id(fields[3]).ok_or_else(|| unknown(format!("gid {:?} in /etc/passwd", fields[3])))?,
            additional_gids: Vec::new(),
            home: Some(fields[5])
                .filter(|home| home.starts_with('/'))
                .unwrap_or("/")
                .to_owned(),
        },
        (None, Some(uid)) => User {
            uid,
            home: "/".to_owned(),
            ..User::default()
        },
        (None, None) => return Err(unknown("not found in the container's /etc/passwd".to_owned())),
    };

    let groups = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 3);
    if let Some(wanted_group) = group_name {
        // A group that was asked for is the only one.
        user.gid = group_id(group, wanted_group).ok_or_else(|| {
            unknown(format!(
                "group {wanted_group:?} not found in the container's /etc/group"
            ))
        })?;
    } else if let Some(fields) = &entry {
        let member = |fields: &Vec<&str>, name: &str| {
            fields
                .get(3)
                .is_some_and(|members| members.split(',').any(|member| member == name))
        };
        let name = fields[0];
        user.additional_gids = groups
            .filter(|fields| member(fields, name))
            .filter_map(|fields| id(fields[2]))
            .take(GROUPS_MAX)
            .collect();
    }
    Ok(user)
}

/// A user or group id; the kernel keeps the upper half for special meanings, docker refuses it too.
fn id(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|&id| i32::try_from(id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv/www:/bin/sh\nbroken\nnohome:x:5:5:::\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nstaff:x:50:web,other\naudio:x:29:other,web\n";

    fn ids(wanted: &str) -> (u32, u32, Vec<u32>) {
        let user = find(PASSWD, GROUP, wanted).unwrap();
        (user.uid, user.gid, user.additional_gids)
    }

    #[test]
    fn nobody_asked_for_is_root() {
        let root = find(PASSWD, GROUP, "").unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        assert_eq!(find("", "", "").unwrap().home, "/");
    }

    #[test]
    fn names_and_numbers_find_the_same_entry_with_its_groups() {
        assert_eq!(ids("web"), (33, 34, vec![50, 29]));
        assert_eq!(ids("33"), (33, 34, vec![50, 29]));
        assert_eq!(find(PASSWD, GROUP, "web").unwrap().home, "/srv/www");
    }

    #[test]
    fn a_group_that_is_asked_for_replaces_all_others() {
        assert_eq!(ids("web:staff"), (33, 50, vec![]));
        assert_eq!(ids("web:77"), (33, 77, vec![]));
        assert_eq!(ids("1000:1000"), (1000, 1000, vec![]));
        assert_eq!(ids("1000"), (1000, 0, vec![]));
    }

    #[test]
    fn who_is_not_there_is_named() {
        assert!(
            find(PASSWD, GROUP, "nobody")
                .unwrap_err()
                .to_string()
                .contains("nobody")
        );
        assert!(
            find(PASSWD, GROUP, "web:nogroup")
                .unwrap_err()
                .to_string()
                .contains("nogroup")
        );
        assert!(find(PASSWD, GROUP, "4294967295").is_err());
    }

    #[test]
    fn an_entry_without_home_gets_the_root_directory() {
        assert_eq!(find(PASSWD, GROUP, "nohome").unwrap().home, "/");
    }
}
