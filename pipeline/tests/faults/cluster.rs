//! Three nodes of Apache Kafka, of which one after the other goes while a plate is worked on.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Running, apache_kafka, models, simulate, small_plate};
use crate::fleet::{Fleet, still_run};

/// A cluster of its own; it ends with the test.
struct Cluster {
    data: PathBuf,
}

impl Cluster {
    fn script(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka");
        let mut command = Command::new(script);
        let output = command
            .args(arguments)
            .arg("--data")
            .arg(&self.data)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "scripts/kafka {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka");
        let _stopped = Command::new(script)
            .args(["stop", "--hard", "--data"])
            .arg(&self.data)
            .output();
    }
}

#[test]
fn nodes_that_die_and_a_rolling_restart_lose_and_repeat_nothing() {
    let Some(models) = models() else { return };
    if apache_kafka().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    simulate(folder.path(), &small_plate("\"DNA\""));
    let cluster = Cluster {
        data: folder.path().join("kafka"),
    };
    let bootstrap = cluster.script(&["start", "--nodes", "3"]);
    let fleet = Fleet::new(&models, folder.path(), &bootstrap);
    fleet.submit();
    let mut serve = fleet.serve();
    // Slow enough to be at work while nodes go and come.
    let mut slow = fleet.command(&["worker"]);
    slow.env("FAILPOINTS", "worker.embed=sleep(600)");
    let mut worker = Running(slow.spawn().unwrap());
    fleet.wait_for_a_feature();
    // Two die, and take over from each other what they led; then all three are restarted, one after the other.
    for (node, how) in [("1", "--hard"), ("2", "--hard"), ("1", ""), ("2", ""), ("3", "")] {
        let stop: Vec<&str> = ["stop", "--node", node, how]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        cluster.script(&stop);
        cluster.script(&["start", "--node", node]);
    }
    fleet.wait_for_fields(192);
    still_run([&mut serve, &mut worker], "a process ended with a node");
    fleet.assert_every_feature_once(192);
}
