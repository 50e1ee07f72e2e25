//! What the head of an answer means: a file, the rest of one, or a fault that stays or passes.

use std::time::Duration;

use hyper::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED, RETRY_AFTER,
};
use hyper::{Response, StatusCode};

use super::Order;
use super::hop::Hop;
use crate::agent::fault::Fault;
use crate::agent::room::Room;
use crate::clock;

/// What comes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The file from its first byte.
    Whole,
    /// What is missing of it.
    Rest,
}

/// A file on its way.
#[derive(Debug)]
pub struct Transfer {
    /// What comes now.
    pub found: Found,
    /// Bytes of the whole file, where the server says so.
    pub total: Option<u64>,
}

/// What is known of a file of which some bytes have come.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Bytes that have come.
    pub written: u64,
    /// Bytes of the whole file, where the server said so.
    pub total: Option<u64>,
    /// What says that the file on the server is still the same: a strong ETag, or else the time of the last change.
    pub validator: Option<HeaderValue>,
}

/// Reads the head of an answer.
pub fn found<B>(
    response: &Response<B>,
    order: &Order<'_>,
    hop: &Hop,
    known: &Known,
) -> Result<Transfer, Fault> {
    let headers = response.headers();
    let transfer = match response.status() {
        StatusCode::OK => Transfer { found: Found::Whole, total: number(headers.get(CONTENT_LENGTH)) },
        StatusCode::PARTIAL_CONTENT if known.written > 0 => match range(headers) {
            Some((start, total)) if start == known.written => {
                if is_another(headers, total, known) {
                    return Err(Fault::transient(format!(
                        "{} answers with the rest of another file: it is fetched anew",
                        hop.place()
                    )));
                }
                Transfer { found: Found::Rest, total: total.or(known.total) }
            }
            _ => {
                return Err(Fault::transient(format!(
                    "{} answers with another range than was asked for",
                    hop.place()
                )));
            }
        },
        status => return Err(refusal(status, headers, order, hop)),
    };
    match transfer.total {
        Some(total) if total > order.room.bytes() => Err(too_large(&order.room)),
        _ => Ok(transfer),
    }
}

/// Returns what says whether the file on the server is still the same.
pub fn validator(headers: &HeaderMap) -> Option<&HeaderValue> {
    let strong = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    strong.or_else(|| headers.get(LAST_MODIFIED))
}

/// Whether the rest is said to be of another file than its beginning. A server that knows `If-Range` should not answer so; not
/// every one, nor every cache before it, obeys. What it leaves out is not held against it.
fn is_another(headers: &HeaderMap, total: Option<u64>, known: &Known) -> bool {
    let validator = known.validator.as_ref();
    // An ETag is quoted, a time is not.
    let name = validator.map(|value| if value.as_bytes().starts_with(b"\"") { ETAG } else { LAST_MODIFIED });
    let found = name.and_then(|name| headers.get(name));
    differ(found, validator) || differ(total, known.total)
}

fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// Returns the fault of a file that is larger than is allowed.
pub fn too_large(room: &Room) -> Fault {
    Fault::permanent(format!("the file is larger than {room}"))
}

/// Whether the answer says that what has come cannot be gone on with.
pub fn is_about_range(status: StatusCode) -> bool {
    matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE)
}

fn refusal(status: StatusCode, headers: &HeaderMap, order: &Order<'_>, hop: &Hop) -> Fault {
    let message = format!("{} answers {status}", hop.place());
    if is_passing(status) {
        return Fault::Transient { message, wait: headers.get(RETRY_AFTER).and_then(wait) };
    }
    if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Fault::permanent(message);
    }
    let about = match &order.authorization {
        None => "and no Secret applies to this address (server.modelRepositories.https)".to_owned(),
        Some((secret, _)) if hop.is_trusted => format!("to the credentials of Secret {secret:?}"),
        Some((secret, _)) => {
            format!(
                "and the credentials of Secret {secret:?} are not sent there, since a redirect left their host or their encryption"
            )
        }
    };
    Fault::permanent(format!("{message} {about}"))
}

/// Whether the same request may be answered otherwise later.
fn is_passing(status: StatusCode) -> bool {
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
        // The next try begins anew.
        StatusCode::RANGE_NOT_SATISFIABLE,
    ];
    status.is_server_error() || passing.contains(&status)
}

/// Reads `bytes 5-9/10`: the start and, where it is known, the length of the whole.
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

fn number(value: Option<&HeaderValue>) -> Option<u64> {
    value?.to_str().ok()?.parse().ok()
}

