//! The file hosts.toml, as containerd's users know it.
//!
//! Pure. Unlike containerd, which passes over what it does not know and falls back to no configuration at all when it
//! cannot read the file, this refuses both: a misspelt `capabilities` would trust a mirror with everything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Capability, DOCKER_HUB, DOCKER_HUB_NAMES, Endpoint, is_of, itself};
use crate::registry::proxy;
use crate::registry::tls::Tls;

/// More mirrors than anybody has.
const HOSTS_MAX: usize = 64;
const DIAL_TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// What can be said of each host, and of the server.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany<PathBuf>>,
    client: Option<OneOrMany<Client>>,
    skip_verify: bool,
    header: Option<Table>,
    override_path: bool,
    dial_timeout: Option<String>,
    proxy: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "it has to be one or a list")]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// Certificate and key, in one file or two.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "it has to be a path, or a certificate's path and its key's"
)]
enum Client {
    One(PathBuf),
    Two(PathBuf, PathBuf),
}

/// The servers for `host` in the order of the file, the `server` last. Paths in it begin at `folder`.
pub(in crate::registry) fn parse(text: &str, folder: &Path, host: &str) -> Result<Vec<Endpoint>, String> {
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let server = match table.remove("server") {
        None => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err("`server` has to be a text".into()),
    };
    let hosts = match table.remove("host") {
        None => Table::new(),
        Some(Value::Table(hosts)) if hosts.len() <= HOSTS_MAX => hosts,
        Some(Value::Table(_)) => return Err(format!("it has more than {HOSTS_MAX} hosts")),
        Some(_) => return Err("`host` has to be tables, as [host.\"https://mirror.example\"]".into()),
    };
    let mut endpoints = Vec::new();
    for (url, fields) in hosts {
        let fields: Fields = fields.try_into().map_err(|e| format!("host {url:?}: {e}"))?;
        let endpoint = at(&url, fields.override_path, host)
            .and_then(|endpoint| fill(endpoint, fields, folder))
            .map_err(|rule| format!("host {url:?}: {rule}"))?;
        endpoints.push(endpoint);
    }
    let fields: Fields = Value::Table(table).try_into().map_err(|e| e.to_string())?;
    let endpoint = match server {
        Some(url) => {
            at(&url, fields.override_path, host).map_err(|rule| format!("server {url:?}: {rule}"))?
        }
        None => itself(host).map_err(|e| e.to_string())?,
    };
    endpoints.push(fill(endpoint, fields, folder)?);
    Ok(endpoints)
}

/// The server at a URL of the file. Without a scheme it is one of https.
fn at(text: &str, is_whole_path: bool, host: &str) -> Result<Endpoint, String> {
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let mut url = Url::parse(&with_scheme).map_err(|e| e.to_string())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("it is not a URL of http or https".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it has credentials in it: they belong into a header".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has more in it than host and path".into());
    }
    // Some write the name that people know and that answers with a web page.
    if host == DOCKER_HUB
        && url.scheme() == "https"
        && DOCKER_HUB_NAMES[1..].contains(&url.host_str().unwrap_or_default())
    {
        url.set_host(Some(DOCKER_HUB_NAMES[0]))
            .map_err(|e| e.to_string())?;
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if is_whole_path || path.ends_with("/v2") {
        format!("{path}/")
    } else {
        format!("{path}/v2/")
    };
    url.set_path(&path);
    let mut endpoint = itself(host).map_err(|e| e.to_string())?;
    endpoint.is_registry = is_of(&url, host);
    endpoint.has_scheme = true;
    endpoint.root = url;
    Ok(endpoint)
}

fn fill(mut endpoint: Endpoint, fields: Fields, folder: &Path) -> Result<Endpoint, String> {
    if let Some(names) = fields.capabilities.filter(|names| !names.is_empty()) {
        let capabilities: Result<BTreeSet<_>, _> = names.iter().map(|name| capability(name)).collect();
        endpoint.capabilities = capabilities?;
    }
    let authorities = fields.ca.map(OneOrMany::into_vec).unwrap_or_default();
    let clients = fields.client.map(OneOrMany::into_vec).unwrap_or_default();
    endpoint.tls = Tls {
        authorities: authorities.iter().map(|path| folder.join(path)).collect(),
        clients: clients
            .iter()
            .map(|client| match client {
                Client::One(both) => (folder.join(both), None),
                // An empty second path is how a list of pairs says that the first has both.
                Client::Two(both, key) if key.as_os_str().is_empty() => (folder.join(both), None),
                Client::Two(certificate, key) => (folder.join(certificate), Some(folder.join(key))),
            })
            .collect(),
        skip_verify: fields.skip_verify,
    };
    if let Some(table) = fields.header {
        endpoint.header = header(table)?;
    }
    if let Some(text) = fields.dial_timeout {
        let timeout = text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|timeout| Duration::try_from(timeout).ok())
            .filter(|timeout| !timeout.is_zero() && *timeout <= DIAL_TIMEOUT_MAX)
            .ok_or_else(|| {
                format!("dial_timeout {text:?} is not a time as \"500ms\" or \"5s\", at most 10 minutes")
            })?;
        endpoint.dial_timeout = Some(timeout);
    }
    if let Some(text) = fields.proxy {
        endpoint.proxy = Some(proxy::parse(&text).map_err(|rule| format!("proxy {rule}"))?);
    }
    Ok(endpoint)
}

