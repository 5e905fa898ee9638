//! The plan of a screen as text.

use super::Screen;

pub(super) fn plan_text(screen: &Screen) -> String {
    format!("Screen {}\n", screen.name)
}
