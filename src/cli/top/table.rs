//! The columns of the table, for a width.

use super::row::Row;
use crate::show::shown;
use crate::sys::time;

/// A column. The pod's name is none: it takes what the others leave.
struct Column {
    head: &'static str,
    width: usize,
    /// Which go first where there is no room for all.
    rank: u8,
    is_text: bool,
    value: fn(&Row) -> String,
}

/// From left to right.
const COLUMNS: [Column; 12] = [
    column("CLASS", 11, 4, true, |r| r.class.clone()),
    column("ISOL", 5, 8, true, |r| r.isolation.clone()),
    column("CTRS", 4, 7, false, |r| r.containers.to_string()),
    column("MEMORY", 7, 2, false, |r| bytes(r.memory)),
    column("LIMIT", 7, 10, false, |r| {
        r.memory_limit.map_or_else(|| "-".into(), bytes)
    }),
    column("PIDS", 5, 6, false, |r| r.pids.to_string()),
    column("CPU%", 6, 1, false, |r| format!("{:.1}", r.percent)),
    column("DENIED", 7, 3, false, |r| r.denials.to_string()),
    column("AGE", 5, 5, false, |r| age(r.started)),
    column("ID", 13, 9, true, |r| r.id.clone()),
    column("VERSION", 8, 11, true, |r| r.version.clone()),
    column("SHIM", 7, 12, false, |r| r.pid.to_string()),
];

const fn column(
    head: &'static str,
    width: usize,
    rank: u8,
    is_text: bool,
    value: fn(&Row) -> String,
) -> Column {
    Column {
        head,
        width,
        rank,
        is_text,
        value,
    }
}

/// Below this, other columns go before the name is cut.
const NAME: usize = 16;

/// A table that is `width` columns wide, or as wide as what is in it.
pub(super) struct Table {
    name: usize,
    columns: Vec<(&'static Column, usize)>,
    width: Option<usize>,
}

impl Table {
    /// For a terminal. The name is given what it needs, before columns that few look at.
    pub(super) fn fitting(width: usize, rows: &[Row]) -> Self {
        let longest = longest(rows).min(width);
        let mut by_rank: Vec<&Column> = COLUMNS.iter().collect();
        by_rank.sort_by_key(|c| c.rank);
        let mut left = width;
        let mut taken = Vec::new();
        for column in by_rank {
            // A full name before the columns that come with room only.
            let name = if column.rank > 8 {
                longest.max(NAME)
            } else {
                NAME.min(width)
            };
            if left < name + column.width + 1 {
                break;
            }
            left -= column.width + 1;
            taken.push(column.rank);
        }
        let name = longest.clamp(NAME.min(left), left);
        left -= name;
        let columns = COLUMNS.iter().filter(|c| taken.contains(&c.rank));
        // What is left is for texts that would be cut.
        let widened = columns.map(|c| {
            let longest = rows.iter().map(|r| (c.value)(r).chars().count());
            let more = longest.max().unwrap_or(0).saturating_sub(c.width).min(left);
            left -= more;
            (c, c.width + more)
        });
        Self {
            name,
            columns: widened.collect(),
            width: Some(width),
        }
    }

    /// For a pipe: every column, nothing cut.
    pub(super) fn whole(rows: &[Row]) -> Self {
        let width = |c: &Column| {
            let values = rows.iter().map(|r| (c.value)(r).chars().count());
            values.max().unwrap_or(0).max(c.width)
        };
        Self {
            name: longest(rows),
            columns: COLUMNS.iter().map(|c| (c, width(c))).collect(),
            width: None,
        }
    }

    /// The columns' names.
    pub(super) fn head(&self) -> String {
        let cells = self
            .columns
            .iter()
            .map(|(c, width)| (c.head.to_owned(), *width, c.is_text));
        self.line("POD", cells)
    }

