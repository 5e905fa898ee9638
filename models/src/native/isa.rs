//! Which instructions the convolutions use.

/// An instruction set the convolutions are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    /// Plain Rust that the compiler vectorises for the target it builds for.
    Portable,
    /// 8-wide vectors with fused multiply-add. Only [`Isa::available`] makes it, where the processor has both.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Isa {
    /// Those this processor can run, the best first.
    pub(crate) fn available() -> Vec<Self> {
        vec![
            #[cfg(target_arch = "x86_64")]
            Self::Avx2,
            Self::Portable,
        ]
        .into_iter()
        .filter(|isa| isa.runs_here())
        .collect()
    }

    /// The best one of this processor.
    pub(crate) fn best() -> Self {
        Self::available().first().copied().unwrap_or(Self::Portable)
    }

    /// Whether this processor has the instructions.
    pub(crate) fn runs_here(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        }
    }

    /// The name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2+fma",
        }
    }
}
