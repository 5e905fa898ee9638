//! This program in a process of its own, for what is measured apart from the bench. Fails where it cannot be started.

use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// This program once more, without input. A Kafka of the environment would be measured instead of the one meant.
pub(super) fn this_program() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let mut command = Command::new(program);
    command.env_remove("WELLSPRING_KAFKA").stdin(Stdio::null());
    Ok(command)
}

/// A child process that ends with its handle.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}
