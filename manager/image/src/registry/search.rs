//! Finding repositories: by the search of Docker Hub's first API, or in the catalog of the second.

use reqwest::header::HeaderMap;
use serde::Deserialize;

use super::Registry;
use super::page::PAGES_MAX;
use crate::Error;

/// Names of the catalog that are asked for at once.
const CATALOG_PAGE: usize = 1000;
const DESCRIPTION_CHARACTERS_MAX: usize = 1000;

/// A repository that a registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchResult {
    /// To be pulled by: `debian`, `registry.example/debian`.
    pub name: String,
    /// In one line; empty where the registry has none.
    pub description: String,
    /// How many users have marked it.
    pub stars: u64,
    /// Whether it is one of docker's own.
    pub is_official: bool,
}

#[derive(Deserialize)]
struct RawAnswer {
    results: Vec<RawResult>,
}

#[derive(Deserialize)]
struct RawResult {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: i64,
    #[serde(default)]
    is_official: bool,
}

#[derive(Deserialize)]
struct RawCatalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Registry {
    /// Repositories with `term` in what the registry searches; in the catalog that is the name. At most `limit`.
    pub(crate) async fn search(&self, term: &str, limit: usize) -> Result<Vec<SearchResult>, Error> {
        let what = format!("search for {term:?}");
        let mut url = self.base.clone();
        url.set_path("/v1/search");
        url.query_pairs_mut()
            .append_pair("q", term)
            .append_pair("n", &limit.to_string());
        let no_search = match self.page(&what, &url, &HeaderMap::new()).await? {
            Ok(page) => match parse_search(&page.content) {
                Ok(found) => return Ok(found.into_iter().take(limit).collect()),
                Err(rule) => rule,
            },
            Err(reason) => reason,
        };
        match self.catalog(&what, term, limit).await? {
            Ok(found) => Ok(found),
            Err(no_catalog) => Err(self.wrong(
                &what,
                format!(
                    "this registry cannot be searched: of its search API, {no_search}; of its catalog, {no_catalog}"
                ),
            )),
        }
    }

    async fn catalog(
        &self,
        what: &str,
        term: &str,
        limit: usize,
    ) -> Result<Result<Vec<SearchResult>, String>, Error> {
        let mut url = self.base.clone();
        url.set_path("/v2/_catalog");
        url.query_pairs_mut().append_pair("n", &CATALOG_PAGE.to_string());
        let mut next = Some(url);
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(url) = next else { break };
            let page = match self.page(what, &url, &HeaderMap::new()).await? {
                Ok(page) => page,
                Err(reason) => return Ok(Err(reason)),
            };
            let names = match parse_catalog(&page.content) {
                Ok(names) => names,
                Err(rule) => return Ok(Err(rule)),
            };
            found.extend(
                names
                    .into_iter()
                    .filter(|name| name.contains(term))
                    .map(|name| SearchResult {
                        name: format!("{}/{name}", self.host),
                        description: String::new(),
                        stars: 0,
                        is_official: false,
                    }),
            );
            if found.len() >= limit {
                break;
            }
            next = page.next;
        }
        found.truncate(limit);
        Ok(Ok(found))
    }
}

/// The answer of the search API.
pub(crate) fn parse_search(content: &[u8]) -> Result<Vec<SearchResult>, String> {
    let answer: RawAnswer = serde_json::from_slice(content)
        .map_err(|e| format!("it did not answer with the JSON of a search: {e}"))?;
    let results = answer.results.into_iter().filter(|raw| is_name(&raw.name));
    Ok(results
        .map(|raw| SearchResult {
            name: raw.name,
            description: line(&raw.description.unwrap_or_default()),
            stars: u64::try_from(raw.star_count).unwrap_or(0),
            is_official: raw.is_official,
        })
        .collect())
}

/// The names in a page of the catalog.
pub(crate) fn parse_catalog(content: &[u8]) -> Result<Vec<String>, String> {
    let catalog: RawCatalog = serde_json::from_slice(content)
        .map_err(|e| format!("it did not answer with the JSON of a catalog: {e}"))?;
    let names = catalog.repositories.unwrap_or_default();
    Ok(names.into_iter().filter(|name| is_name(name)).collect())
}

/// Whether this can be the name of a repository: others were not made by a push, and may be made for a terminal.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b))
}

/// Foreign text as one line without control characters.
fn line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .collect();
    let line = words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    line.chars().take(DESCRIPTION_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_answer_is_read() {
        let answer = br#"{"num_results":2,"results":[
            {"name":"debian","description":"An\n OS \u001b[31m","star_count":5,"is_official":true,"is_automated":false},
            {"name":"x/y","description":null,"star_count":-1},
            {"name":"\u001b[2J"}]}"#;
        let found = parse_search(answer).unwrap();
        assert_eq!(found.len(), 2, "a name of control characters is none");
        assert_eq!(found[0].description, "An OS [31m");
        assert_eq!((found[0].stars, found[0].is_official), (5, true));
        assert_eq!((found[1].description.as_str(), found[1].stars), ("", 0));
        assert!(parse_search(b"<html>").is_err());
    }

    #[test]
    fn an_empty_catalog_is_null_in_the_wild() {
        assert_eq!(parse_catalog(br#"{"repositories":null}"#).unwrap(), [""; 0]);
        assert_eq!(
            parse_catalog(br#"{"repositories":["a","b/c"]}"#).unwrap(),
            ["a", "b/c"]
        );
    }
}
