// What kernels call. Every function stands alone, after a blank line, and those that a kernel names are put before it.
// Nothing here leans on what WGSL leaves to drivers: no built-in exp or sin, and NaN is seen in the bits, because
// compilers may take for granted that x == x.

// x, in a way that no compiler sees through: the first parameter is 0. Mesa's takes (a + b) − a for b and
// n·c + n·d for n·(c + d), which is all that functions made of roundings are about.
fn opaque(x: f32) -> f32 { return bitcast<f32>(bitcast<i32>(x) ^ p[0].x); }

fn from_bits(b: u32) -> f32 { return bitcast<f32>(b); }

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

fn max_nan(a: f32, b: f32) -> f32 { return select(b, a, is_nan(a) || a >= b); }

fn min_nan(a: f32, b: f32) -> f32 { return select(b, a, is_nan(a) || a <= b); }

fn sign_of(x: f32) -> f32 { return select(select(x, -1.0, x < 0.0), 1.0, x > 0.0); }

fn with_sign(size: f32, like: f32) -> f32 {
    return bitcast<f32>((bitcast<u32>(size) & 0x7fffffffu) | (bitcast<u32>(like) & 0x80000000u));
}

// e^x within 1 ulp: x = n·ln 2 + r, and a polynomial in r. Two factors, because 2^n alone may be beyond the type.
fn exp_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    if (x >= 89.0) { return from_bits(0x7f800000u); }
    if (x <= -104.0) { return 0.0; }
    let n = floor(fma(x, 1.44269504, 0.5));
    let r = fma(n, 2.1219444e-4, opaque(fma(n, -0.693359375, x)));
    var y = fma(1.3814539e-3, r, 8.368745e-3);
    y = fma(y, r, 4.166839e-2);
    y = fma(y, r, 1.6666521e-1);
    y = fma(y, r, 4.9999994e-1);
    y = fma(y, r, 1.0);
    y = fma(y, r, 1.0);
    let power = i32(n);
    let half = power >> 1u;
    return y * bitcast<f32>((half + 127) << 23u) * bitcast<f32>((power - half + 127) << 23u);
}

// ln x within 2 ulp (Cephes' logf: x = 2^e·m with m between √½ and √2).
fn log_of(x: f32) -> f32 {
    if (is_nan(x) || x < 0.0) { return from_bits(0x7fc00000u); }
    if (x == 0.0) { return from_bits(0xff800000u); }
    if (bitcast<u32>(x) == 0x7f800000u) { return x; }
    let is_small = x < 1.17549435e-38;
    let bits = bitcast<i32>(select(x, x * 8388608.0, is_small));
    let e = (bits - 0x3f3504f3) >> 23u;
    let f = bitcast<f32>(bits - (e << 23u)) - 1.0;
    let n = f32(e) - select(0.0, 23.0, is_small);
    var p = fma(7.0376836e-2, f, -1.151461e-1);
    p = fma(p, f, 1.1676999e-1);
    p = fma(p, f, -1.2420141e-1);
    p = fma(p, f, 1.4249323e-1);
    p = fma(p, f, -1.6668058e-1);
    p = fma(p, f, 2.0000715e-1);
    p = fma(p, f, -2.4999994e-1);
    p = fma(p, f, 3.333333e-1);
    let square = f * f;
    let y = opaque(fma(p * f, square, fma(n, -2.1219444e-4, -0.5 * square)));
    return fma(n, 0.693359375, f + y);
}

// tanh x within 2 ulp: a polynomial near 0 (Cephes' tanhf), the exponential elsewhere.
fn tanh_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let size = abs(x);
    if (size >= 0.625) {
        return with_sign(1.0 - 2.0 / (exp_of(2.0 * min(size, 10.0)) + 1.0), x);
    }
    let square = x * x;
    var p = fma(-5.7049887e-3, square, 2.063909e-2);
    p = fma(p, square, -5.3739715e-2);
    p = fma(p, square, 1.3331442e-1);
    p = fma(p, square, -3.333328e-1);
    return fma(p * square, x, x);
}

