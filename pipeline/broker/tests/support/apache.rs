//! Real Apache Kafka: where it is, and nodes of it that a test may kill.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Set to the address of a Kafka made for tests, as `scripts/test` does. Not the variable of the program's own
/// `--kafka`: the tests create and delete topics, which nobody wants on the cluster that they work with.
const ADDRESS: &str = "WELLSPRING_TEST_KAFKA";

/// The Kafka to test against; `None`, with a plain word, where there is none.
pub(crate) fn address() -> Option<String> {
    static SAID: Once = Once::new();
    let address = std::env::var(ADDRESS).ok().filter(|a| !a.is_empty());
    if address.is_none() {
        // Not by a macro, whose words are only shown where a test fails.
        SAID.call_once(|| {
            let _ = writeln!(
                std::io::stderr(),
                "skipped: all tests on Apache Kafka; set {ADDRESS} to the address that `scripts/kafka start` prints"
            );
        });
    }
    address
}

/// A Kafka of a test's own, by `scripts/kafka`.
pub(crate) struct Apache {
    data: PathBuf,
}

impl Apache {
    /// A node with its data in `folder`; returns it and its address.
    pub(crate) fn start(folder: &Path) -> (Self, String) {
        let node = Self {
            data: folder.to_path_buf(),
        };
        let address = node.script("start", &[]);
        (node, address)
    }

    /// Starts it again, on the same data and address.
    pub(crate) fn restart(&self) {
        self.script("start", &[]);
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&self) {
        self.script("stop", &[]);
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.script("stop", &["--hard"]);
    }

    fn script(&self, action: &str, more: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka");
        let output = Command::new(script)
            .args([action, "--data"])
            .arg(&self.data)
            .args(more)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "scripts/kafka {action}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.kill();
        }
        // A second panic would hide the first.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.kill()));
    }
}
