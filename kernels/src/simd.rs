//! Run-time choice of instructions: a loop is compiled once for the target the build is for and once for 8-wide vectors
//! (AVX2), and the best that the processor has is run. On other processors than x86-64 the build's target (NEON on Arm)
//! is used. Both compile the same source without fused multiply-add, so all give the same bits.

/// Whether the processor has AVX2; asked once.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    use std::sync::OnceLock;
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| is_x86_feature_detected!("avx2"))
}

/// Defines functions whose bodies are compiled for each instruction set. What a body calls must be inlined into it.
macro_rules! vectorised {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident: $bound:ident),+>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            fn portable $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                    portable $(::<$($generic),+>)? ($($arg),*)
                }
                if $crate::simd::has_avx2() {
                    // SAFETY: the processor has the instructions, as was just asked.
                    return unsafe { avx2 $(::<$($generic),+>)? ($($arg),*) };
                }
            }
            portable $(::<$($generic),+>)? ($($arg),*)
        }
    )*};
}

pub(crate) use vectorised;