fn capability(name: &str) -> Result<Capability, String> {
    match name.to_ascii_lowercase().as_str() {
        "pull" => Ok(Capability::Pull),
        "resolve" => Ok(Capability::Resolve),
        "push" => Ok(Capability::Push),
        _ => Err(format!("capability {name:?} is none of pull, resolve and push")),
    }
}

fn header(table: Table) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        // Values are secrets, often.
        let wrong =
            || format!("header {name:?} is not a name with a text, or a list of texts, that HTTP allows");
        let values = match value {
            Value::String(one) => vec![Value::String(one)],
            Value::Array(many) => many,
            _ => return Err(wrong()),
        };
        let key: HeaderName = name.parse().map_err(|_| wrong())?;
        for value in values {
            let text = value.as_str().ok_or_else(wrong)?;
            let mut value = HeaderValue::from_str(text).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.try_append(key.clone(), value).map_err(|_| wrong())?;
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, host: &str) -> Vec<Endpoint> {
        parse(text, Path::new("/etc/c/a.example"), host).unwrap()
    }

    fn roots(text: &str, host: &str) -> Vec<String> {
        parsed(text, host).iter().map(|e| e.root.to_string()).collect()
    }

    #[test]
    fn mirrors_are_tried_in_the_order_of_the_file_and_the_server_last() {
        let text = r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example"]
            [host."https://a.example:5000/cache"]
            capabilities = ["pull"]
            [host."http://10.0.0.1:5000/raw/api"]
            override_path = true
            capabilities = ["Pull", "resolve"]
        "#;
        let endpoints = parsed(text, "docker.io");
        let roots: Vec<&str> = endpoints.iter().map(|e| e.root.as_str()).collect();
        assert_eq!(
            roots,
            [
                "https://z.example/v2/",
                "https://a.example:5000/cache/v2/",
                "http://10.0.0.1:5000/raw/api/",
                "https://registry-1.docker.io/v2/"
            ]
        );
        let counts: Vec<usize> = endpoints.iter().map(|e| e.capabilities.len()).collect();
        assert_eq!(counts, [3, 1, 2, 3]);
        let itself: Vec<bool> = endpoints.iter().map(|e| e.is_registry).collect();
        assert_eq!(itself, [false, false, false, true]);
    }

    #[test]
    fn the_server_is_the_registry_unless_the_file_says_another() {
        assert_eq!(roots("", "a.example"), ["https://a.example/v2/"]);
        assert_eq!(
            roots("server = 'b.example/v2/'", "a.example"),
            ["https://b.example/v2/"]
        );
        assert_eq!(
            roots("server = 'https://docker.io'", "docker.io"),
            ["https://registry-1.docker.io/v2/"]
        );
        let itself = &parsed("skip_verify = true\ncapabilities = ['pull']", "a.example")[0];
        assert!(itself.tls.skip_verify && !itself.has_scheme && itself.capabilities.len() == 1);
    }

    #[test]
    fn certificates_headers_and_times_are_read_in_all_forms() {
        let endpoint = &parsed(
            r#"
            ca = ["one.crt", "/two.crt"]
            client = ["both.pem", ["a.cert", "a.key"], ["c.pem", ""]]
            dial_timeout = "1m1.5s"
            proxy = "http://proxy:3128"
            [header]
            Authorization = "Basic eDp5"
            x-many = ["1", "2"]
            "#,
            "a.example",
        )[0];
        let path = |name: &str| Path::new("/etc/c/a.example").join(name);
        assert_eq!(endpoint.tls.authorities, [path("one.crt"), "/two.crt".into()]);
        assert_eq!(
            endpoint.tls.clients,
            [
                (path("both.pem"), None),
                (path("a.cert"), Some(path("a.key"))),
                (path("c.pem"), None)
            ]
        );
        assert_eq!(endpoint.dial_timeout, Some(Duration::from_millis(61_500)));
        assert_eq!(endpoint.proxy.as_ref().unwrap().as_str(), "http://proxy:3128/");
        assert_eq!(endpoint.header.get("authorization").unwrap(), "Basic eDp5");
        assert_eq!(endpoint.header.get_all("x-many").iter().count(), 2);
        let one = &parsed("ca = 'one.crt'\nclient = 'both.pem'", "a.example")[0];
        assert_eq!((one.tls.authorities.len(), one.tls.clients.len()), (1, 1));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (text, word) in [
            ("server = 1", "server"),
            ("host = 'x'", "host"),
            ("capabilties = ['pull']", "capabilties"),
            ("capabilities = ['fetch']", "fetch"),
            ("[host.'ftp://x']", "ftp://x"),
            ("[host.'https://me:pw@x']", "credentials"),
            ("[host.'https://x?a=b']", "more"),
            ("[host.'https://x']\nca = 1", "https://x"),
            ("client = [['a']]", "client"),
            ("dial_timeout = '-1s'", "dial_timeout"),
            ("dial_timeout = '5'", "dial_timeout"),
            ("proxy = 'socks5://x'", "proxy"),
            ("[header]\nx = 1", "\"x\""),
            ("[header]\n'a b' = 'x'", "a b"),
        ] {
            let error = parse(text, Path::new("/"), "a.example").unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let secret = parse("[header]\nx = \"secret\\n\"", Path::new("/"), "a.example").unwrap_err();
        assert!(!secret.contains("secret"), "{secret}");
    }
}
