//! A TCP proxy between a router and its store: counts requests, and breaks connections.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A proxy that counts the requests of all connections, and may break off in an answer.
pub struct Proxy {
    pub port: u16,
    requests: Arc<AtomicUsize>,
    /// Answers to pass before.
    passes: Arc<AtomicUsize>,
    /// Answers to break off, one after the other.
    breaks: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            passes: Arc::default(),
            breaks: Arc::default(),
        };
        let (requests, passes, breaks) =
            (Arc::clone(&proxy.requests), Arc::clone(&proxy.passes), Arc::clone(&proxy.breaks));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let (requests, passes, breaks) =
                    (Arc::clone(&requests), Arc::clone(&passes), Arc::clone(&breaks));
                tokio::spawn(pass(client, server, requests, passes, breaks));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests there were since the last time.
    pub fn take(&self) -> usize {
        self.requests.swap(0, Ordering::SeqCst)
    }

    /// Breaks off in the middle of the answer after that many.
    pub fn break_off_after(&self, answers: usize) {
        self.passes.store(answers, Ordering::SeqCst);
        self.breaks.store(1, Ordering::SeqCst);
    }

    pub fn left_to_break(&self) -> usize {
        self.breaks.load(Ordering::SeqCst)
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    requests: Arc<AtomicUsize>,
    passes: Arc<AtomicUsize>,
    breaks: Arc<AtomicUsize>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upstream = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            // An SDK sends a request's head at once, and a Redis client a command of a few hundred
            // bytes.
            let head = b"POST / HTTP/1.1";
            let heads = buffer[..length].windows(head.len()).filter(|bytes| bytes == head).count();
            let commands = usize::from(buffer[0] == b'*');
            requests.fetch_add(heads + commands, Ordering::SeqCst);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        let is_passed = |left: usize| left.checked_sub(1);
        let passed = passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_passed).is_ok();
        if !passed && breaks.swap(0, Ordering::SeqCst) > 0 {
            let _ = to_client.write_all(&buffer[..length / 2]).await;
            break;
        }
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    upstream.abort();
}
