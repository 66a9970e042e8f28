//! What the bounds of named dimensions prove: that an extent such as `n-1` or `128-n` is never negative. It is asked where
//! the bounds are known, when a graph is declared and when it is verified, since ops infer types without them.
//!
//! The proof writes the polynomial in Bernstein's basis over the box of bounds, one name after the other: if no
//! coefficient is negative, neither is any value. Where every name occurs in its first power, which is nearly always, the
//! coefficients are the values at the corners, so that the answer is exact; and products of what is proven are proven, so that
//! a pass that flattens axes does not lose it. Polynomials beyond any use are not proven.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::attrs::AttrValue;
use crate::ir::DimBounds;
use crate::op::{DynOp, OpError};
use crate::types::{Dim, TensorType};

/// Named dimensions with the least and the greatest value of each.
pub type Bounds = BTreeMap<Arc<str>, DimBounds>;

/// Terms that a polynomial may have, and names: hostile bytes buy no time.
const MOST_TERMS: usize = 24;
const MOST_NAMES: usize = 6;
/// The highest power of a name.
const MOST_POWER: usize = 6;
/// Corners that are looked at.
const MOST_CORNERS: usize = 128;

type Terms = BTreeMap<Vec<Arc<str>>, i128>;

/// Whether `dim` is certain not to be negative, for all values within `bounds` together.
pub fn never_negative(dim: &Dim, bounds: &Bounds) -> bool {
    let Dim::Poly(terms) = dim else { return true };
    if terms.iter().all(|(c, _)| *c >= 0) {
        return true;
    }
    if terms.len() > MOST_TERMS || terms.iter().any(|(_, names)| names.len() > MOST_NAMES * MOST_POWER) {
        return false;
    }
    let names = dim.names();
    let terms: Terms = terms.iter().map(|(c, names)| (names.clone(), i128::from(*c))).collect();
    let corners = names.iter().try_fold(1, |corners: usize, name| {
        let power = power(&terms, name);
        corners.checked_mul(power + 1).filter(|c| *c <= MOST_CORNERS && power <= MOST_POWER)
    });
    names.len() <= MOST_NAMES && corners.is_some() && proven(&terms, &names, bounds).unwrap_or(false)
}

/// The highest power of `name`.
fn power(terms: &Terms, name: &Arc<str>) -> usize {
    terms.keys().map(|names| names.iter().filter(|n| *n == name).count()).max().unwrap_or(0)
}

/// `None`: numbers beyond 128 bits.
fn proven(terms: &Terms, names: &[Arc<str>], bounds: &Bounds) -> Option<bool> {
    if terms.values().all(|c| *c >= 0) {
        return Some(true);
    }
    let Some((name, rest)) = names.split_first() else { return Some(false) };
    let (low, high) = *bounds.get(name)?;
    let degree = power(terms, name) as u32;
    for corner in 0..=degree {
        let mut at = Terms::new();
        for (names, c) in terms {
            let others: Vec<Arc<str>> = names.iter().filter(|n| *n != name).cloned().collect();
            let weight = weight(degree, (names.len() - others.len()) as u32, corner, low.into(), high.into())?;
            let entry = at.entry(others).or_default();
            // The least number has no opposite, and no remainder by -1.
            *entry = entry.checked_add(c.checked_mul(weight)?).filter(|sum| *sum > i128::MIN)?;
        }
        // What divides all says nothing of the sign.
        let common = at.values().fold(0, |a, b| gcd(a, *b)).max(1);
        at.values_mut().for_each(|c| *c /= common);
        if !proven(&at, rest, bounds)? {
            return Some(false);
        }
    }
    Some(true)
}

/// `degree!` times what a name to the `power` adds to coefficient `corner`: its symmetric form with that many arguments
/// `high` and the others `low`.
fn weight(degree: u32, power: u32, corner: u32, low: i128, high: i128) -> Option<i128> {
    let mut sum = 0i128;
    for highs in power.saturating_sub(degree - corner)..=power.min(corner) {
        let ways = choose(corner, highs) * choose(degree - corner, power - highs);
        let product = high.checked_pow(highs)?.checked_mul(low.checked_pow(power - highs)?)?;
        sum = sum.checked_add(product.checked_mul(ways)?)?;
    }
    let factorial = |n: u32| (1..=i128::from(n)).product::<i128>();
    sum.checked_mul(factorial(power) * factorial(degree - power))
}

fn choose(n: u32, k: u32) -> i128 {
    (0..i128::from(k)).fold(1, |c, i| c * (i128::from(n) - i) / (i + 1))
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a.saturating_abs() } else { gcd(b, a % b) }
}

/// Bounds of one name that would prove it: with a greater minimum if that is enough, or else with a smaller maximum.
pub fn enough(dim: &Dim, bounds: &Bounds) -> Option<(Arc<str>, (u64, u64))> {
    let with = |name: &Arc<str>, range: (u64, u64)| {
        let mut bounds = bounds.clone();
        bounds.insert(name.clone(), range);
        never_negative(dim, &bounds)
    };
    let between = |mut no: u64, mut yes: u64, is: &dyn Fn(u64) -> bool| {
        while no.abs_diff(yes) > 1 {
            let middle = no.midpoint(yes);
            *(if is(middle) { &mut yes } else { &mut no }) = middle;
        }
        yes
    };
    dim.names().into_iter().find_map(|name| {
        let (low, high) = *bounds.get(&name)?;
        let range = if with(&name, (high, high)) {
            (between(low, high, &|low| with(&name, (low, high))), high)
        } else {
            with(&name, (low, low)).then(|| (low, between(high, low, &|high| with(&name, (low, high)))))?
        };
        Some((name, range))
    })
}

