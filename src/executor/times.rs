//! When a process did its steps, if a trace is wanted.

use std::sync::Arc;

use crate::sys::memory::SharedTimes;
use crate::trace;

/// Somewhere for the child to note times, where a trace is wanted.
pub(super) fn times(steps: usize) -> Option<Arc<SharedTimes>> {
    let times = || SharedTimes::new(steps + 1).ok().map(Arc::new);
    trace::is_on().then(times).flatten()
}

/// What the child did, from a step on, as far as it came.
pub(super) fn trace_steps(
    times: Option<&Arc<SharedTimes>>,
    pid: i32,
    first: usize,
    names: impl Iterator<Item = String>,
) {
    let Some(times) = times else { return };
    for (i, name) in names.enumerate() {
        let (from, to) = (times.get(first + i), times.get(first + i + 1));
        if to == 0 {
            return;
        }
        trace::event(&name, pid, pid, from, to);
    }
}
