//! The trace that a request says it belongs to: W3C Trace Context. It does not know where headers come from.

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// A span of another process, under which a request's stands.
#[derive(Debug, Clone)]
pub struct Parent(Context);

impl Parent {
    /// Reads the headers of these names; `None` if `traceparent` is not valid.
    pub fn read(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        if !has_form(traceparent) {
            return None;
        }
        let context =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Two { traceparent, tracestate });
        context.span().span_context().is_valid().then_some(Self(context))
    }

    /// The trace's id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }

    pub(super) fn context(&self) -> &Context {
        &self.0
    }
}

/// Whether the parts have their lengths, which the library does not ask: version, trace, span and flags.
fn has_form(traceparent: &str) -> bool {
    let mut parts = traceparent.split('-');
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    [2, 32, 16, 2]
        .iter()
        .all(|length| parts.next().is_some_and(|part| part.len() == *length && part.bytes().all(is_digit)))
}

struct Two<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Two<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_parents_have_their_id_and_others_are_none() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        let parent = Parent::read(&format!("00-{id}-b7ad6b7169203331-01"), Some("a=b")).unwrap();
        assert_eq!(parent.trace_id(), id);
        assert!(parent.context().span().span_context().is_sampled());
        let parent = Parent::read(&format!("00-{id}-b7ad6b7169203331-00"), Some("not a state")).unwrap();
        assert!(!parent.context().span().span_context().is_sampled());
        for wrong in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319ü-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(Parent::read(wrong, None).is_none(), "{wrong}");
        }
    }
}
