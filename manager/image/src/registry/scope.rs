//! What a token is to allow: actions on repositories, in the words of the token specification.
//!
//! Pure. A push needs `pull,push` on its own repository, and `pull` on each one that it mounts blobs from.

use std::collections::{BTreeMap, BTreeSet};

/// Actions by resource, `repository:library/debian` → `pull`, `push`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    /// As challenges have them: `repository:a:pull,push repository:b:pull`. What is no scope is passed over.
    pub(super) fn parse(text: &str) -> Scopes {
        let mut scopes = Scopes::default();
        for scope in text.split_ascii_whitespace() {
            // A repository's name may have a host with a port in it.
            if let Some((resource, actions)) = scope.rsplit_once(':')
                && resource.contains(':')
            {
                scopes.insert(resource, actions.split(','));
            }
        }
        scopes
    }

    /// Ask for `actions` on a repository too. Whether they were not asked for before.
    pub(super) fn add(&mut self, repository: &str, actions: &[&str]) -> bool {
        self.insert(&format!("repository:{repository}"), actions.iter().copied())
    }

    pub(super) fn merge(&mut self, other: &Scopes) {
        for (resource, actions) in &other.0 {
            self.insert(resource, actions.iter().map(String::as_str));
        }
    }

    fn insert<'a>(&mut self, resource: &str, actions: impl Iterator<Item = &'a str>) -> bool {
        let known = self.0.entry(resource.to_owned()).or_default();
        let before = known.len();
        known.extend(actions.filter(|action| !action.is_empty()).map(str::to_owned));
        known.len() > before
    }

    /// One text a resource.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .filter(|(_, actions)| !actions.is_empty())
            .map(|(resource, actions)| {
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{resource}:{}", actions.join(","))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scopes: &Scopes) -> Vec<String> {
        scopes.texts().collect()
    }

    #[test]
    fn scopes_of_several_repositories_are_joined() {
        let mut scopes =
            Scopes::parse("repository:a/b:pull  repository:host:5000/c:push,pull registry:catalog:*");
        assert_eq!(
            texts(&scopes),
            [
                "registry:catalog:*",
                "repository:a/b:pull",
                "repository:host:5000/c:pull,push"
            ]
        );
        assert!(scopes.add("a/b", &["pull", "push"]));
        assert!(!scopes.add("a/b", &["push"]));
        assert!(scopes.add("other", &["pull"]), "what a mount needs");
        let mut all = Scopes::parse("repository:a/b:delete");
        all.merge(&scopes);
        assert_eq!(
            texts(&all)[1..],
            [
                "repository:a/b:delete,pull,push",
                "repository:host:5000/c:pull,push",
                "repository:other:pull"
            ]
        );
    }

    #[test]
    fn what_is_no_scope_is_passed_over() {
        for text in ["", " ", "pull", "a:b", "repository:a:", ":"] {
            assert_eq!(texts(&Scopes::parse(text)), [""; 0], "{text}");
        }
    }
}
