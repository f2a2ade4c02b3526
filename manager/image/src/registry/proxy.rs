//! Proxies, as the environment or a hosts.toml names them. This machine itself is never asked for through one: a
//! proxy elsewhere has another loopback.

use reqwest::{ClientBuilder, NoProxy, Proxy, Url};

/// What no proxy is asked for, whatever `NO_PROXY` says.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// Send requests through the proxy that is `explicit`, or through those of the environment: `HTTPS_PROXY`,
/// `HTTP_PROXY` and `NO_PROXY`, or the same in lower case. A user and a password in a proxy's URL are for the proxy.
pub(super) fn through(builder: ClientBuilder, explicit: Option<&Url>) -> Result<ClientBuilder, String> {
    let variable = |name: &str| {
        [name.to_owned(), name.to_ascii_lowercase()]
            .into_iter()
            .find_map(|name| Some((std::env::var(&name).ok().filter(|v| !v.is_empty())?, name)))
    };
    // Ours alone: the library would look into the environment by itself, and pass over what it cannot read.
    let mut builder = builder.no_proxy();
    if let Some(url) = explicit {
        let proxy = Proxy::all(url.clone()).map_err(|e| e.to_string())?;
        return Ok(builder.proxy(proxy.no_proxy(NoProxy::from_string(LOOPBACK))));
    }
    let mut spared = LOOPBACK.to_owned();
    if let Some((more, _)) = variable("NO_PROXY") {
        spared = format!("{spared},{}", without_ports(&more));
    }
    if let Some((text, name)) = variable("HTTPS_PROXY") {
        let proxy = Proxy::https(parse(&text).map_err(|rule| format!("{name} {rule}"))?);
        let proxy = proxy.map_err(|e| e.to_string())?;
        builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&spared)));
    }
    if let Some((text, name)) = variable("HTTP_PROXY") {
        let proxy = Proxy::http(parse(&text).map_err(|rule| format!("{name} {rule}"))?);
        let proxy = proxy.map_err(|e| e.to_string())?;
        builder = builder.proxy(proxy.no_proxy(NoProxy::from_string(&spared)));
    }
    Ok(builder)
}

/// A proxy's URL; `host:port` alone is one of `http`. The error does not repeat the text, which may have a password.
pub(super) fn parse(text: &str) -> Result<Url, String> {
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("http://{text}"))
    };
    let url = url.map_err(|e| format!("is not the URL of a proxy: {e}"))?;
    if !url.has_host() || !matches!(url.scheme(), "http" | "https") {
        return Err("is not the URL of an http or https proxy".into());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("has more in it than a proxy's address".into());
    }
    Ok(url)
}

/// Go's programs take `host:port` in `NO_PROXY`, the library hosts alone.
fn without_ports(list: &str) -> String {
    let without_port = |entry: &str| match entry.trim().rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host.to_owned(),
        _ => entry.trim().to_owned(),
    };
    list.split(',').map(without_port).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_as_curl_and_go_take_them() {
        let parsed = |text| parse(text).map(|url| url.to_string());
        assert_eq!(parsed("proxy:3128").unwrap(), "http://proxy:3128/");
        assert_eq!(
            parsed("https://me:secret@proxy").unwrap(),
            "https://me:secret@proxy/"
        );
        for bad in [
            "socks5://proxy:1080",
            "http://",
            "http://proxy/path",
            "http://a b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(!parse("http://me:secret@:0/").unwrap_err().contains("secret"));
    }

    #[test]
    fn ports_in_the_list_of_what_is_spared_are_left_out() {
        assert_eq!(
            without_ports("a.example:5000, 10.0.0.0/8,::1,.b,*"),
            "a.example,10.0.0.0/8,::1,.b,*"
        );
    }
}