/// Reads `Retry-After`: seconds, or a time.
fn wait(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(clock::system_now().duration_until(at)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::uri::ModelUri;

    #[test]
    fn only_some_refusals_pass() {
        let ModelUri::Http(uri) = ModelUri::parse("https://h/x?secret").unwrap() else {
            panic!("it is an address")
        };
        let order =
            Order { uri: &uri, authorization: None, allow_http: false, room: Room::new(100, u64::MAX) };
        let secret = ("s", HeaderValue::from_static("Bearer hush"));
        let trusted = Order { authorization: Some(secret), ..order };
        let order =
            Order { uri: &uri, authorization: None, allow_http: false, room: Room::new(100, u64::MAX) };
        let hop = Hop::first(&order).unwrap();
        let line = |status: u16, header: (&'static str, &str), order: &Order<'_>, written| {
            let response = Response::builder().status(status).header(header.0, header.1).body(()).unwrap();
            let known = Known { written, ..Known::default() };
            format!("{status} {}: {:?}", header.1, found(&response, order, &hop, &known))
        };
        let none = ("x", "");
        let table = [
            line(200, ("content-length", "100"), &order, 0),
            line(200, ("content-length", "101"), &order, 0),
            line(200, none, &order, 50),
            line(206, ("content-range", "bytes 50-99/100"), &order, 50),
            line(206, ("content-range", "bytes 50-99/*"), &order, 50),
            line(206, ("content-range", "bytes 0-99/100"), &order, 50),
            line(206, ("content-range", "bytes 50-999/1000"), &order, 50),
            line(206, none, &order, 0),
            line(204, none, &order, 0),
            line(404, none, &order, 0),
            line(401, none, &order, 0),
            line(403, none, &trusted, 0),
            line(416, none, &order, 50),
            line(408, none, &order, 0),
            line(429, ("retry-after", "7"), &order, 0),
            line(503, ("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"), &order, 0),
            line(500, ("retry-after", "soon"), &order, 0),
        ];
        assert!(!table.concat().contains("hush") && !table.concat().contains("secret"));
        insta::assert_snapshot!(table.join("\n"), @r#"
        200 100: Ok(Transfer { found: Whole, total: Some(100) })
        200 101: Err(Permanent("the file is larger than 100 bytes (server.modelRepositories.maximumSize)"))
        200 : Ok(Transfer { found: Whole, total: None })
        206 bytes 50-99/100: Ok(Transfer { found: Rest, total: Some(100) })
        206 bytes 50-99/*: Ok(Transfer { found: Rest, total: None })
        206 bytes 0-99/100: Err(Transient { message: "https://h/x answers with another range than was asked for", wait: None })
        206 bytes 50-999/1000: Err(Permanent("the file is larger than 100 bytes (server.modelRepositories.maximumSize)"))
        206 : Err(Permanent("https://h/x answers 206 Partial Content"))
        204 : Err(Permanent("https://h/x answers 204 No Content"))
        404 : Err(Permanent("https://h/x answers 404 Not Found"))
        401 : Err(Permanent("https://h/x answers 401 Unauthorized and no Secret applies to this address (server.modelRepositories.https)"))
        403 : Err(Permanent("https://h/x answers 403 Forbidden to the credentials of Secret \"s\""))
        416 : Err(Transient { message: "https://h/x answers 416 Range Not Satisfiable", wait: None })
        408 : Err(Transient { message: "https://h/x answers 408 Request Timeout", wait: None })
        429 7: Err(Transient { message: "https://h/x answers 429 Too Many Requests", wait: Some(7s) })
        503 Thu, 01 Jan 1970 00:00:00 GMT: Err(Transient { message: "https://h/x answers 503 Service Unavailable", wait: None })
        500 soon: Err(Transient { message: "https://h/x answers 500 Internal Server Error", wait: None })
        "#);
    }

    #[test]
    fn the_rest_of_another_file_is_not_gone_on_with() {
        let ModelUri::Http(uri) = ModelUri::parse("https://h/x").unwrap() else { panic!("it is an address") };
        let order =
            Order { uri: &uri, authorization: None, allow_http: false, room: Room::new(100, u64::MAX) };
        let hop = Hop::first(&order).unwrap();
        let outcome = |validator: &'static str, header: (&'static str, &str), total: &str| {
            let validator = Some(HeaderValue::from_static(validator));
            let known = Known { written: 50, total: Some(99), validator };
            let response = Response::builder().status(206).header(header.0, header.1);
            let response = response.header("content-range", format!("bytes 50-98/{total}")).body(()).unwrap();
            match found(&response, &order, &hop, &known) {
                Ok(transfer) => format!("{:?}", transfer.total),
                Err(fault) => format!("{fault:?}"),
            }
        };
        let (monday, tuesday) = ("Mon, 05 Jan 2026 00:00:00 GMT", "Tue, 06 Jan 2026 00:00:00 GMT");
        let goes_on = [
            outcome("\"1\"", ("etag", "\"1\""), "99"),
            outcome("\"1\"", ("last-modified", tuesday), "*"),
            outcome(monday, ("last-modified", monday), "99"),
            outcome(monday, ("etag", "W/\"1\""), "99"),
        ];
        assert_eq!(goes_on, ["Some(99)"; 4]);
        let anew = [
            outcome("\"1\"", ("etag", "\"2\""), "99"),
            outcome("\"1\"", ("etag", "W/\"1\""), "99"),
            outcome("\"1\"", ("etag", "\"1\""), "98"),
            outcome(monday, ("last-modified", tuesday), "99"),
        ];
        let fault = Fault::transient("https://h/x answers with the rest of another file: it is fetched anew");
        assert_eq!(anew, [(); 4].map(|()| format!("{fault:?}")));
    }
}