// erf x within 2 ulp: x times a polynomial in x² near 0, one minus the exponential of a polynomial elsewhere.
fn erf_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let size = abs(x);
    if (size >= 0.93) {
        let t = min(size, 4.0);
        var q = fma(-1.2295716e-3, t, 1.5406484e-2);
        q = fma(q, t, -9.05813e-2);
        q = fma(q, t, -6.515426e-1);
        q = fma(q, t, -1.1196178);
        q = fma(q, t, -2.0405708e-3);
        return with_sign(1.0 - exp_of(q), x);
    }
    let square = x * x;
    var p = fma(-5.9537415e-4, square, 4.9859406e-3);
    p = fma(p, square, -2.676172e-2);
    p = fma(p, square, 1.1281683e-1);
    p = fma(p, square, -3.761248e-1);
    p = fma(p, square, 1.2837915e-1);
    return fma(p, x, x);
}

// 32 bits of 2/π, 190 bits long.
fn two_over_pi(i: u32) -> u32 {
    switch (i) {
        case 0u: { return 0x28be60dbu; }
        case 1u: { return 0x9391054au; }
        case 2u: { return 0x7f09d5f4u; }
        case 3u: { return 0x7d4d3770u; }
        case 4u: { return 0x36d8a566u; }
        case 5u: { return 0x4f10e410u; }
        default: { return 0u; }
    }
}

// x less the nearest multiple of π/2, and the bits of which multiple (Payne and Hanek, in integers: exact for any x).
fn by_quarter_turns(x: f32) -> vec2<f32> {
    if (abs(x) < 0.78) { return vec2<f32>(x, 0.0); }
    let bits = bitcast<u32>(x);
    let mantissa = ((bits & 0x007fffffu) << 8u) | 0x80000000u;
    let e = ((bits >> 23u) & 0xffu) - 126u;
    let i = e >> 5u;
    let by = e & 31u;
    var hi = 0u;
    if (i > 0u) { hi = two_over_pi(i - 1u); }
    var mid = two_over_pi(i);
    var lo = two_over_pi(i + 1u);
    if (by > 0u) {
        let next = two_over_pi(i + 2u);
        hi = (hi << by) | (mid >> (32u - by));
        mid = (mid << by) | (lo >> (32u - by));
        lo = (lo << by) | (next >> (32u - by));
    }
    let carried = u64_mul(mantissa, mid);
    let low = carried.x + mul_high(mantissa, lo);
    let carry = select(0u, 1u, low < carried.x);
    var p = vec2<u32>(low, carried.y + carry + mantissa * hi);
    var turns = i32(p.y >> 30u);
    p.y = p.y & 0x3fffffffu;
    var part = p;
    var sign = 1.0;
    if ((p.y & 0x20000000u) != 0u) {
        // The fraction less one, as a positive number.
        let borrow = select(0u, 1u, p.x > 0u);
        part = vec2<u32>(0u - p.x, 0x40000000u - p.y - borrow);
        turns = turns + 1;
        sign = -1.0;
    }
    let r = sign * (f32(part.y) * 4294967296.0 + f32(part.x)) * 3.4061215800304e-19;
    if (x < 0.0) { return vec2<f32>(-r, f32((4 - turns) & 3)); }
    return vec2<f32>(r, f32(turns & 3));
}

fn sin_near(r: f32) -> f32 {
    let s = r * r;
    var p = fma(-1.9515295891e-4, s, 8.3321608736e-3);
    p = fma(p, s, -1.6666654611e-1);
    return fma(p * s, r, r);
}

fn cos_near(r: f32) -> f32 {
    let s = r * r;
    var p = fma(2.443315711809948e-5, s, -1.388731625493765e-3);
    p = fma(p, s, 4.166664568298827e-2);
    return fma(p * s, s, fma(-0.5, s, 1.0));
}

fn at_quarter(r: f32, quarter: i32) -> f32 {
    let value = select(sin_near(r), cos_near(r), (quarter & 1) == 1);
    return select(value, -value, (quarter & 2) == 2);
}