/// What to do about an extent that may be negative, if that is so simple.
pub(crate) fn remedy(dim: &Dim, bounds: &Bounds) -> Option<String> {
    let (name, (low, high)) = enough(dim, bounds)?;
    let is = *bounds.get(&name)?;
    Some(match low > is.0 {
        true => format!("declare `{name}` with a minimum of {low}; it is {}", is.0),
        false => format!("declare `{name}` with a maximum of {high}; it is {}", is.1),
    })
}

/// That an op's demands hold, and that no extent of what it gives or was told is ever negative; or the extent that may be. What
/// would help is left to who asks: looking for it takes longer.
pub(crate) fn check(
    op: &dyn DynOp,
    operands: &[TensorType],
    results: &[TensorType],
    bounds: &Bounds,
) -> Result<(), (OpError, Dim)> {
    let refused = |rule, what: String, dim: &Dim| {
        Err((OpError::new(rule, format!("{what}: {dim} may be negative")), dim.clone()))
    };
    for demand in op.demands(operands) {
        if !never_negative(&demand.dim, bounds) {
            return refused(demand.rule, demand.message, &demand.dim);
        }
    }
    let attrs = op.attrs();
    let told = attrs.iter().filter_map(|(_, v)| if let AttrValue::Shape(shape) = v { Some(shape) } else { None });
    for dim in results.iter().map(|ty| &ty.shape).chain(told).flat_map(|shape| shape.iter()) {
        if !never_negative(dim, bounds) {
            return refused("dim", "an extent".into(), dim);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dim(terms: &[(i64, &[&str])]) -> Dim {
        let terms = terms.iter().map(|(c, names)| (*c, names.iter().map(|n| Arc::from(*n)).collect()));
        Dim::from_terms(terms).expect("it is small")
    }
    fn bounds(all: &[(&str, u64, u64)]) -> Bounds {
        all.iter().map(|(name, low, high)| (Arc::from(*name), (*low, *high))).collect()
    }

    #[test]
    fn bounds_prove_what_holds_and_nothing_else() {
        let within = bounds(&[("m", 1, 6), ("n", 2, 10)]);
        let holds = |terms: &[(i64, &[&str])]| never_negative(&dim(terms), &within);
        assert!(holds(&[(1, &["n"]), (-2, &[])]) && !holds(&[(1, &["n"]), (-3, &[])]));
        assert!(holds(&[(10, &[]), (-1, &["n"])]) && !holds(&[(9, &[]), (-1, &["n"])]));
        assert!(holds(&[(1, &["m", "n"]), (-2, &["m"])]), "(n-2)·m");
        assert!(holds(&[(60, &[]), (-10, &["m"]), (-6, &["n"]), (1, &["m", "n"])]), "(10-n)·(6-m)");
        assert!(holds(&[(10, &["n"]), (-1, &["n", "n"])]), "(10-n)·n");
        assert!(!holds(&[(9, &["n"]), (-1, &["n", "n"])]));
        assert!(!never_negative(&dim(&[(1, &["n"]), (-1, &["k"])]), &within), "of `k` nothing is known");
    }

    /// Every polynomial of a small grid, against all values.
    #[test]
    fn what_is_proven_is_true_for_every_value() {
        let within = bounds(&[("m", 0, 3), ("n", 1, 4)]);
        let (mut proven, mut true_ones) = (0, 0);
        for c in 0..7i64.pow(4) {
            let at = |k: u32| c / 7i64.pow(k) % 7 - 3;
            let all: [(i64, &[&str]); 4] = [(at(0), &[]), (at(1), &["n"]), (at(2), &["m", "n"]), (at(3), &["n", "n"])];
            let Some(dim) = Dim::from_terms(all.map(|(c, names)| (c, names.iter().map(|n| Arc::from(*n)).collect())))
            else {
                continue;
            };
            let holds = (0..=3i64).all(|m| (1..=4).all(|n| at(0) + at(1) * n + at(2) * m * n + at(3) * n * n >= 0));
            let said = never_negative(&dim, &within);
            assert!(holds || !said, "{dim}");
            proven += usize::from(said);
            true_ones += usize::from(holds);
        }
        assert!(proven * 10 > true_ones * 9, "{proven} of {true_ones}");
    }

    #[test]
    fn it_says_which_bounds_would_do() {
        let within = bounds(&[("n", 1, 9), ("t", 0, 200)]);
        let enough = |terms: &[(i64, &[&str])]| enough(&dim(terms), &within).map(|(n, r)| (n.to_string(), r));
        assert_eq!(enough(&[(2, &["n"]), (-5, &[])]), Some(("n".into(), (3, 9))));
        assert_eq!(enough(&[(128, &[]), (-1, &["t"])]), Some(("t".into(), (0, 128))));
        assert_eq!(enough(&[(1, &["n"]), (-10, &[])]), None, "no value does");
    }

    #[test]
    fn hostile_polynomials_take_no_time() {
        let names: Vec<Arc<str>> = (0..5000).map(|i| format!("n{i}").into()).collect();
        let within = names.iter().map(|n| (n.clone(), (1, 1 << 40))).collect();
        let wide = Dim::from_terms(names.iter().map(|n| (-1, vec![n.clone()])));
        let deep = Dim::from_terms([(-1, vec![names[0].clone(); 5000]), (1, vec![])]);
        let huge = Dim::from_terms([(i64::MIN, names[..8].to_vec()), (i64::MAX, names[8..16].to_vec())]);
        for dim in [wide, deep, huge] {
            assert!(!never_negative(&dim.expect("named"), &within));
        }
    }
}
