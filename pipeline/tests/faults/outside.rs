//! Faults of what lies around the broker: a network that goes silent and comes back, a disk that is full for a while.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wellspring::kafka::topics::Topic;

use crate::common::{listening, models, simulate, small_plate, wellspring};
use crate::fleet::{Fleet, still_run};
use crate::records;

/// Longer than a group waits for a member that is not heard of, and than a transaction may stay open.
const SILENCE: Duration = Duration::from_secs(12);

/// A proxy in front of a broker. While it is cut, connections stay open and nothing passes, as with a cable that was
/// pulled; what was on its way then is lost with them.
struct Proxy {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Proxy {
    /// Listens; passes on to `broker` once that is known.
    fn start(broker: Arc<std::sync::OnceLock<SocketAddr>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let is_cut = Arc::clone(&cut);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Some(broker)) = (client, broker.get()) else {
                    continue;
                };
                let Ok(server) = TcpStream::connect(broker) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let is_cut = Arc::clone(&is_cut);
                    std::thread::spawn(move || pass(from, to, &is_cut));
                }
            }
        });
        Self { address, cut }
    }
}

/// Passes bytes on until an end closes, or what it has was cut off.
fn pass(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut bytes = [0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if cut.load(Ordering::SeqCst) {
            // Never delivered; the connection is of no use afterwards.
            while cut.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            break;
        }
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // Either may be closed already.
        let _closed = stream.shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn a_network_that_is_silent_for_a_while_loses_and_repeats_nothing() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(
        folder.path(),
        &small_plate("\"DNA\"").replace("fields = 2", "fields = 1"),
    );
    let behind = Arc::new(std::sync::OnceLock::new());
    let proxy = Proxy::start(Arc::clone(&behind));
    let mut command = wellspring(&models);
    command.args([
        "broker",
        "--listen",
        "127.0.0.1:0",
        "--advertise",
        &proxy.address.to_string(),
    ]);
    let (_broker, address) = listening(command.arg("--data").arg(folder.path().join("broker")));
    behind.set(address.parse().unwrap()).unwrap();
    let fleet = Fleet::new(&models, folder.path(), proxy.address.to_string());
    fleet.submit();
    let mut serve = fleet.serve();
    let mut worker = fleet.start(&["worker"]);
    fleet.wait_for_a_feature();
    proxy.cut.store(true, Ordering::SeqCst);
    std::thread::sleep(SILENCE);
    assert!(
        fleet.summary().is_none(),
        "it was over before the network was cut"
    );
    proxy.cut.store(false, Ordering::SeqCst);
    fleet.wait_for_fields(96);
    still_run([&mut serve, &mut worker], "a process ended with the network");
    fleet.assert_every_feature_once(96);
}

/// Bytes of the disk that is full for a while.
const DISK: u64 = 64 << 20;

#[test]
fn a_disk_that_is_full_for_a_while_loses_and_repeats_nothing() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    simulate(
        folder.path(),
        &small_plate("\"DNA\"").replace("fields = 2", "fields = 1"),
    );
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    // A disk of its own, in a mount namespace of its own.
    let own_disk = |then: &str| {
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={DISK} none \"$0\" && {then}");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount]);
        command.arg(&disk);
        command
    };
    if !own_disk("true").status().is_ok_and(|status| status.success()) {
        println!("skipped: no small disk can be made here (unshare, mount)");
        return;
    }
    let mut command = own_disk("exec \"$@\"");
    let broker = wellspring(&models);
    command
        .arg(broker.get_program())
        .args(["broker", "--listen", "127.0.0.1:0", "--data"])
        .arg(disk.join("broker"));
    let (mut broker, address) = listening(&mut command);
    let fleet = Fleet::new(&models, folder.path(), &address);
    fleet.submit();
    // The disk as the broker sees it.
    let seen = Path::new("/proc").join(broker.0.id().to_string()).join("root");
    let ballast = seen.join(disk.strip_prefix("/").unwrap()).join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    let full = std::io::copy(&mut std::io::repeat(7).take(2 * DISK), &mut file);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let mut serve = fleet.serve();
    let mut worker = fleet.start(&["worker"]);
    // Long enough for attempts that fail.
    std::thread::sleep(SILENCE);
    assert!(
        broker.0.try_wait().unwrap().is_none(),
        "the broker ended with its disk"
    );
    assert!(records(&fleet.kafka, Topic::Features).is_empty());
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    fleet.wait_for_fields(96);
    still_run(
        [&mut serve, &mut worker],
        "a process ended with the disk of its broker",
    );
    fleet.assert_every_feature_once(96);
}
