//! Which vector instructions the machine has, and functions compiled once per answer. The bodies are plain loops over
//! slices that the compiler vectorizes; no version may contract a product and a sum, so all give the same bits.

use std::sync::OnceLock;

/// An instruction set for which the lane loops are compiled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Isa {
    /// Whatever the target promises.
    Base,
    /// 256-bit vectors.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit vectors and masks.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// What kernels are compiled for: the widest that this machine has, or what `THALWEG_ISA` asks for. Read once.
    pub(crate) fn detect() -> Self {
        static FOUND: OnceLock<Isa> = OnceLock::new();
        *FOUND.get_or_init(|| Self::asked().unwrap_or(Self::widest()))
    }
    /// What `THALWEG_ISA` asks for: `base`, `avx2` or `avx512`. So one machine tests, and repeats, what others do.
    ///
    /// # Errors
    /// If it asks for what there is not.
    pub(crate) fn asked() -> Result<Self, String> {
        let widest = Self::widest();
        let Ok(name) = std::env::var("THALWEG_ISA") else { return Ok(widest) };
        let known = [
            Isa::Base,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512,
        ];
        let here = known.into_iter().filter(|isa| *isa <= widest);
        let names: Vec<String> = here.clone().map(|isa| format!("{isa:?}").to_lowercase()).collect();
        let found = here.zip(&names).find(|(_, n)| **n == name).map(|(isa, _)| isa);
        found.ok_or_else(|| format!("THALWEG_ISA is `{name}`; this machine has {}", names.join(", ")))
    }
    fn widest() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 && wide {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Base
    }
}

/// Defines an unsafe function that takes the [`Isa`] first and runs its body compiled for it. Callees are compiled
/// along with it only where they are inlined.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis unsafe fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) {
            #[inline(always)]
            unsafe fn body($($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the caller's promise.
                unsafe { body($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: the caller's promise.
                unsafe { body($($arg),*) }
            }
            // SAFETY: the caller's promise; an `Isa` beyond the base is only made where the machine has it.
            unsafe {
                match isa {
                    $crate::isa::Isa::Base => body($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Isa::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::isa::Isa::Avx512 => avx512($($arg),*),
                }
            }
        }
    };
}
pub(crate) use multiversion;
