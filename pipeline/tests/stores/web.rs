//! A small web server that lists its files (WebDAV) and misbehaves where it is told to. Ends with the test's process.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What becomes of a request for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 403, always.
    Forbidden,
    /// 404, though the file is listed.
    Gone,
    /// A redirect to itself.
    Loop,
    /// Half of the body, once.
    CutOnce,
    /// The connection is closed, once.
    ResetOnce,
    /// 503, once.
    BusyOnce,
    /// A hundred bytes more than are listed.
    Longer,
    /// As many bytes as are listed, but written since.
    Rewritten,
    /// From a plain server: everything where part is asked for, and another entity tag than is listed.
    Plain,
}

struct Server {
    root: PathBuf,
    faults: Vec<(&'static str, Answer)>,
    /// Those that happened already.
    done: Mutex<HashSet<&'static str>>,
}

/// Serves the files below `root`; files whose path holds a text get that answer. The address leaves.
pub(crate) fn serve(root: PathBuf, faults: &[(&'static str, Answer)]) -> String {
    let server = Arc::new(Server {
        root,
        faults: faults.to_vec(),
        done: Mutex::default(),
    });
    listen(move |connection, method, path, range| answer(connection, &server, method, path, range))
}

/// A server of files that knows no PROPFIND.
pub(crate) fn serve_without_listing() -> String {
    listen(|connection, _, _, _| reply(connection, "501 Not Implemented", "", b""))
}

type Range = Option<(usize, usize)>;

fn listen(
    handler: impl Fn(&mut TcpStream, &str, &str, Range) -> Option<()> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let handler = handler.clone();
            std::thread::spawn(move || one(connection.unwrap(), handler.as_ref()));
        }
    });
    address
}

/// One request, one answer. A client that goes away in between is none of the test's business.
fn one(
    mut connection: TcpStream,
    handler: &(impl Fn(&mut TcpStream, &str, &str, Range) -> Option<()> + ?Sized),
) -> Option<()> {
    let mut lines = BufReader::new(connection.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let mut range = None;
    loop {
        let line = lines.next()?.ok()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-')?;
            range = Some((from.parse().ok()?, to.parse().ok()?));
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    handler(&mut connection, method, path, range)
}

fn reply(connection: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).ok()?;
    connection.write_all(body).ok()
}

const WRITTEN: &str = "ETag: \"1\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
const REWRITTEN: &str = "ETag: \"2\"\r\nLast-Modified: Fri, 02 Jan 2026 00:00:00 GMT\r\n";
/// The tag that it is listed with is 1.
const PLAIN: &str = "ETag: \"1-gzip\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

fn answer(connection: &mut TcpStream, server: &Server, method: &str, path: &str, range: Range) -> Option<()> {
    if method == "PROPFIND" {
        let body = listing(&server.root, path.trim_matches('/'));
        return reply(
            connection,
            "207 Multi-Status",
            "Content-Type: application/xml\r\n",
            body.as_bytes(),
        );
    }
    let fault = server.faults.iter().find(|(part, _)| path.contains(part));
    let (mut cut, mut longer, mut written, mut range) = (false, 0, WRITTEN, range);
    if let Some((_, Answer::Plain)) = fault {
        (range, written) = (None, PLAIN);
    }
    // The planner reads beginnings of files only; faults are for those who read them whole.
    if let Some((part, fault)) = fault.filter(|_| range.is_none()) {
        let first = server.done.lock().unwrap().insert(part);
        match fault {
            Answer::Forbidden => return reply(connection, "403 Forbidden", "", b""),
            Answer::Gone => return reply(connection, "404 Not Found", "", b""),
            Answer::Loop => return reply(connection, "302 Found", &format!("Location: {path}\r\n"), b""),
            Answer::ResetOnce if first => return connection.shutdown(Shutdown::Both).ok(),
            Answer::BusyOnce if first => return reply(connection, "503 Service Unavailable", "", b"later"),
            Answer::CutOnce => cut = first,
            Answer::Longer => longer = 100,
            Answer::Rewritten => written = REWRITTEN,
            Answer::Plain | Answer::ResetOnce | Answer::BusyOnce => {}
        }
    }
    let Ok(mut bytes) = std::fs::read(server.root.join(path.trim_start_matches('/'))) else {
        return reply(connection, "404 Not Found", "", b"");
    };
    bytes.resize(bytes.len() + longer, 0);
    if let Some((from, to)) = range {
        let to = (to + 1).min(bytes.len());
        let headers = format!(
            "{written}Content-Range: bytes {from}-{}/{}\r\n",
            to - 1,
            bytes.len()
        );
        return reply(connection, "206 Partial Content", &headers, bytes.get(from..to)?);
    }
    if cut {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{written}Content-Length: {}\r\nConnection: close\r\n\r\n",
            bytes.len()
        );
        connection.write_all(head.as_bytes()).ok()?;
        connection.write_all(&bytes[..bytes.len() / 2]).ok()?;
        return connection.shutdown(Shutdown::Both).ok();
    }
    reply(connection, "200 OK", written, &bytes)
}

/// All files below a folder of the root as WebDAV tells them.
fn listing(root: &Path, below: &str) -> String {
    let mut responses = String::new();
    let mut folders = vec![root.join(below)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            let size = path.metadata().unwrap().len();
            responses.push_str(&format!(
                "<D:response><D:href>/{name}</D:href><D:propstat><D:prop><D:getcontentlength>{size}</D:getcontentlength>\
                 <D:getlastmodified>Thu, 01 Jan 2026 00:00:00 GMT</D:getlastmodified><D:getetag>\"1\"</D:getetag>\
                 <D:resourcetype/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
            ));
        }
    }
    format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">{responses}</D:multistatus>")
}

/// A request to a server, which must be glad of it.
pub(crate) fn request(server: &str, method: &str, path: &str, headers: &[String], body: &[u8]) {
    let host = server.trim_start_matches("http://");
    let mut connection = TcpStream::connect(host).unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(request.as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 20"), "{text}");
}