    /// A pod.
    pub(super) fn row(&self, row: &Row) -> String {
        if let (Some(error), Some(width)) = (&row.error, self.width) {
            let name = cut(&shown(&row.title), self.name);
            let text = format!("{name:<0$} {1}", self.name, shown(&one_line(error)));
            return text.chars().take(width).collect();
        }
        let cells = self.columns.iter().map(|(c, width)| {
            let value = (c.value)(row);
            let value = shown(&value).chars().take(*width).collect();
            (value, *width, c.is_text)
        });
        self.line(&row.title, cells)
    }

    fn line(&self, name: &str, cells: impl Iterator<Item = (String, usize, bool)>) -> String {
        let mut line = format!("{:<1$}", cut(&shown(name), self.name), self.name);
        for (value, width, is_text) in cells {
            line.push_str(&if is_text {
                format!(" {value:<width$}")
            } else {
                format!(" {value:>width$}")
            });
        }
        line.trim_end().to_owned()
    }
}

fn longest(rows: &[Row]) -> usize {
    let all = rows.iter().map(|r| shown(&r.title).chars().count());
    all.max().unwrap_or(0).max("POD".len())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A name in so many characters: the middle goes, since both the beginning and the end tell pods of a deployment apart.
fn cut(name: &str, width: usize) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= width {
        return name.to_owned();
    }
    if width == 0 {
        return String::new();
    }
    let end = width.saturating_sub(1) / 2;
    let begin = width.saturating_sub(1) - end;
    let begin: String = all.iter().take(begin).collect();
    let end: String = all.iter().skip(all.len() - end).collect();
    format!("{begin}…{end}")
}

fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "K", "M", "G"] {
        if value < 999.5 {
            return if unit == "B" {
                format!("{n}B")
            } else {
                format!("{value:.1}{unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}

/// How long ago, in one unit.
fn age(started: u64) -> String {
    let seconds = time::seconds_since_1970().saturating_sub(started);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(title: &str) -> Row {
        Row {
            title: title.into(),
            id: "0123456789abc".into(),
            class: "untrusted".into(),
            isolation: "UCNSL".into(),
            memory: 900 << 30,
            pids: 9999,
            percent: 1600.0,
            version: "0.1.0".into(),
            ..Row::default()
        }
    }

    #[test]
    fn it_fits_every_terminal() {
        let rows = [
            row("shop/checkout-6f9c7d5b4-x2k9p"),
            row("a"),
            Row {
                title: "shim 4194304".into(),
                error: Some("does not answer within 900 ms, and says\nwhy at length".into()),
                ..Row::default()
            },
        ];
        for width in 1..250 {
            let table = Table::fitting(width, &rows);
            for line in rows.iter().map(|r| table.row(r)).chain([table.head()]) {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
            }
        }
        let heads = |width| Table::fitting(width, &rows).head();
        assert_eq!(
            heads(80).split_whitespace().collect::<Vec<_>>(),
            [
                "POD", "CLASS", "ISOL", "CTRS", "MEMORY", "PIDS", "CPU%", "DENIED", "AGE"
            ]
        );
        assert!(
            heads(200).contains("VERSION") && heads(200).contains("SHIM"),
            "{}",
            heads(200)
        );
        assert!(
            heads(40).contains("CPU%") && !heads(40).contains("ISOL"),
            "{}",
            heads(40)
        );
        assert!(
            Table::fitting(200, &rows)
                .row(&rows[0])
                .starts_with("shop/checkout-6f9c7d5b4-x2k9p ")
        );
    }

    #[test]
    fn a_name_keeps_both_ends() {
        assert_eq!(cut("shop/checkout-6f9c7d5b4-x2k9p", 15), "shop/ch…4-x2k9p");
        assert_eq!(cut("web", 3), "web");
        assert_eq!(cut("webb", 1), "…");
        assert_eq!(cut("webb", 0), "");
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(
            [0, 999, 1024, 1 << 20, 1 << 30].map(bytes),
            ["0B", "999B", "1.0K", "1.0M", "1.0G"]
        );
    }
}
