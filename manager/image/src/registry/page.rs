//! Answers that come in pages: the rest is where a `Link` header says.

use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, StatusCode, Url};

use super::http::{Attempt, read_bounded};
use super::{Payload, Registry};
use crate::Error;
use crate::manifest::DOCUMENT_BYTES_MAX;
use crate::patience::Attempts;

/// Bound of the pages of one list.
pub(super) const PAGES_MAX: usize = 100;

/// One page.
pub(super) struct Page {
    pub(super) headers: HeaderMap,
    pub(super) content: Vec<u8>,
    pub(super) next: Option<Url>,
}

impl Registry {
    /// Fetch a page; `Err` in the inner place if the registry refuses it in a way that no other try changes.
    pub(super) async fn page(
        &self,
        what: &str,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Result<Page, String>, Error> {
        let mut attempts = Attempts::new(&self.config);
        loop {
            match self.try_page(url, headers).await {
                Ok(page) => return Ok(page),
                Err(attempt) => self.pause(what, &mut attempts, 0, attempt).await?,
            }
        }
    }

    async fn try_page(&self, url: &Url, headers: &HeaderMap) -> Result<Result<Page, String>, Attempt> {
        let response = match self
            .send(Method::GET, url.clone(), headers, Payload::Nothing)
            .await
        {
            Ok(response) => response,
            Err(Attempt::Denied(reason)) => return Ok(Err(reason)),
            Err(attempt) => return Err(attempt),
        };
        if response.status() != StatusCode::OK {
            return match self.write_refusal(response).await {
                Attempt::Denied(reason) | Attempt::Rule(reason) => Ok(Err(reason)),
                attempt => Err(attempt),
            };
        }
        let headers = response.headers().clone();
        let links = headers
            .get_all(LINK)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let next = links
            .filter_map(next_link)
            .find_map(|target| response.url().join(target).ok());
        if let Some(next) = &next {
            self.check_leads_safely(next, "its next page leads")
                .map_err(Attempt::Rule)?;
        }
        let content = read_bounded(&self.http, response, DOCUMENT_BYTES_MAX).await?;
        Ok(Ok(Page {
            headers,
            content,
            next,
        }))
    }
}

/// The target of `rel="next"` in a `Link` header (RFC 8288): `</v2/_catalog?last=b&n=2>; rel="next"`.
pub(crate) fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    while let Some((target, after)) = rest.split_once('<')?.1.split_once('>') {
        let parameters = after.split('<').next().unwrap_or_default();
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
            })
        });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (header, target) in [
            (
                r#"</v2/_catalog?last=b&n=2>; rel="next""#,
                Some("/v2/_catalog?last=b&n=2"),
            ),
            ("<a>; rel=next", Some("a")),
            (r#"<a>; rel="prev", <b>; title="x"; REL="Next""#, Some("b")),
            (r#"<a>; rel="prev""#, None),
            ("<a", None),
            (r#"a; rel="next""#, None),
            ("", None),
        ] {
            assert_eq!(next_link(header), target, "{header}");
        }
    }
}
