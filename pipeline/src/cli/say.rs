//! What a person sees: results on standard output, progress and errors on standard error.

use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};
use std::process::exit;

/// A line of results on standard output. Where that cannot be written the process ends: nobody would see the rest.
pub(crate) fn line(text: impl std::fmt::Display) {
    let Err(error) = writeln!(stdout().lock(), "{text}") else {
        return;
    };
    // Whoever read has seen enough, such as `head`.
    if error.kind() == ErrorKind::BrokenPipe {
        exit(0);
    }
    note(format_args!("error: standard output cannot be written: {error}"));
    exit(2);
}

/// A line for the person at the terminal, on standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    clear_progress();
    told(format_args!("{text}\n"));
}

/// An error with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    clear_progress();
    told(format_args!(
        "error: {}\n",
        wellspring::error::chain(error.as_ref())
    ));
}

/// A count and its noun, with an `s` unless it is one.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A progress line: rewritten in place on a terminal, a line of its own elsewhere.
pub(crate) fn progress(text: &str) {
    match stderr().is_terminal() {
        true => told(format_args!("\r\x1b[K{text}")),
        false => told(format_args!("{text}\n")),
    }
}

fn clear_progress() {
    if stderr().is_terminal() {
        told(format_args!("\r\x1b[K"));
    }
}

/// What is told beside the results is no reason to end where nobody listens.
fn told(text: std::fmt::Arguments<'_>) {
    let mut stderr = stderr().lock();
    let _unseen = stderr.write_fmt(text).and_then(|()| stderr.flush());
}
