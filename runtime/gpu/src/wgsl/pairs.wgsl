// f64 as a sum of two f32, the larger first: 48 bits and the range of an f32. Few adapters have f64, and what needs it in
// a model that learns is a handful of numbers: rates and corrections, made from a count of steps. Sums and products after
// Dekker (1971) and Knuth; a product that a driver fuses with a sum only rounds less, and what it
// would take apart is kept from it.

fn pair_of(x: f32) -> vec2<f32> { return vec2<f32>(x, 0.0); }

fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }

fn quick_pair(a: f32, b: f32) -> vec2<f32> {
    let s = opaque(a + b);
    if (!is_finite(s)) { return vec2<f32>(s, 0.0); }
    return vec2<f32>(s, b - opaque(s - a));
}

fn sum_pair(a: f32, b: f32) -> vec2<f32> {
    let s = opaque(a + b);
    if (!is_finite(s)) { return vec2<f32>(s, 0.0); }
    let t = opaque(s - a);
    return vec2<f32>(s, opaque(a - opaque(s - t)) + opaque(b - t));
}

fn pair_add(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let s = sum_pair(a.x, b.x);
    if (!is_finite(s.x)) { return s; }
    let t = sum_pair(a.y, b.y);
    let u = quick_pair(s.x, s.y + t.x);
    return quick_pair(u.x, u.y + t.y);
}

