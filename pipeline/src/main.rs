//! The `wellspring` binary: reads the command line, runs one command, and turns its result into an exit code.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
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
