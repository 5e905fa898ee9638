//! What a screen may choose about drift monitoring. Text of a screen file enters, checked settings leave.

use serde::{Deserialize, Serialize};

/// What an alert does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftAction {
    /// It is noted beside the calls.
    #[default]
    Note,
    /// The plate's wells are left out of the comparison: it gets no calls.
    Quarantine,
}

/// Limits of the levels; defaults are those of SCIENCE 8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorLimits {
    /// Above this share of outlying control wells a plate is a warning.
    pub outliers_warn: f64,
    /// Above this share it is an alert.
    pub outliers_alert: f64,
    /// Below this cosine of today's disease vector with the reference's a plate is a warning.
    pub cosine_warn: f64,
    /// Below this one it is an alert.
    pub cosine_alert: f64,
    /// Below this robust leave-one-out Z′ a plate is an alert.
    pub z_prime_alert: f64,
    /// Below this q-value of the mean against the noise of wells, and beyond what accepted plates differ by, a plate
    /// is an alert.
    pub q_alert: f64,
}

impl Default for MonitorLimits {
    fn default() -> Self {
        Self {
            outliers_warn: 0.05,
            outliers_alert: 0.2,
            cosine_warn: 0.9,
            cosine_alert: 0.8,
            z_prime_alert: 0.0,
            q_alert: 1e-6,
        }
    }
}

/// The `[monitor]` table of a screen file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSettings {
    /// Whether controls are monitored where there are plates enough.
    pub enabled: bool,
    /// What an alert does.
    pub action: DriftAction,
    /// The assay, which reference and plates share; empty stands for the screen's name.
    pub assay: String,
    /// The microscope, which reference and plates share; may be empty.
    pub microscope: String,
    /// File of the reference; empty: the first plates of the screen are the reference.
    pub reference: String,
    /// Accepted plates of a reference, from 10 on; from 30 on limits are quantiles and not the largest value.
    pub reference_plates: usize,
    /// Principal components of the reference's controls, 2 to 64.
    pub components: usize,
    /// Permutations of MMD and energy distance, 199 to 1000000.
    pub permutations: u32,
    /// Limits of the levels.
    pub limits: MonitorLimits,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            action: DriftAction::default(),
            assay: String::new(),
            microscope: String::new(),
            reference: String::new(),
            reference_plates: 10,
            components: 16,
            permutations: 9999,
            limits: MonitorLimits::default(),
        }
    }
}

/// A setting that is out of range.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingRange {
    /// Its name under `[monitor]`.
    pub setting: &'static str,
    /// Its value.
    pub value: f64,
    /// What is expected.
    pub expected: &'static str,
}

impl std::fmt::Display for SettingRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            setting,
            value,
            expected,
        } = self;
        write!(f, "{setting} is {value}: expected {expected}")
    }
}

impl std::error::Error for SettingRange {}

impl MonitorSettings {
    /// Checks every number.
    ///
    /// # Errors
    /// [`SettingRange`] names the first setting that is out of range.
    pub fn check(&self) -> Result<(), SettingRange> {
        let limits = &self.limits;
        let whole = [
            (
                "reference_plates",
                self.reference_plates,
                10..=1000,
                "a whole number from 10 to 1000",
            ),
            (
                "components",
                self.components,
                2..=64,
                "a whole number from 2 to 64",
            ),
            (
                "permutations",
                self.permutations as usize,
                199..=1_000_000,
                "a whole number from 199 to 1000000",
            ),
        ];
        for (setting, value, range, expected) in whole {
            if !range.contains(&value) {
                let value = value as f64;
                return Err(SettingRange {
                    setting,
                    value,
                    expected,
                });
            }
        }
        let shares = "a number from 0 to 1";
        let numbers = [
            ("limits.outliers_warn", limits.outliers_warn, 0.0..=1.0, shares),
            ("limits.outliers_alert", limits.outliers_alert, 0.0..=1.0, shares),
            (
                "limits.cosine_warn",
                limits.cosine_warn,
                -1.0..=1.0,
                "a number from -1 to 1",
            ),
            (
                "limits.cosine_alert",
                limits.cosine_alert,
                -1.0..=1.0,
                "a number from -1 to 1",
            ),
            (
                "limits.z_prime_alert",
                limits.z_prime_alert,
                f64::MIN..=1.0,
                "a number up to 1",
            ),
            ("limits.q_alert", limits.q_alert, 0.0..=1.0, shares),
        ];
        for (setting, value, range, expected) in numbers {
            if !range.contains(&value) {
                return Err(SettingRange {
                    setting,
                    value,
                    expected,
                });
            }
        }
        Ok(())
    }
}
