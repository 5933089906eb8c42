//! Domains that many share: the first label of the host tells whose events they are.

/// The first label of a host that matches `eventgateway<letters or dashes>.io` or `slsgateway.com` anywhere.
pub(super) fn label(host: &str) -> Option<&str> {
    let is_hosted = host.contains("slsgateway.com")
        || host.match_indices("eventgateway").any(|(at, name)| {
            let rest = &host[at + name.len()..];
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '-');
            rest.starts_with(".io")
        });
    is_hosted.then(|| host.split('.').next().unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 5: hosted domains.
    #[test]
    fn the_first_label_of_a_hosted_domain() {
        for (host, expected) in [
            ("custom.slsgateway.com", Some("custom")),
            ("custom.slsgateway.com:4000", Some("custom")),
            ("a.b.eventgateway.io", Some("a")),
            ("a.eventgateway-dev.io", Some("a")),
            ("eventgatewaydev.io", Some("eventgatewaydev")),
            ("a.eventgateway2.io", None),
            ("a.eventgateway.com", None),
            ("localhost:4000", None),
            ("", None),
        ] {
            assert_eq!(label(host), expected, "{host:?}");
        }
    }
}
