//! A TCP proxy between a router and its store: counts requests, breaks connections, and makes them
//! hang.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A proxy that counts the requests of all connections, and may break off during an answer.
pub struct Proxy {
    pub port: u16,
    counts: Arc<Counts>,
    /// The signal to hang, shared by all connections since the last hang.
    hangs: Arc<Mutex<watch::Sender<bool>>>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// The number of answers to pass before a break.
    passes: AtomicUsize,
    /// The number of answers to break off, one after the other.
    breaks: AtomicUsize,
}

impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            counts: Arc::default(),
            hangs: Arc::new(Mutex::new(watch::Sender::new(false))),
        };
        let (counts, hangs) = (Arc::clone(&proxy.counts), Arc::clone(&proxy.hangs));
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let hangs = hangs.lock().unwrap().subscribe();
                tokio::spawn(pass(client, server, Arc::clone(&counts), hangs));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the number of requests since the last call.
    pub fn take(&self) -> usize {
        self.counts.requests.swap(0, Ordering::SeqCst)
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Breaks off in the middle of the answer after this many answers.
    pub fn break_off_after(&self, answers: usize) {
        self.counts.passes.store(answers, Ordering::SeqCst);
        self.counts.breaks.store(1, Ordering::SeqCst);
    }

    pub fn left_to_break(&self) -> usize {
        self.counts.breaks.load(Ordering::SeqCst)
    }

    /// Makes all open connections swallow everything that is sent, like connections that a firewall
    /// has forgotten. New connections work.
    pub fn hang(&self) {
        self.hangs.lock().unwrap().send_replace(true);
        *self.hangs.lock().unwrap() = watch::Sender::new(false);
    }
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    counts: Arc<Counts>,
    mut hangs: watch::Receiver<bool>,
) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let upstream = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            // An SDK sends the head of a request at once. A Redis client sends a command of a few
            // hundred bytes at once.
            let head = b"POST / HTTP/1.1";
            let heads = buffer[..length].windows(head.len()).filter(|bytes| bytes == head).count();
            let commands = usize::from(buffer[0] == b'*');
            counts.requests.fetch_add(heads + commands, Ordering::SeqCst);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    let downstream = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            let is_passed = |left: usize| left.checked_sub(1);
            let passed =
                counts.passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_passed).is_ok();
            if !passed && counts.breaks.swap(0, Ordering::SeqCst) > 0 {
                let _ = to_client.write_all(&buffer[..length / 2]).await;
                break;
            }
            if to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    let is_hung = tokio::select! {
        biased;
        _ = hangs.wait_for(|hangs| *hangs) => true,
        () = upstream => false,
        () = downstream => false,
    };
    if is_hung {
        let mut nowhere = vec![0; 64 * 1024];
        while let Ok(1..) = client.read(&mut nowhere).await {}
    }
}
