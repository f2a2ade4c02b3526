//! `--link`: a name of its own that a container has for another one.

use serde::{Deserialize, Serialize};

use super::names::check_name;
use crate::Error;

/// As many as `--add-host` may have.
const LINKS_MAX: usize = 1000;

/// Whom a container calls what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// As it was asked for: name, or id, or a part of one.
    pub name: String,
    /// What the container calls it.
    pub alias: String,
    /// On the default bridge: who that was when the container was made. Empty on networks that users made, where the name is
    /// looked up at each question.
    pub id: String,
}

impl Link {
    /// Read `NAME` or `NAME:ALIAS`.
    ///
    /// # Errors
    /// It is neither, in docker's words.
    pub fn parse(text: &str) -> Result<Link, Error> {
        if text.is_empty() {
            return Err(Error::invalid("link", "empty string specified for links"));
        }
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        if alias.contains(':') {
            return Err(Error::invalid("link", format!("bad format for links: {text}")));
        }
        Ok(Link {
            name: name.to_owned(),
            alias: alias.to_owned(),
            id: String::new(),
        })
    }
}

/// As it is asked for.
impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.alias)
    }
}

/// Both become words of files and variables that the container's programs trust.
pub(crate) fn check_links(links: &[Link]) -> Result<(), Error> {
    if links.len() > LINKS_MAX {
        let rule = format!("{} are more than {LINKS_MAX}", links.len());
        return Err(Error::invalid("link", rule));
    }
    links.iter().try_for_each(|link| {
        check_name("link", &link.name)?;
        check_name("link", &link.alias)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_one_name_or_two() {
        let read = |text: &str| Link::parse(text).map(|link| link.to_string());
        assert_eq!(read("db").unwrap(), "db:db");
        assert_eq!(read("db:store").unwrap(), "db:store");
        let refused = read("a:b:c").unwrap_err().to_string();
        assert!(refused.contains("bad format for links: a:b:c"), "{refused}");
        assert!(read("").unwrap_err().to_string().contains("empty string"));
    }

    #[test]
    fn nothing_gets_into_a_file_that_is_not_a_name() {
        for text in ["db:a b", "db:a\n10.0.0.1", "db:", ":a", "d b:a", "db:a/b"] {
            let link = Link::parse(text).unwrap();
            assert!(check_links(&[link]).is_err(), "{text:?}");
        }
        check_links(&[Link::parse("0123abc:my_db-1").unwrap()]).unwrap();
    }
}
