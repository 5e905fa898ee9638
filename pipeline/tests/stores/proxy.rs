//! A bad network: hands requests on to a server, and now and then is slow, closes the connection, says that it is busy, or
//! hands back half of an answer. Ends with the test's process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A proxy that runs.
pub(crate) struct Proxy {
    pub(crate) address: String,
    counts: Arc<Counts>,
}

/// How often each fault happened.
#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    slow: AtomicUsize,
    reset: AtomicUsize,
    busy: AtomicUsize,
    cut: AtomicUsize,
}

impl Proxy {
    pub(crate) fn faults(&self) -> [(&'static str, &AtomicUsize); 4] {
        let Counts {
            slow,
            reset,
            busy,
            cut,
            ..
        } = self.counts.as_ref();
        [("slow", slow), ("reset", reset), ("busy", busy), ("cut", cut)]
    }
}

/// Before the server at `http://host:port`.
pub(crate) fn start(server: &str) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let counts = Arc::new(Counts::default());
    let (server, of_thread) = (server.trim_start_matches("http://").to_owned(), counts.clone());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (server, counts) = (server.clone(), of_thread.clone());
            std::thread::spawn(move || pass(connection.unwrap(), &server, &counts));
        }
    });
    Proxy { address, counts }
}

/// One request and its answer. Every third request meets a fault, each kind in its turn.
fn pass(mut client: TcpStream, server: &str, counts: &Counts) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        if !line.to_ascii_lowercase().starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let number = counts.requests.fetch_add(1, Ordering::Relaxed);
    let count = |fault: &AtomicUsize| fault.fetch_add(1, Ordering::Relaxed);
    let fault = if number.is_multiple_of(3) {
        number / 3 % 4 + 1
    } else {
        0
    };
    match fault {
        1 => {
            count(&counts.slow);
            std::thread::sleep(Duration::from_millis(200));
        }
        2 => {
            count(&counts.reset);
            return client.shutdown(Shutdown::Both).ok();
        }
        3 => {
            count(&counts.busy);
            let body =
                "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let length = body.len();
            let text = format!(
                "HTTP/1.1 503 Slow Down\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            return client.write_all(text.as_bytes()).ok();
        }
        _ => {}
    }
    let mut upstream = TcpStream::connect(server).ok()?;
    upstream
        .write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    if fault == 4 {
        count(&counts.cut);
        // Half of the body, so that what is missing is not the head.
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        answer.truncate(body + (answer.len() - body) / 2);
    }
    client.write_all(&answer).ok()?;
    client.shutdown(Shutdown::Both).ok()
}
