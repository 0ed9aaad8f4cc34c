//! A destination that misbehaves as the event tells it to, as a Cloud Run service and as an Invoke
//! API, over plain TCP.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A destination that follows the event's member `do`, until the event is healed.
#[derive(Clone)]
pub struct Rough {
    pub url: String,
    events: Arc<Mutex<HashMap<String, Seen>>>,
    /// Chooses the behaviour by the event's body.
    choose: Arc<dyn Fn(&str) -> Behaviour + Send + Sync>,
}

/// The requests of one event, by its key.
#[derive(Default, Clone)]
pub struct Seen {
    pub requests: Vec<Request>,
    is_healed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The path, which identifies router and destination.
    pub path: String,
    pub body: String,
    /// The router's number of the attempt.
    pub attempt: u32,
    pub behaviour: Behaviour,
}

/// The behaviour towards a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers with a status, and a `Retry-After` if there is one.
    Status(u16, Option<&'static str>),
    /// Answers of the Invoke API: status, headers and payload.
    Invoke(u16, &'static str, &'static str),
    /// Resets the connection without having read a byte.
    ResetBefore,
    /// Resets the connection when it has read the request.
    ResetAfter,
    /// Breaks off in the middle of the answer.
    Half,
    /// Never answers.
    Never,
}

impl Behaviour {
    /// Returns whether the event was processed and the sender got a success.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Status(200..300, _))
    }
}

impl Rough {
    pub async fn start(choose: impl Fn(&str) -> Behaviour + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rough = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            events: Arc::default(),
            choose: Arc::new(choose),
        };
        let server = rough.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                // A killed router may break off anywhere.
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        rough
    }

    /// Makes the destination accept the event from now on.
    pub fn heal(&self, key: &str) {
        self.events.lock().unwrap().entry(key.to_owned()).or_default().is_healed = true;
    }

    /// Returns the requests of an event.
    pub fn seen(&self, key: &str) -> Vec<Request> {
        let events = self.events.lock().unwrap();
        events.get(key).map(|seen| seen.requests.clone()).unwrap_or_default()
    }

    async fn serve(self, mut stream: TcpStream) -> Option<()> {
        let (head, body) = peek(&stream).await?;
        let path = head.split(' ').nth(1)?.to_owned();
        let is_invoke = path.contains("/2015-03-31/functions/");
        let (key, attempt) =
            (told(&head, "idempotency-key")?, told(&head, "x-webhook-attempt")?.parse().ok()?);
        let behaviour = {
            let mut events = self.events.lock().unwrap();
            let seen = events.entry(key).or_default();
            let healed = Behaviour::Status(200, None);
            let behaviour = if seen.is_healed { healed } else { (self.choose)(&body) };
            let behaviour_seen = behaviour.clone();
            let request = Request { path, body: body.clone(), attempt, behaviour: behaviour_seen };
            seen.requests.push(request);
            behaviour
        };
        if behaviour == Behaviour::ResetBefore {
            // Unread bytes make the system reset the connection.
            return Some(());
        }
        let mut request = vec![0; head.len() + body.len()];
        stream.read_exact(&mut request).await.ok()?;
        let answer = match behaviour {
            Behaviour::Status(status, retry_after) if is_invoke => {
                let headers =
                    retry_after.map(|value| format!(r#","headers":{{"Retry-After":"{value}"}}"#));
                let headers = headers.unwrap_or_default();
                response(
                    200,
                    "",
                    &format!(r#"{{"statusCode":{status},"body":"said {status}"{headers}}}"#),
                )
            }
            Behaviour::Status(status, retry_after) => {
                let headers = retry_after.map(|value| format!("retry-after: {value}\r\n"));
                // Answers with these statuses have no body.
                let body = if matches!(status, 204 | 304) { "" } else { &format!("said {status}") };
                response(status, &headers.unwrap_or_default(), body)
            }
            Behaviour::Invoke(status, headers, payload) => response(status, headers, payload),
            Behaviour::Half => response(200, "", &"x".repeat(100)),
            Behaviour::ResetAfter => {
                stream.set_zero_linger().ok()?;
                return Some(());
            }
            Behaviour::ResetBefore => return Some(()),
            Behaviour::Never => {
                // The connection stays open until the other side gives up.
                let _ = stream.read(&mut [0]).await;
                return Some(());
            }
        };
        let length = answer.len() - if behaviour == Behaviour::Half { 50 } else { 0 };
        stream.write_all(&answer.as_bytes()[..length]).await.ok()
    }
}

fn response(status: u16, headers: &str, body: &str) -> String {
    let length =
        if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("HTTP/1.1 {status} Said\r\nconnection: close\r\n{length}{headers}\r\n{body}")
}

/// Returns head and body of a request without reading them.
async fn peek(stream: &TcpStream) -> Option<(String, String)> {
    let mut buffer = vec![0; 64 * 1024];
    let mut known = 0;
    loop {
        stream.readable().await.ok()?;
        let length = stream.peek(&mut buffer).await.ok()?;
        if length == 0 {
            return None;
        }
        let text = std::str::from_utf8(&buffer[..length]).ok()?;
        if let Some(end) = text.find("\r\n\r\n").map(|end| end + 4) {
            let (head, body) = text.split_at(end);
            let wanted = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            if body.len() >= wanted.unwrap_or(0) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        // Peeking does not wait for more bytes than have arrived.
        if length == known {
            tokio::task::yield_now().await;
        }
        known = length;
    }
}

/// Returns a particular of a request, from a header or from the client context.
fn told(head: &str, what: &str) -> Option<String> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    header(what).or_else(|| {
        let json = BASE64_STANDARD.decode(header("x-amz-client-context")?).ok()?;
        let context: serde_json::Value = serde_json::from_slice(&json).ok()?;
        Some(context["custom"][what].as_str()?.to_owned())
    })
}
