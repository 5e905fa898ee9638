//! Reads the tables of a screen file.

use super::{Screen, ScreenError, ScreenErrors, ScreenProblem};

pub(super) fn read(text: &str, file_name: &str) -> Result<Screen, ScreenErrors> {
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    let problem = ScreenProblem::Syntax {
        reason: errors
            .first()
            .map(|error| error.message().to_owned())
            .unwrap_or_default(),
    };
    Err(ScreenErrors(vec![ScreenError {
        file: file_name.to_owned(),
        line: 1,
        column: 1,
        problem,
    }]))
}
