//! What a person sees: results on standard output, progress and errors on standard error.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the only place of the binary that prints"
)]

use std::io::{IsTerminal, Write};

/// A line of results on standard output.
pub(crate) fn line(text: impl std::fmt::Display) {
    println!("{text}");
}

/// A line for the person at the terminal, on standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    clear_progress();
    eprintln!("{text}");
}

/// An error with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    clear_progress();
    eprintln!("error: {}", wellspring::error::chain(error.as_ref()));
}

/// A count and its noun, with an `s` unless it is one.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A progress line: rewritten in place on a terminal, a line of its own elsewhere.
pub(crate) fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        let _unseen = std::io::stderr().flush();
    } else {
        eprintln!("{text}");
    }
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
