//! Takes everything that could be a secret out of a pool's URL.

/// Longest URL that is kept.
const LENGTH_MAX: usize = 300;

/// Scheme, host and port of a pool's URL; `None` where that much cannot be told for certain. User, password, path and
/// query are left out, since workers and keys are written into each of them.
pub(super) fn without_secrets(url: &str) -> Option<String> {
    let url = url.trim();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, url),
    };
    // A password may hold '/' and '@' unescaped, so the host begins after the last '@'.
    let rest = rest.rsplit('@').next().unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let plain = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && plain(address, ":."),
        None => !host.is_empty() && plain(host, "._-"),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let is_scheme = scheme.is_none_or(|scheme| !scheme.is_empty() && plain(scheme, "+.-"));
    if !is_host || !is_port || !is_scheme || authority.len() > LENGTH_MAX {
        return None;
    }
    Some(scheme.map_or_else(|| authority.to_owned(), |scheme| format!("{scheme}://{authority}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_host_and_port_are_kept_and_nothing_else() {
        for (url, kept) in [
            ("stratum+tcp://pool1.example.com:4444", Some("stratum+tcp://pool1.example.com:4444")),
            ("stratum+ssl://user.1:secret@pool:443/x?key=secret#secret", Some("stratum+ssl://pool:443")),
            ("stratum+tcp://user:se@cr/et@pool:3333", Some("stratum+tcp://pool:3333")),
            ("stratum+tcp://user:se/cret@[2001:db8::1]:3333", Some("stratum+tcp://[2001:db8::1]:3333")),
            ("pool:3333", Some("pool:3333")),
            ("stratum+tcp://pool", Some("stratum+tcp://pool")),
            ("stratum+tcp://user:secret", None),
            ("stratum+tcp://", None),
            ("stratum+tcp://user:secret@", None),
            ("not a url", None),
            ("", None),
        ] {
            assert_eq!(without_secrets(url).as_deref(), kept, "{url}");
        }
    }
}
