//! An embedded broker in a process of its own, so that it can be killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub(crate) struct Served {
    child: Child,
    pub(crate) bootstrap: String,
}

impl Served {
    pub(crate) fn start(dir: &Path, listen: &str) -> Self {
        Self::run(Command::new(Self::program()).arg(dir).arg(listen))
    }

    /// A broker whose files may grow to 1 MiB at most, which fails writes as a full disk does.
    pub(crate) fn start_cramped(dir: &Path, listen: &str) -> Self {
        let script = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" \"$@\"";
        Self::run(
            Command::new("bash")
                .args(["-c", script])
                .arg(Self::program())
                .arg(dir)
                .arg(listen),
        )
    }

    fn program() -> PathBuf {
        let tests = std::env::current_exe().unwrap();
        tests.parent().unwrap().parent().unwrap().join("examples/serve")
    }

    fn run(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut bootstrap = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut bootstrap)
            .unwrap();
        Self {
            child,
            bootstrap: bootstrap.trim().to_owned(),
        }
    }

    /// Lets it end by itself.
    pub(crate) fn stop(&mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    /// SIGKILL: nothing of the process runs after this.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
