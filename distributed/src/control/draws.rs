//! What is said of data sets, as the proto has it. Names are as long as a spec may be, and no longer; whether there are such
//! samples who reads them will see.

use thalweg_runtime::source::{FIELDS, Samples, SourceSpec};

use super::pieces::MessageError;
use super::proto;
use crate::message::{Drawn, Order};

type Refused = MessageError;

pub(super) fn to_source(number: u32, SourceSpec { root, path, how }: SourceSpec) -> proto::Source {
    proto::Source { number, root, path, how }
}

pub(super) fn from_source(proto::Source { number, root, path, how }: proto::Source) -> Result<Order, Refused> {
    let spec = SourceSpec { root, path, how };
    if !spec.is_short() {
        return Err(Refused::Malformed("the description of a data set is too long"));
    }
    Ok(Order::Open(number, spec))
}

pub(super) fn to_draw(drawn: &Drawn) -> proto::Draw {
    let Drawn { source, samples, fields, next } = drawn;
    let (samples, next) = (Some(to_samples(samples)), next.as_ref().map(to_samples));
    proto::Draw { source: *source, samples, fields: fields.clone(), next }
}

pub(super) fn from_draw(proto::Draw { source, samples, fields, next }: proto::Draw) -> Result<Drawn, Refused> {
    let samples = samples.ok_or(Refused::Malformed("samples are drawn, and it is not said which"))?;
    if fields.len() > FIELDS {
        return Err(Refused::Malformed("more fields are drawn than a data set may have"));
    }
    Ok(Drawn { source, samples: from_samples(samples), fields, next: next.map(from_samples) })
}

fn to_samples(Samples { seed, pass, first, count }: &Samples) -> proto::Samples {
    proto::Samples { seed: *seed, pass: *pass, first: *first, count: *count }
}

fn from_samples(proto::Samples { seed, pass, first, count }: proto::Samples) -> Samples {
    Samples { seed, pass, first, count }
}

#[cfg(test)]
mod tests {
    use thalweg_runtime::source::SPEC_BYTES;

    use super::*;

    #[test]
    fn what_is_too_long_or_not_said_is_refused() {
        let long = || "a".repeat(SPEC_BYTES + 1);
        let spec = |root: String, path: String, how: String| SourceSpec { root, path, how };
        let no = String::new;
        for spec in [spec(long(), no(), no()), spec(no(), long(), no()), spec(no(), no(), long())] {
            assert!(from_source(to_source(1, spec)).is_err());
        }
        let samples = Some(proto::Samples { seed: None, pass: 0, first: u64::MAX, count: u64::MAX });
        let draw = |samples, fields| proto::Draw { source: 0, samples, fields, next: None };
        assert!(from_draw(draw(None, vec![])).is_err());
        assert!(from_draw(draw(samples, vec![0; FIELDS + 1])).is_err());
        assert!(from_draw(draw(samples, vec![0; FIELDS])).is_ok(), "whether there are such samples the reader sees");
    }
}