fn pair_sub(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> { return pair_add(a, -b); }

fn pair_mul(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let ab = opaque(a.x * b.x);
    if (!is_finite(ab) || ab == 0.0) { return vec2<f32>(ab, 0.0); }
    return quick_pair(ab, product_error(a.x, b.x, ab) + (a.x * b.y + a.y * b.x));
}

fn pair_div(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let q = opaque(a.x / b.x);
    if (!is_finite(q) || q == 0.0 || !is_finite(b.x)) { return vec2<f32>(q, 0.0); }
    let r = pair_sub(a, pair_mul(pair_of(q), b));
    let q2 = opaque(r.x / b.x);
    let s = pair_sub(r, pair_mul(pair_of(q2), b));
    return pair_add(quick_pair(q, q2), pair_of(s.x / b.x));
}

fn pair_fma(a: vec2<f32>, b: vec2<f32>, c: vec2<f32>) -> vec2<f32> { return pair_add(pair_mul(a, b), c); }

fn pair_lt(a: vec2<f32>, b: vec2<f32>) -> bool { return a.x < b.x || (a.x == b.x && a.y < b.y); }

fn pair_eq(a: vec2<f32>, b: vec2<f32>) -> bool { return a.x == b.x && a.y == b.y; }

fn pair_le(a: vec2<f32>, b: vec2<f32>) -> bool { return pair_lt(a, b) || pair_eq(a, b); }

fn pair_max(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    if (is_nan(a.x) || pair_le(b, a)) { return a; }
    return b;
}

fn pair_min(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    if (is_nan(a.x) || pair_le(a, b)) { return a; }
    return b;
}

fn pair_abs(a: vec2<f32>) -> vec2<f32> {
    if ((bitcast<u32>(a.x) >> 31u) == 1u) { return -a; }
    return a;
}

fn pair_sign(a: vec2<f32>) -> vec2<f32> { return pair_of(sign_of(a.x)); }

fn pair_floor(a: vec2<f32>) -> vec2<f32> {
    let x = floor(a.x);
    if (x != a.x) { return pair_of(x); }
    return quick_pair(x, floor(a.y));
}

fn pair_sqrt(a: vec2<f32>) -> vec2<f32> {
    let r = opaque(sqrt(a.x));
    if (!is_finite(r) || r == 0.0) { return pair_of(r); }
    let rest = pair_sub(a, pair_mul(pair_of(r), pair_of(r)));
    return pair_add(pair_of(r), pair_of(rest.x / (2.0 * r)));
}

fn power_of_two(n: i32) -> f32 { return bitcast<f32>((n + 127) << 23u); }

// e^x: x = n·ln 2 + 16·r, a series in r, and four squares.
fn pair_exp(x: vec2<f32>) -> vec2<f32> {
    if (is_nan(x.x)) { return x; }
    if (x.x >= 89.0) { return pair_of(from_bits(0x7f800000u)); }
    if (x.x <= -87.0) { return pair_of(exp_of(x.x)); }
    let n = floor(fma(x.x, 1.44269504, 0.5));
    let far = pair_add(pair_mul(pair_of(n), vec2<f32>(0.693147182, -1.90465421e-9)), pair_of(n * -8.78311e-17));
    let r = pair_mul(pair_sub(x, far), pair_of(0.0625));
    var y = pair_of(1.0);
    for (var k = 8; k >= 1; k--) {
        y = pair_add(pair_of(1.0), pair_div(pair_mul(y, r), pair_of(f32(k))));
    }
    for (var k = 0; k < 4; k++) { y = pair_mul(y, y); }
    let half = i32(n) >> 1u;
    return y * power_of_two(half) * power_of_two(i32(n) - half);
}

// ln x: what one step of Newton's makes of an f32's logarithm.
fn pair_log(x: vec2<f32>) -> vec2<f32> {
    let near = log_of(x.x);
    if (!is_finite(near)) { return pair_of(near); }
    // As x = 2^e·m, so that the exponential of the guess is near 1.
    let e = i32((bitcast<u32>(x.x) >> 23u) & 0xffu) - 127;
    let m = x * power_of_two(-e / 2) * power_of_two(-e - (-e / 2));
    let guess = log_of(m.x);
    let wrong = pair_sub(pair_mul(m, pair_exp(pair_of(-guess))), pair_of(1.0));
    // ln(1 + w) = w − w²/2.
    let small = pair_sub(wrong, pair_of(0.5 * wrong.x * wrong.x));
    let ln2 = pair_mul(pair_of(f32(e)), vec2<f32>(0.693147182, -1.90465421e-9));
    return pair_add(ln2, pair_add(pair_of(guess), small));
}

fn pair_pow(a: vec2<f32>, b: vec2<f32>) -> vec2<f32> {
    let plain = pow_of(a.x, b.x);
    // Special values, and results that are beyond the range or nearly so, are an f32's.
    if (!is_finite(plain) || abs(plain) < 1.2e-38 || a.x == 0.0 || b.x == 0.0) { return pair_of(plain); }
    let size = pair_exp(pair_mul(b, pair_log(pair_abs(a))));
    if (plain < 0.0) { return -size; }
    return size;
}

// The quarter turn that x is nearest to, less which x is `x − that`; angles beyond 10^5 lose digits.
fn pair_turned(x: vec2<f32>, by: i32) -> vec2<f32> {
    if (!is_finite(x.x)) { return pair_of(from_bits(0x7fc00000u)); }
    let n = floor(fma(x.x, 0.636619772, 0.5));
    let far = pair_add(pair_mul(pair_of(n), vec2<f32>(1.57079637, -4.37113883e-8)), pair_of(n * -1.71512449e-15));
    let r = pair_sub(x, far);
    let square = pair_mul(r, r);
    let quarter = i32(n - 4.0 * floor(n * 0.25)) + by;
    let is_cos = (quarter & 1) == 1;
    var term = r;
    if (is_cos) { term = pair_of(1.0); }
    var sum = term;
    for (var k = 1; k <= 10; k++) {
        let i = 2.0 * f32(k) + select(0.0, -1.0, is_cos);
        term = pair_div(pair_mul(term, square), pair_of(-i * (i + 1.0)));
        sum = pair_add(sum, term);
    }
    if ((quarter & 2) == 2) { return -sum; }
    return sum;
}

fn pair_sin(x: vec2<f32>) -> vec2<f32> { return pair_turned(x, 0); }

fn pair_cos(x: vec2<f32>) -> vec2<f32> { return pair_turned(x, 1); }

fn pair_from_u32(x: u32) -> vec2<f32> { return quick_pair(f32(x >> 16u) * 65536.0, f32(x & 0xffffu)); }

fn pair_from_i64(v: vec2<u32>) -> vec2<f32> {
    let a = i64_abs(v);
    let size = pair_add(pair_from_u32(a.y) * 4294967296.0, pair_from_u32(a.x));
    if ((v.y >> 31u) == 1u) { return -size; }
    return size;
}

fn pair_to_i64(x: vec2<f32>) -> vec2<u32> {
    if (is_nan(x.x)) { return vec2<u32>(0u, 0u); }
    let whole = pair_floor(pair_abs(x));
    if (whole.x >= 9223372036854775808.0) {
        if (x.x > 0.0) { return vec2<u32>(0xffffffffu, 0x7fffffffu); }
        return vec2<u32>(0u, 0x80000000u);
    }
    let size = i64_add(f32_to_i64(whole.x), f32_to_i64(whole.y));
    if (x.x < 0.0) { return i64_neg(size); }
    return size;
}

fn pair_from_bits(v: vec2<u32>) -> vec2<f32> {
    let sign = v.y & 0x80000000u;
    let e = i32((v.y >> 20u) & 0x7ffu) - 1023;
    if (e == 1024 && ((v.y & 0xfffffu) | v.x) != 0u) { return pair_of(from_bits(0x7fc00000u)); }
    if (e > 127) { return pair_of(from_bits(sign | 0x7f800000u)); }
    if (e < -126) { return pair_of(from_bits(sign)); }
    let head = f32(0x00800000u | ((v.y & 0xfffffu) << 3u) | (v.x >> 29u)) * 1.1920929e-7;
    let tail = f32(v.x & 0x1fffffffu) * 2.220446e-16;
    let size = quick_pair(head, tail) * power_of_two(e);
    if (sign != 0u) { return -size; }
    return size;
}

fn pair_to_bits(x: vec2<f32>) -> vec2<u32> {
    let bits = bitcast<u32>(x.x);
    let sign = bits & 0x80000000u;
    if (is_nan(x.x)) { return vec2<u32>(0u, 0x7ff80000u); }
    if (!is_finite(x.x)) { return vec2<u32>(0u, sign | 0x7ff00000u); }
    var e = i32((bits >> 23u) & 0xffu) - 127;
    if (e == -127) { return vec2<u32>(0u, sign); }
    let m = (bits & 0x007fffffu) | 0x00800000u;
    let up = 52 - e;
    let scaled = x.y * power_of_two(up / 2) * power_of_two(up - up / 2);
    let tail = i32(select(scaled, -scaled, sign != 0u));
    var whole = i64_add(vec2<u32>(m << 29u, m >> 3u), i64_of(tail));
    if (whole.y < 0x00100000u) {
        whole = vec2<u32>(whole.x << 1u, (whole.y << 1u) | (whole.x >> 31u));
        e = e - 1;
    }
    return vec2<u32>(whole.x, sign | (u32(e + 1023) << 20u) | (whole.y & 0xfffffu));
}

// The nearest u32.
fn i64_within_u32(v: vec2<u32>) -> u32 {
    if ((v.y >> 31u) == 1u) { return 0u; }
    if (v.y != 0u) { return 0xffffffffu; }
    return v.x;
}

// The nearest i32.
fn i64_within_i32(v: vec2<u32>) -> i32 {
    if (v.y == u32(i32(v.x) >> 31u)) { return i32(v.x); }
    if ((v.y >> 31u) == 1u) { return i32(0x80000000u); }
    return 2147483647;
}
