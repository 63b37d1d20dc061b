//! Limits, as they were written and as the kernel shows them.

/// Whether a control file's contents are what was written. The kernel rounds memory down to pages, has words of its own for
/// no limit, and sorts lists.
pub(super) fn same(wanted: &str, found: &str) -> bool {
    if wanted == found {
        return true;
    }
    // Of two numbers, the kernel's is the other one rounded down to pages.
    match (number(wanted), number(found)) {
        (Some(a), Some(b)) => a == b || (a / 4096 == b / 4096 && a >= b && b % 4096 == 0),
        // Of a file with a line for each device, one is ours.
        _ => {
            found.lines().any(|l| l.trim() == wanted)
                || list(wanted).is_some_and(|w| Some(w) == list(found))
        }
    }
}

/// A number; no limit is `u64::MAX`.
fn number(text: &str) -> Option<u64> {
    // Beyond this no machine has anything: cgroup v1 shows 9223372036854771712 where there is no limit.
    const MOST: u64 = 1 << 62;
    match text {
        "max" | "-1" => Some(u64::MAX),
        _ => text
            .parse()
            .ok()
            .map(|n| if n < MOST { n } else { u64::MAX }),
    }
}

/// A list of processors or memory nodes: `0-2,5`.
fn list(text: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        all.extend(from..=to.min(from.saturating_add(8192)));
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn what_the_kernel_makes_of_values() {
        for (wanted, found, expected) in [
            ("100", "100", true),
            ("100000", "98304", true),
            ("100000", "102400", false),
            ("100", "99", false),
            ("-1", "9223372036854771712", true),
            ("max", "max", true),
            ("100", "max", false),
            ("0,1", "0-1", true),
            ("0-1", "0-2", false),
            ("8:0 1000", "8:0 1000\n8:16 5", true),
            ("10000 100000", "max 100000", false),
        ] {
            assert_eq!(same(wanted, found), expected, "{wanted:?} and {found:?}");
        }
    }
}
