//! The `wellspring` binary: reads the command line, runs one command, and turns its result into an exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    give_vulkan_a_runtime_folder();
    let _failpoints = wellspring::failpoint::setup();
    let cli = cli::Cli::parse();
    cli::start_logging(cli.verbose, cli.quiet);
    match cli.command.execute() {
        Ok(code) => code,
        Err(error) => {
            cli::say::error(&error);
            ExitCode::from(2)
        }
    }
}

/// Without this variable Mesa's Vulkan driver, asked which adapters there are, prints errors that concern nobody: it
/// looks for a desktop.
fn give_vulkan_a_runtime_folder() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the first thing the process does, so no other thread reads or writes the environment.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
}
