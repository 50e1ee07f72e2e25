//! One address on the way to a file, and where redirects may lead.

use hyper::Response;
use hyper::header::LOCATION;
use url::Url;

use super::Order;
use crate::agent::fault::Fault;
use crate::domain::uri::without_query;

/// Redirects that are followed.
const MOST: u32 = 10;

/// One address on the way to a file.
#[derive(Debug)]
pub struct Hop {
    /// The address.
    pub url: Url,
    /// Whether credentials are sent: once they are not, they stay so.
    pub is_trusted: bool,
    count: u32,
}

impl Hop {
    /// Returns the address that the lease names.
    pub fn first(order: &Order<'_>) -> Result<Self, Fault> {
        let url = Url::parse(&order.uri.url)
            .map_err(|error| Fault::permanent(format!("{} is not an address: {error}", order.uri)))?;
        if order.uri.is_plain && !order.allow_http {
            return Err(Fault::permanent(format!(
                "{} is not encrypted: use https://, or let the administrator allow http:// (server.modelRepositories.allowHttp)",
                order.uri
            )));
        }
        Ok(Self { url, is_trusted: true, count: 0 })
    }

    /// Returns where a redirect leads.
    pub fn next<B>(&self, response: &Response<B>, order: &Order<'_>) -> Result<Self, Fault> {
        let from = self.place();
        let refuse = |problem: &str| Fault::permanent(format!("{from} redirects {problem}"));
        if self.count == MOST {
            return Err(Fault::permanent(format!("{} is redirected more than {MOST} times", order.uri)));
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| refuse("without saying where"))?;
        let mut url = self.url.join(location).map_err(|_| refuse("to what is not an address"))?;
        match url.scheme() {
            "https" => {}
            "http" if order.allow_http => {}
            "http" => {
                return Err(refuse(
                    "to http://, which is not encrypted (server.modelRepositories.allowHttp is false)",
                ));
            }
            other => return Err(refuse(&format!("to {other}:, and only https: and http: are followed"))),
        }
        // No credentials but the Secret's are ever sent. Addresses of these schemes can always be freed of others.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_fragment(None);
        let is_trusted = self.is_trusted && keeps_trust(&self.url, &url);
        Ok(Self { url, is_trusted, count: self.count + 1 })
    }

    /// The address as it may be printed.
    pub fn place(&self) -> String {
        without_query(self.url.as_str()).to_owned()
    }
}

/// Whether what may be told the first address may be told the second: the same host and port, or the same host's usual
/// encrypted one.
fn keeps_trust(from: &Url, to: &Url) -> bool {
    let is_same = (from.scheme(), from.port_or_known_default()) == (to.scheme(), to.port_or_known_default());
    let is_upgrade =
        from.scheme() == "http" && to.scheme() == "https" && from.port().is_none() && to.port().is_none();
    from.host_str() == to.host_str() && (is_same || is_upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::room::Room;
    use crate::domain::uri::{HttpUri, ModelUri};

    fn uri(text: &str) -> HttpUri {
        match ModelUri::parse(text).unwrap() {
            ModelUri::Http(uri) => uri,
            ModelUri::Claim { .. } => panic!("{text} is an address"),
        }
    }

    fn redirected(from: &str, location: &str, allow_http: bool) -> String {
        let uri = uri(from);
        let order = Order { uri: &uri, authorization: None, allow_http, room: Room::new(1, 1) };
        let response = Response::builder().header(LOCATION, location).body(()).unwrap();
        match Hop::first(&order).and_then(|hop| hop.next(&response, &order)) {
            Ok(hop) => format!("{} {}", hop.url, if hop.is_trusted { "with credentials" } else { "without" }),
            Err(fault) => fault.to_string(),
        }
    }

    #[test]
    fn credentials_stay_with_the_host_and_the_encryption_that_they_are_for() {
        let table = [
            ("https://a.b/x?q=1", "/y?z=2", false),
            ("https://a.b/x", "https://a.b:443/y#f", false),
            ("https://a.b/x", "https://a.b:8443/y", false),
            ("https://a.b/x", "https://c.a.b/y", false),
            ("https://a.b/x", "//u:p@c/y", false),
            ("https://a.b/x?secret", "http://a.b/y", false),
            ("https://a.b/x", "http://a.b/y", true),
            ("http://a.b/x", "https://a.b/y", true),
            ("http://a.b/x", "http://a.b/y", false),
            ("https://a.b/x", "file:///etc/passwd", true),
            ("https://a.b/x", "pvc:x", true),
            ("https://a.b/x", "https://", true),
        ];
        let lines = table.map(|(from, to, allow)| format!("{from} -> {to}: {}", redirected(from, to, allow)));
        insta::assert_snapshot!(lines.join("\n"), @r"
        https://a.b/x?q=1 -> /y?z=2: https://a.b/y?z=2 with credentials
        https://a.b/x -> https://a.b:443/y#f: https://a.b/y with credentials
        https://a.b/x -> https://a.b:8443/y: https://a.b:8443/y without
        https://a.b/x -> https://c.a.b/y: https://c.a.b/y without
        https://a.b/x -> //u:p@c/y: https://c/y without
        https://a.b/x?secret -> http://a.b/y: https://a.b/x redirects to http://, which is not encrypted (server.modelRepositories.allowHttp is false)
        https://a.b/x -> http://a.b/y: http://a.b/y without
        http://a.b/x -> https://a.b/y: https://a.b/y with credentials
        http://a.b/x -> http://a.b/y: http://a.b/x is not encrypted: use https://, or let the administrator allow http:// (server.modelRepositories.allowHttp)
        https://a.b/x -> file:///etc/passwd: https://a.b/x redirects to file:, and only https: and http: are followed
        https://a.b/x -> pvc:x: https://a.b/x redirects to pvc:, and only https: and http: are followed
        https://a.b/x -> https://: https://a.b/x redirects to what is not an address
        ");
    }

    #[test]
    fn redirects_are_bounded_and_lost_trust_stays_lost() {
        let uri = uri("https://a/x");
        let order = Order { uri: &uri, authorization: None, allow_http: false, room: Room::new(1, 1) };
        let to = |location: &str| Response::builder().header(LOCATION, location).body(()).unwrap();
        let hop = Hop::first(&order).unwrap().next(&to("https://b/x"), &order).unwrap();
        let mut hop = hop.next(&to("https://a/x"), &order).unwrap();
        assert!(!hop.is_trusted);
        for _ in 2..MOST {
            hop = hop.next(&to("/x"), &order).unwrap();
        }
        let refused = hop.next(&to("/x"), &order).unwrap_err();
        assert_eq!(refused, Fault::permanent("https://a/x is redirected more than 10 times"));
    }
}
