//! What is said of data sets, as the proto has it. Names are as long as a spec may be, and no longer; whether there are such
//! samples who reads them will see.

use thalweg_runtime::source::{FIELDS, SPEC_BYTES, Samples, SourceSpec};

use super::pieces::MessageError;
use super::proto;
use crate::message::{Drawn, Order};

type Refused = MessageError;

pub(super) fn to_source(number: u32, SourceSpec { root, path, how }: SourceSpec) -> proto::Source {
    proto::Source { number, root, path, how }
}

pub(super) fn from_source(proto::Source { number, root, path, how }: proto::Source) -> Result<Order, Refused> {
    let spec = SourceSpec { root, path, how };
    if [&spec.root, &spec.path, &spec.how].into_iter().any(|text| text.len() > SPEC_BYTES) {
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
