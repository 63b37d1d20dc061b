//! How often something may happen, and which denials deserve a line.

use std::time::{Duration, Instant};

/// Lines of one call and rule that come at once. After them a loop falls silent: it has a line after [`SILENT`], then after twice that, and so
/// on.
const LINES_AT_ONCE: u64 = 3;
/// After that long without such a call, the next one is news again.
const SILENT: Duration = Duration::from_secs(10);
/// The longest time between two lines of a loop.
const SILENT_AT_MOST: Duration = Duration::from_secs(3600);

/// How much of something there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub burst: f64,
    pub per_second: f64,
}

/// What is left of a rate.
#[derive(Debug)]
pub(super) struct TokenBucket {
    rate: Rate,
    left: f64,
    at: Instant,
}

impl TokenBucket {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            left: rate.burst,
            at: Instant::now(),
        }
    }

    /// Takes one, or says how long it will be until there is one.
    pub(super) fn take(&mut self) -> Result<(), Duration> {
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * self.rate.per_second;
        self.left = (self.left + earned).min(self.rate.burst);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        let missing = (1.0 - self.left) / self.rate.per_second;
        Err(Duration::from_secs_f64(missing))
    }
}

/// One call and rule.
#[derive(Debug)]
pub(super) struct Count {
    pub all: u64,
    /// Of them, those without a line since the last line.
    pub unlogged: u64,
    /// Lines since it became news.
    lines: u64,
    seen: Instant,
    /// From when on there may be a line again, and how long until the one after it.
    next: Instant,
    silent: Duration,
}

impl Count {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: 0,
            unlogged: 0,
            lines: 0,
            seen: now,
            next: now,
            silent: SILENT,
        }
    }

    /// Whether this call deserves a line.
    pub(super) fn is_news(&mut self, now: Instant) -> bool {
        if now.duration_since(self.seen) >= SILENT {
            (self.lines, self.silent) = (0, SILENT);
        }
        self.seen = now;
        if self.lines < LINES_AT_ONCE {
            return true;
        }
        now >= self.next
    }

    /// It has a line. Returns how many had none before it.
    pub(super) fn logged(&mut self, now: Instant) -> u64 {
        self.lines += 1;
        if self.lines >= LINES_AT_ONCE {
            self.next = now + self.silent;
            self.silent = (self.silent * 2).min(SILENT_AT_MOST);
        }
        std::mem::take(&mut self.unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_falls_silent_and_is_news_again_after_a_while() {
        let start = Instant::now();
        let mut count = Count::new(start);
        let mut lines = Vec::new();
        let mut call = |second: f64| {
            let now = start + Duration::from_secs_f64(second);
            if count.is_news(now) {
                lines.push((second, count.logged(now)));
            } else {
                count.unlogged += 1;
            }
        };
        // Ten a second, for 100 seconds; silence; three more.
        (0..1000).for_each(|i| call(f64::from(i) / 10.0));
        (0..3).for_each(|i| call(200.0 + f64::from(i)));
        let seconds: Vec<f64> = lines.iter().map(|(s, _)| *s).collect();
        let expected = [0.0, 0.1, 0.2, 10.2, 30.2, 70.2, 200.0, 201.0, 202.0];
        assert_eq!(seconds, expected);
        let unlogged: Vec<u64> = lines.iter().map(|(_, n)| *n).collect();
        assert_eq!(unlogged, [0, 0, 0, 99, 199, 399, 297, 0, 0]);
    }
}
