//! How often each call was made, and how long it was held in all.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use crate::record::{Brief, micros};

#[derive(Default)]
pub(crate) struct Summary {
    calls: HashMap<Cow<'static, str>, Count>,
}

#[derive(Default, Clone, Copy)]
struct Count {
    calls: u64,
    held: Duration,
}

impl Summary {
    pub(crate) fn add(&mut self, call: Brief) {
        let count = self.calls.entry(call.name).or_default();
        count.calls += 1;
        count.held += call.held;
    }

    /// A table, the call that took the most time first, and the total at the end.
    pub(crate) fn text(&self) -> Vec<String> {
        let line = |name: &str, Count { calls, held }| {
            let (total, each) = (micros(held), micros(held) / calls.max(1) as f64);
            format!("{calls:>9} {total:>12.1} {each:>10.1}  {name}")
        };
        let mut total = Count::default();
        let mut lines = vec![format!(
            "{:>9} {:>12} {:>10}  syscall",
            "calls", "held µs", "µs/call"
        )];
        for (name, count) in self.sorted() {
            total.calls += count.calls;
            total.held += count.held;
            lines.push(line(name, count));
        }
        lines.push(line("total", total));
        lines
    }

    /// One object a call, in the same order.
    pub(crate) fn json(&self) -> Vec<String> {
        let object = |(name, count): (&str, Count)| {
            json!({ "name": name, "calls": count.calls, "held_us": micros(count.held) }).to_string()
        };
        self.sorted().into_iter().map(object).collect()
    }

    fn sorted(&self) -> Vec<(&str, Count)> {
        let mut sorted: Vec<_> = self
            .calls
            .iter()
            .map(|(name, count)| (name.as_ref(), *count))
            .collect();
        sorted.sort_by_key(|(name, count)| (std::cmp::Reverse(count.held), *name));
        sorted
    }
}
