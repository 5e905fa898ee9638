//! This program in processes of its own, for what is measured apart from the bench, and a small plate for them to work on.
//! Fails where a process cannot be started.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use wellspring_workloads::simulate::{GeneratedCompounds, Simulation, SimulationSettings, Stain};

use crate::cli::simulate::cores;
use crate::cli::simulate::plate_writer::{Compression, write_plates};

/// This program once more, without input. A Kafka of the environment would be measured instead of the one meant.
pub(super) fn this_program() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let mut command = Command::new(program);
    command.env_remove("WELLSPRING_KAFKA").stdin(Stdio::null());
    Ok(command)
}

/// A child process that ends with its handle.
pub(super) struct Process(pub(super) Child);

impl Process {
    /// Sends a signal.
    pub(super) fn signal(&self, signal: libc::c_int) -> anyhow::Result<()> {
        let id = libc::pid_t::try_from(self.0.id())?;
        // SAFETY: the child is ours and was not waited for, so the id is still its own.
        let sent = unsafe { libc::kill(id, signal) };
        ensure!(sent == 0, "a signal could not be sent");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The broker, and its address.
pub(super) fn start_broker(data: &Path) -> anyhow::Result<(Process, String)> {
    let mut command = this_program()?;
    command
        .args(["broker", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped());
    let mut broker = Process(command.spawn().context("the broker cannot be started")?);
    let mut line = String::new();
    if let Some(output) = broker.0.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    let address = line.trim().strip_prefix("listening on ");
    let address = address
        .context("the broker did not say where it listens")?
        .to_owned();
    Ok((broker, address))
}

/// Simulates a plate of 96 wells with this many small fields in each; its screen file.
pub(super) fn small_plate(folder: &Path, name: &str, fields: u32) -> anyhow::Result<PathBuf> {
    let settings = SimulationSettings {
        name: name.to_owned(),
        wells: 96,
        plates: 1,
        fields,
        channels: vec![Stain::Dna],
        height: 240,
        width: 240,
        cells_per_field: 20.0,
        cell_diameter: 48.0,
        generated: GeneratedCompounds {
            rescue: 1,
            toxic: 1,
            inactive: 6,
        },
        doses: vec![0.1, 1.0, 5.0, 20.0],
        replicates: 1,
        healthy_wells: 16,
        disease_wells: 16,
        fill_with_controls: true,
        ..SimulationSettings::default()
    };
    std::fs::create_dir_all(folder)?;
    let simulation = Simulation::new(settings)?;
    write_plates(&simulation, folder, cores(), Compression::None, true)?;
    Ok(folder.join("screen.toml"))
}
