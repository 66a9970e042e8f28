//! Float arithmetic by lane. The f32 exponential and the functions made of it are straight-line code instead of the
//! system's, because a call per lane costs ten times the arithmetic; each states its maximum error.

use crate::kind::Lane;

/// What lanes of floats can do.
pub(crate) trait Float: Lane {
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn sign(self) -> Self;
    fn exp(self) -> Self;
    fn log(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
    fn floor(self) -> Self;
    fn is_zero(self) -> bool;
    fn is_nan(self) -> bool;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn rem(self, other: Self) -> Self;
    fn pow(self, other: Self) -> Self;
    fn max_nan(self, other: Self) -> Self;
    fn min_nan(self, other: Self) -> Self;
    fn fma(self, by: Self, plus: Self) -> Self;
}

macro_rules! float {
    ($($t:ty: $exp:path, $log:path, $tanh:path);*) => { $(
        impl Float for $t {
            #[inline(always)]
            fn neg(self) -> Self { -self }
            #[inline(always)]
            fn abs(self) -> Self { <$t>::abs(self) }
            #[inline(always)]
            fn sign(self) -> Self { if self > 0.0 { 1.0 } else if self < 0.0 { -1.0 } else { self } }
            #[inline(always)]
            fn exp(self) -> Self { $exp(self) }
            #[inline(always)]
            fn log(self) -> Self { $log(self) }
            #[inline(always)]
            fn sqrt(self) -> Self { <$t>::sqrt(self) }
            #[inline(always)]
            fn tanh(self) -> Self { $tanh(self) }
            #[inline(always)]
            fn sin(self) -> Self { <$t>::sin(self) }
            #[inline(always)]
            fn cos(self) -> Self { <$t>::cos(self) }
            #[inline(always)]
            fn floor(self) -> Self { <$t>::floor(self) }
            #[inline(always)]
            fn is_zero(self) -> bool { self == 0.0 }
            #[inline(always)]
            fn is_nan(self) -> bool { <$t>::is_nan(self) }
            #[inline(always)]
            fn add(self, other: Self) -> Self { self + other }
            #[inline(always)]
            fn sub(self, other: Self) -> Self { self - other }
            #[inline(always)]
            fn mul(self, other: Self) -> Self { self * other }
            #[inline(always)]
            fn div(self, other: Self) -> Self { self / other }
            #[inline(always)]
            fn rem(self, other: Self) -> Self { self % other }
            #[inline(always)]
            fn pow(self, other: Self) -> Self { self.powf(other) }
            #[inline(always)]
            fn max_nan(self, other: Self) -> Self {
                if <$t>::is_nan(self) | (self >= other) { self } else { other }
            }
            #[inline(always)]
            fn min_nan(self, other: Self) -> Self {
                if <$t>::is_nan(self) | (self <= other) { self } else { other }
            }
            #[inline(always)]
            fn fma(self, by: Self, plus: Self) -> Self { self.mul_add(by, plus) }
        }
    )* };
}
float!(f32: f32::exp, f32::ln, f32::tanh; f64: f64::exp, f64::ln, f64::tanh);
