//! Whose a link is: its alias says so. Managers that share a network namespace know their own links by it, and
//! leave those of others alone.

const MARK: &str = "berth:";

/// The alias of the bridge of `owner`.
pub(crate) fn of_bridge(owner: &str) -> String {
    format!("{MARK}{owner}")
}

/// The alias of a link of `owner`'s container.
pub(crate) fn of_container(owner: &str, container_id: &str) -> String {
    format!("{MARK}{owner}:{container_id}")
}

/// Who owns the link with this alias; none, if no manager has marked it.
pub(crate) fn read(alias: &str) -> Option<&str> {
    let owner = alias.strip_prefix(MARK)?;
    Some(owner.split_once(':').map_or(owner, |(owner, _)| owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_tells_the_owner_of_bridges_and_links() {
        assert_eq!(read(&of_bridge("4f66")), Some("4f66"));
        assert_eq!(read(&of_container("4f66", "abc")), Some("4f66"));
        for other in ["", "uplink", "berth"] {
            assert_eq!(read(other), None);
        }
    }
}
