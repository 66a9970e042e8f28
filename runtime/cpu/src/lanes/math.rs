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
    fn erf(self) -> Self;
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
    ($($t:ty: $exp:path, $log:path, $tanh:path, $erf:path);*) => { $(
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
            fn erf(self) -> Self { $erf(self) }
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
float!(f32: exp, log, tanh, erf; f64: f64::exp, f64::ln, f64::tanh, libm::erf);

// 355/512: exact, with low bits to spare for multiples.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Adding this rounds to an integer and leaves the integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Evaluates a polynomial, highest coefficient first. Products and sums round once, on every machine: where there is no
/// such instruction the C library does it, slowly and to the same bits.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    // An indexed loop unrolls before loops over lanes are vectorized; an iterator over an array does not.
    let (mut sum, mut k) = (coefficients[0], 1);
    while k < N {
        sum = sum.mul_add(x, coefficients[k]);
        k += 1;
    }
    sum
}

/// x = n·ln 2 + r with |r| ≤ ½·ln 2: (n + [`ROUND`], r).
#[inline(always)]
fn by_powers_of_two(x: f32) -> (f32, f32) {
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    (shifted, n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x)))
}

/// eˣ within 1 ulp, subnormal results included: x = n·ln 2 + r, and a polynomial in r.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Comparisons in this order let NaN pass.
    let inside = if x < -104.0 { -104.0 } else { x };
    let inside = if inside > 89.0 { 89.0 } else { inside };
    let (shifted, r) = by_powers_of_two(inside);
    let y = polynomial(r, [1.381_453_9e-3, 8.368_745e-3, 4.166_839e-2, 1.666_652_1e-1, 4.999_999_4e-1, 1.0, 1.0]);
    // Two factors, because 2ⁿ alone may be beyond the type.
    let power = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = power >> 1;
    let two_to = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    y * two_to(half) * two_to(power.wrapping_sub(half))
}

/// eˣ within 3 ulp for |x| ≤ 80; of what lies beyond, anything. For where a sum swallows the last bits.
#[inline(always)]
fn exp_inside(x: f32) -> f32 {
    let (shifted, r) = by_powers_of_two(x);
    let y = polynomial(r, [8.312_501e-3, 4.189_033e-2, 1.666_711_6e-1, 4.999_923e-1, 1.0, 1.0]);
    // The low bits of `ROUND` are zero: what is left of them is n, and adding it to the exponent multiplies by 2ⁿ.
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// ln x within 2 ulp (Cephes' `logf`: x = 2ᵉ·m with m between √½ and √2).
#[inline(always)]
fn log(x: f32) -> f32 {
    const ROOT_HALF: i32 = 0x3f35_04f3;
    let is_small = x < f32::MIN_POSITIVE;
    let scaled = if is_small { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    let e = bits.wrapping_sub(ROOT_HALF) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(e << 23) as u32) - 1.0;
    let e = e as f32 - if is_small { 23.0 } else { 0.0 };
    let p = polynomial(
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let square = f * f;
    let y = (p * f).mul_add(square, e.mul_add(LN2_LOW, -0.5 * square));
    let regular = e.mul_add(LN2_HIGH, f + y);
    if x > 0.0 && x < f32::INFINITY {
        regular
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else if x < 0.0 {
        f32::NAN
    } else {
        x
    }
}

/// tanh x within 2 ulp: a polynomial near 0 (that of Cephes' `tanhf`), the exponential elsewhere; at 10 it is 1 to the
/// last bit.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let p = polynomial(square, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let near = (p * square).mul_add(x, x);
    let inside = if size < 10.0 { size } else { 10.0 };
    let far = (1.0 - 2.0 / (exp_inside(2.0 * inside) + 1.0)).copysign(x);
    // NaN is not far.
    if size >= 0.625 { far } else { near }
}

/// erf x within 2 ulp: x times a polynomial in x² near 0, one minus the exponential of a polynomial elsewhere; at 4 it is
/// 1 to the last bit.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let (size, square) = (x.abs(), x * x);
    let p = polynomial(
        square,
        [-5.953_741_5e-4, 4.985_940_6e-3, -2.676_172e-2, 1.128_168_3e-1, -3.761_248e-1, 1.283_791_5e-1],
    );
    let near = p.mul_add(x, x);
    let far = [-1.229_571_6e-3, 1.540_648_4e-2, -9.058_13e-2, -6.515_426e-1, -1.119_617_8, -2.040_570_8e-3];
    let inside = if size < 4.0 { size } else { 4.0 };
    let far = (1.0 - exp_inside(polynomial(inside, far))).copysign(x);
    // NaN is not far.
    if size >= 0.93 { far } else { near }
}

#[cfg(test)]
mod tests {
    /// The largest error over many floats, in units of the last place of the result.
    fn worst(ours: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let error = |bits: u32| {
            let x = f32::from_bits(bits);
            let (have, want) = (ours(x), exact(f64::from(x)));
            if have.is_nan() == want.is_nan() && (have.is_nan() || have == want as f32) {
                return 0.0;
            }
            let rounded = want as f32;
            let place = f64::from((f32::from_bits(rounded.abs().to_bits() + 1) - rounded.abs()).abs());
            (f64::from(have) - want).abs() / place
        };
        (0..=u32::MAX).step_by(977).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn errors_are_as_stated() {
        let errors = [
            worst(super::exp, f64::exp),
            worst(super::log, f64::ln),
            worst(super::tanh, f64::tanh),
            worst(super::erf, libm::erf),
        ];
        println!("exp, log, tanh, erf: {errors:?} ulp");
        assert!(errors.iter().zip([1.0, 2.0, 2.0, 2.0]).all(|(e, bound)| *e <= bound), "{errors:?} ulp");
    }
}