// sin x within 3 ulp, for any x.
fn sin_of(x: f32) -> f32 {
    if ((bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u) { return from_bits(0x7fc00000u); }
    let r = by_quarter_turns(x);
    return at_quarter(r.x, i32(r.y));
}

// cos x within 3 ulp, for any x.
fn cos_of(x: f32) -> f32 {
    if ((bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u) { return from_bits(0x7fc00000u); }
    let r = by_quarter_turns(x);
    return at_quarter(r.x, i32(r.y) + 1);
}

// What rounding took from a·b (Dekker; where fma rounds once it would do, but not every adapter's does).
fn product_error(a: f32, b: f32, product: f32) -> f32 {
    let as_ = bitcast<f32>(bitcast<u32>(a) & 0xfffff000u);
    let al = a - as_;
    let bs = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
    let bl = b - bs;
    let middle = opaque(as_ * bl) + opaque(al * bs);
    return (opaque(opaque(as_ * bs) - product) + middle) + opaque(al * bl);
}

// ln x of a positive finite x as a sum of two floats: x = 2^e·m, ln m = 2·atanh((m − 1)/(m + 1)).
fn log_pair(x: f32) -> vec2<f32> {
    let is_small = x < 1.17549435e-38;
    let bits = bitcast<i32>(select(x, x * 8388608.0, is_small));
    let e = (bits - 0x3f3504f3) >> 23u;
    let n = f32(e) - select(0.0, 23.0, is_small);
    let f = bitcast<f32>(bits - (e << 23u)) - 1.0;
    let d = opaque(f + 2.0);
    let d_low = f - opaque(d - 2.0);
    let q = opaque(f / d);
    let qd = opaque(q * d);
    let q_low = opaque((opaque(f - qd) - product_error(q, d, qd) - q * d_low) / d);
    let s = opaque(q * q);
    let s_low = product_error(q, q, s) + 2.0 * q * q_low;
    let c = opaque(q * s);
    let c_low = product_error(q, s, c) + q_low * s + q * s_low;
    var p = fma(0.1293334961, s, 0.1419928074);
    p = fma(p, s, 0.2000148296);
    // One third, as a sum of two, times q³.
    let third = 0.33333334;
    let t = opaque(third * c);
    let t_low = product_error(third, c, t) - 9.934107e-9 * c + third * c_low + p * s * c;
    let two_q = 2.0 * q;
    let head = opaque(two_q + 2.0 * t);
    let tail = opaque(opaque(two_q - head) + 2.0 * t) + 2.0 * (t_low + q_low);
    let big = opaque(n * 0.693359375);
    let total = opaque(big + head);
    let back = opaque(total - big);
    let lost = opaque(big - opaque(total - back)) + opaque(head - back);
    // ln 2 less what was taken of it, as a sum of two.
    let rest = opaque(opaque(lost + n * -0.000212194442) + (tail + n * 1.646595e-12));
    let sum = opaque(total + rest);
    return vec2<f32>(sum, opaque(total - sum) + rest);
}

fn is_whole(x: f32) -> bool { return abs(x) >= 8388608.0 || floor(x) == x; }

fn is_odd(x: f32) -> bool { return is_whole(x) && abs(x) < 16777216.0 && (i32(x) & 1) == 1; }

// a^b, with the special values of IEEE 754's pow.
fn pow_of(a: f32, b: f32) -> f32 {
    if (b == 0.0 || a == 1.0) { return 1.0; }
    if (is_nan(a) || is_nan(b)) { return from_bits(0x7fc00000u); }
    let size = abs(a);
    let infinite_b = (bitcast<u32>(b) & 0x7fffffffu) == 0x7f800000u;
    if (infinite_b) {
        if (size == 1.0) { return 1.0; }
        if ((size > 1.0) == (b > 0.0)) { return from_bits(0x7f800000u); }
        return 0.0;
    }
    let negative = (bitcast<u32>(a) >> 31u) == 1u;
    let sign = select(0u, 0x80000000u, negative && is_odd(b));
    if (size == 0.0) { return from_bits(sign | select(0u, 0x7f800000u, b < 0.0)); }
    if (bitcast<u32>(size) == 0x7f800000u) { return from_bits(sign | select(0u, 0x7f800000u, b > 0.0)); }
    if (negative && !is_whole(b)) { return from_bits(0x7fc00000u); }
    let l = log_pair(size);
    let y = l.x * b;
    var value = 0.0;
    if (y >= 89.0) { value = from_bits(0x7f800000u); }
    else if (y > -104.0) {
        let low = product_error(l.x, b, y) + l.y * b;
        value = exp_of(y);
        if (value > 0.0 && bitcast<u32>(value) < 0x7f800000u) { value = fma(value, low, value); }
    }
    return bitcast<f32>(bitcast<u32>(value) | sign);
}

// The exact remainder of a/b with the sign of a.
fn rem_of(a: f32, b: f32) -> f32 {
    var x = bitcast<u32>(a) & 0x7fffffffu;
    var y = bitcast<u32>(b) & 0x7fffffffu;
    let sign = bitcast<u32>(a) & 0x80000000u;
    if (y == 0u || y > 0x7f800000u || x >= 0x7f800000u) { return from_bits(0x7fc00000u); }
    if (x < y) { return a; }
    var ex = i32(x >> 23u);
    var ey = i32(y >> 23u);
    if (ex == 0) { ex = 1 - i32(countLeadingZeros(x) - 8u); x = x << u32(1 - ex); }
    else { x = (x & 0x007fffffu) | 0x00800000u; }
    if (ey == 0) { ey = 1 - i32(countLeadingZeros(y) - 8u); y = y << u32(1 - ey); }
    else { y = (y & 0x007fffffu) | 0x00800000u; }
    for (; ex > ey; ex--) {
        if (x >= y) { x = x - y; }
        x = x << 1u;
    }
    if (x >= y) { x = x - y; }
    if (x == 0u) { return from_bits(sign); }
    let up = countLeadingZeros(x) - 8u;
    x = x << up;
    ex = ex - i32(up);
    if (ex > 0) { x = (x - 0x00800000u) | (u32(ex) << 23u); }
    else { x = x >> u32(1 - ex); }
    return from_bits(sign | x);
}

fn f16_to_f32(h: u32) -> f32 {
    let sign = (h & 0x8000u) << 16u;
    let e = (h >> 10u) & 31u;
    let m = h & 1023u;
    if (e == 31u) { return from_bits(sign | 0x7f800000u | (m << 13u)); }
    if (e == 0u) { return from_bits(sign | bitcast<u32>(f32(m) * 5.9604645e-8)); }
    return from_bits(sign | ((e + 112u) << 23u) | (m << 13u));
}

// To the nearest f16, ties to even.
fn f32_to_f16(x: f32) -> u32 {
    let sign = (bitcast<u32>(x) >> 16u) & 0x8000u;
    let a = bitcast<u32>(x) & 0x7fffffffu;
    if (a > 0x7f800000u) { return sign | 0x7e00u; }
    if (a >= 0x477ff000u) { return sign | 0x7c00u; }
    if (a >= 0x38800000u) { return sign | ((a + 0xfffu + ((a >> 13u) & 1u) - 0x38000000u) >> 13u); }
    if (a < 0x33000000u) { return sign; }
    let by = 126u - (a >> 23u);
    let m = (a & 0x007fffffu) | 0x00800000u;
    let q = m >> by;
    let rest = m & ((1u << by) - 1u);
    let half = 1u << (by - 1u);
    return sign | (q + select(0u, 1u, rest > half || (rest == half && (q & 1u) == 1u)));
}

fn to_f16(x: f32) -> f32 { return f16_to_f32(f32_to_f16(x)); }

fn bf16_to_f32(h: u32) -> f32 { return from_bits(h << 16u); }

// To the nearest bf16, ties to even.
fn f32_to_bf16(x: f32) -> u32 {
    let b = bitcast<u32>(x);
    if ((b & 0x7fffffffu) > 0x7f800000u) { return (b >> 16u) | 0x40u; }
    return (b + 0x7fffu + ((b >> 16u) & 1u)) >> 16u;
}

fn to_bf16(x: f32) -> f32 { return bf16_to_f32(f32_to_bf16(x)); }

fn f32_to_i32(x: f32) -> i32 {
    if (is_nan(x)) { return 0; }
    if (x >= 2147483648.0) { return 2147483647; }
    if (x <= -2147483648.0) { return i32(0x80000000u); }
    return i32(x);
}

fn f32_to_u32(x: f32) -> u32 {
    if (is_nan(x) || x <= 0.0) { return 0u; }
    if (x >= 4294967296.0) { return 0xffffffffu; }
    return u32(x);
}

fn i32_div(a: i32, b: i32) -> i32 {
    if (b == 0) { return 0; }
    if (b == -1) { return 0 - a; }
    return a / b;
}

fn i32_rem(a: i32, b: i32) -> i32 {
    if (b == 0 || b == -1) { return 0; }
    return a - (a / b) * b;
}

fn u32_div(a: u32, b: u32) -> u32 {
    if (b == 0u) { return 0u; }
    return a / b;
}

fn u32_rem(a: u32, b: u32) -> u32 {
    if (b == 0u) { return 0u; }
    return a % b;
}

fn mul_high(a: u32, b: u32) -> u32 {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let cross = ah * bl + ((al * bl) >> 16u);
    let other = al * bh + (cross & 0xffffu);
    return ah * bh + (cross >> 16u) + (other >> 16u);
}

// Integers of 64 bits are pairs of words, the low one first: not every adapter has them, and this is the same on all.
fn u64_mul(a: u32, b: u32) -> vec2<u32> { return vec2<u32>(a * b, mul_high(a, b)); }

fn i64_of(x: i32) -> vec2<u32> { return vec2<u32>(u32(x), u32(x >> 31u)); }

fn i64_add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

fn i64_neg(a: vec2<u32>) -> vec2<u32> { return i64_add(~a, vec2<u32>(1u, 0u)); }

fn i64_sub(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn i64_mul(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = u64_mul(a.x, b.x);
    return vec2<u32>(low.x, low.y + a.x * b.y + a.y * b.x);
}

fn i64_lt(a: vec2<u32>, b: vec2<u32>) -> bool {
    return i32(a.y) < i32(b.y) || (a.y == b.y && a.x < b.x);
}

fn i64_eq(a: vec2<u32>, b: vec2<u32>) -> bool { return a.x == b.x && a.y == b.y; }

fn i64_abs(a: vec2<u32>) -> vec2<u32> {
    if (i32(a.y) < 0) { return i64_neg(a); }
    return a;
}

fn i64_sign(a: vec2<u32>) -> vec2<u32> {
    if (i32(a.y) < 0) { return vec2<u32>(0xffffffffu, 0xffffffffu); }
    return vec2<u32>(select(0u, 1u, (a.x | a.y) != 0u), 0u);
}

fn u64_lt(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y < b.y || (a.y == b.y && a.x < b.x); }

// Quotient and remainder, bit by bit where words alone will not do.
fn u64_div(a: vec2<u32>, b: vec2<u32>) -> vec4<u32> {
    if (a.y == 0u && b.y == 0u) { return vec4<u32>(a.x / b.x, 0u, a.x % b.x, 0u); }
    var q = vec2<u32>(0u, 0u);
    var r = vec2<u32>(0u, 0u);
    for (var i = 63; i >= 0; i--) {
        let word = select(a.x, a.y, i >= 32);
        let bit = (word >> (u32(i) & 31u)) & 1u;
        let over = r.y >> 31u;
        r = vec2<u32>((r.x << 1u) | bit, (r.y << 1u) | (r.x >> 31u));
        if (over == 1u || !u64_lt(r, b)) {
            r = i64_sub(r, b);
            if (i >= 32) { q.y = q.y | (1u << (u32(i) & 31u)); } else { q.x = q.x | (1u << u32(i)); }
        }
    }
    return vec4<u32>(q, r);
}

fn i64_div(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if ((b.x | b.y) == 0u) { return vec2<u32>(0u, 0u); }
    let q = u64_div(i64_abs(a), i64_abs(b)).xy;
    if (((a.y ^ b.y) >> 31u) == 1u) { return i64_neg(q); }
    return q;
}

fn i64_rem(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if ((b.x | b.y) == 0u) { return vec2<u32>(0u, 0u); }
    let r = u64_div(i64_abs(a), i64_abs(b)).zw;
    if ((a.y >> 31u) == 1u) { return i64_neg(r); }
    return r;
}

fn i64_shl(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let by = b.x & 63u;
    if (by == 0u) { return a; }
    if (by >= 32u) { return vec2<u32>(0u, a.x << (by - 32u)); }
    return vec2<u32>(a.x << by, (a.y << by) | (a.x >> (32u - by)));
}

fn i64_shr(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let by = b.x & 63u;
    if (by == 0u) { return a; }
    let fill = u32(i32(a.y) >> 31u);
    if (by >= 32u) { return vec2<u32>(u32(i32(a.y) >> (by - 32u)), fill); }
    return vec2<u32>((a.x >> by) | (a.y << (32u - by)), u32(i32(a.y) >> by));
}

fn i64_max(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (i64_lt(a, b)) { return b; }
    return a;
}

fn i64_min(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if (i64_lt(b, a)) { return b; }
    return a;
}

fn i64_to_f32(v: vec2<u32>) -> f32 {
    let a = i64_abs(v);
    var size = f32(a.x);
    if (a.y != 0u) {
        let by = countLeadingZeros(a.y);
        let shifted = i64_shl(a, vec2<u32>(by, 0u));
        // What is below only matters in a tie.
        let top = shifted.y | select(0u, 1u, shifted.x != 0u);
        size = f32(top) * bitcast<f32>((32u - by + 127u) << 23u);
    }
    return select(size, -size, (v.y >> 31u) == 1u);
}

fn f32_to_i64(x: f32) -> vec2<u32> {
    if (is_nan(x)) { return vec2<u32>(0u, 0u); }
    if (x >= 9223372036854775808.0) { return vec2<u32>(0xffffffffu, 0x7fffffffu); }
    if (x <= -9223372036854775808.0) { return vec2<u32>(0u, 0x80000000u); }
    let b = bitcast<u32>(x);
    let e = i32((b >> 23u) & 0xffu) - 127;
    if (e < 0) { return vec2<u32>(0u, 0u); }
    let m = (b & 0x007fffffu) | 0x00800000u;
    var v = vec2<u32>(0u, 0u);
    if (e <= 23) { v.x = m >> u32(23 - e); }
    else { v = i64_shl(vec2<u32>(m, 0u), vec2<u32>(u32(e - 23), 0u)); }
    if ((b >> 31u) == 1u) { return i64_neg(v); }
    return v;
}

// The coordinate that a wide integer is, or −1 or the largest of 32 bits where it is beyond any axis.
fn i64_coord(v: vec2<u32>) -> i32 {
    if (i32(v.y) < 0) { return -1; }
    if (v.y != 0u || (v.x >> 31u) == 1u) { return 2147483647; }
    return i32(v.x);
}

// The word of one element (Salmon et al., SC 2011: Philox-4x32-10).
fn philox_word(key_low: u32, key_high: u32, index: vec2<u32>, step: vec2<u32>) -> u32 {
    var c = vec4<u32>((index.x >> 2u) | (index.y << 30u), index.y >> 2u, step.x, step.y);
    var k = vec2<u32>(key_low, key_high);
    for (var i = 0; i < 10; i++) {
        let p = u64_mul(0xD2511F53u, c.x);
        let q = u64_mul(0xCD9E8D57u, c.z);
        c = vec4<u32>(q.y ^ c.y ^ k.x, q.x, p.y ^ c.w ^ k.y, p.x);
        k = k + vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    let which = index.x & 3u;
    return select(select(c.x, c.y, which == 1u), select(c.z, c.w, which == 3u), which >= 2u);
}
