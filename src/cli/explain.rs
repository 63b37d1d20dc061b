//! `cofferdam explain`: what is enforced on a live pod.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::style::{self, Style};
use super::{Error, Result, json};
use crate::control::{self, Container, Pod, Target};
use crate::inspect::{self, Explanation, Line, Mark};
use crate::names;
use crate::show::shown;

/// Where lines are broken without a terminal.
const WIDTH: usize = 110;
/// Columns before what is found.
const MARK: usize = 10;
const WHAT: usize = 27;

/// A pod that was looked at.
struct Seen {
    target: Target,
    explained: Vec<Explanation>,
    /// Why a container could not be looked at.
    unseen: Vec<String>,
}

impl Seen {
    fn of(name: &str, read_filters: bool) -> Result<Self> {
        let target = control::find(name)?;
        if target.pod.containers.is_empty() {
            let why = match &target.pod.broken {
                Some(broken) => format!(": {broken}"),
                None => String::new(),
            };
            return Err(Error::Other(format!(
                "pod {} has no containers{why}",
                target.pod.title()
            )));
        }
        let (mut explained, mut unseen) = (Vec::new(), Vec::new());
        for container in target.containers() {
            match inspect::explain(&target.pod, container, read_filters) {
                Ok(e) => explained.push(e),
                Err(why) => unseen.push(why.to_string()),
            }
        }
        if explained.is_empty() {
            return Err(Error::Other(unseen.join("; ")));
        }
        Ok(Self {
            target,
            explained,
            unseen,
        })
    }

    fn missing(&self) -> usize {
        self.explained.iter().map(Explanation::missing).sum()
    }

    fn to_json(&self) -> Value {
        let one = |e: &Explanation| json!({ "container": json::Container::from(&e.container), "lines": e.lines });
        json!({
            "pod": json::Pod::from(&self.target.pod),
            "verdict": if self.missing() > 0 { "missing" } else { "enforced" },
            "missing": self.missing(),
            "containers": self.explained.iter().map(one).collect::<Vec<_>>(),
            "unseen": self.unseen,
        })
    }

    /// The summary, what matters, and with `verbose` everything.
    fn text(&self, verbose: bool, style: Style) -> String {
        let mut out = summary(&self.target.pod, self, style);
        for e in &self.explained {
            let is_named = self.target.container.is_some();
            // Nobody has written the pause container, and nothing runs in it.
            if e.container.is_sandbox() && !is_named && !verbose && e.missing() == 0 {
                continue;
            }
            out.push_str(&details(e, verbose, style));
        }
        let folded = self
            .explained
            .iter()
            .map(|e| quiet(e, verbose))
            .sum::<usize>();
        if folded > 0 {
            out.push_str(&style.dim(&format!(
                "\n{folded} lines are not shown, because they are as the pod asked: -v shows all\n"
            )));
        }
        out
    }
}

pub(super) fn explain(name: &str, as_json: bool, verbose: bool, read_filters: bool) -> Result<i32> {
    let seen = Seen::of(name, read_filters)?;
    if as_json {
        json::print("Explanation", seen.to_json());
    } else {
        style::page(&seen.text(verbose, Style::of_stdout(WIDTH)));
    }
    Ok(i32::from(seen.missing() > 0))
}

/// The same text without colours, for others that show it.
pub(super) fn text(name: &str, width: usize) -> Result<String> {
    Ok(Seen::of(name, false)?.text(false, Style::plain(width)))
}

/// A pod in a few lines: what it is, whether all holds, and what each container met.
fn summary(pod: &Pod, seen: &Seen, style: Style) -> String {
    let title = style.bold(&shown(&pod.title()));
    let version = if pod.version == env!("CARGO_PKG_VERSION") {
        String::new()
    } else {
        format!(" of version {}", shown(&pod.version))
    };
    let mut out = format!(
        "{title}  class {}, id {}, namespace {}, shim {}{version}\n",
        shown(pod.profile()),
        shown(names::short(&pod.id)),
        shown(&pod.namespace),
        pod.pid
    );
    let missing = seen.missing();
    let adds_nothing = seen
        .explained
        .iter()
        .all(|e| e.container.profile().is_ok_and(|p| p.is_standard()));
    let verdict = if missing == 0 && adds_nothing {
        style.good("in effect as the pod asked; the profile adds no protection")
    } else if missing == 0 {
        style.good("everything that the profile promises is in effect")
    } else {
        style.bad(&format!(
            "{missing} of what the profile promises is MISSING, see below"
        ))
    };
    out.push_str(&format!("verdict: {verdict}\n"));
    let longest = seen.explained.iter().map(|e| e.container.title().len());
    let width = longest.max().unwrap_or(0);
    for e in &seen.explained {
        let c = &e.container;
        let count = |mark| e.lines.iter().filter(|l| l.mark == mark).count();
        let mut line = format!(
            "  {:<width$}  {}, {}: {} tightened",
            shown(c.title()),
            shown(&c.profile),
            c.status,
            count(Mark::Tightened)
        );
        if e.missing() > 0 {
            line.push_str(&format!(", {} MISSING", e.missing()));
        }
        let not_here = count(Mark::NotHere);
        if not_here > 0 {
            line.push_str(&format!(", {not_here} not on this machine"));
        }
        line.push_str(&format!("; denied: {}", denied(c)));
        out.push_str(&format!("{line}\n"));
    }
    for why in &seen.unseen {
        out.push_str(&format!("  {}\n", shown(why)));
    }
    out
}

/// What was denied so far, most frequent first.
fn denied(c: &Container) -> String {
    if c.denials.is_empty() {
        let is_counted = c.watched || c.filters == 0;
        return if is_counted { "nothing" } else { "not counted" }.into();
    }
    let mut by_call: BTreeMap<&str, u64> = BTreeMap::new();
    for d in &c.denials {
        *by_call.entry(&d.call).or_default() += d.count;
    }
    let mut all: Vec<_> = by_call.into_iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let one = |(call, count): &(&str, u64)| format!("{} {count} times", shown(call));
    let first: Vec<String> = all.iter().take(4).map(one).collect();
    let more = match all.len().saturating_sub(first.len()) {
        0 => String::new(),
        n => format!(" and {n} more calls"),
    };
    first.join(", ") + &more
}

/// A container, its sections, and those of their lines that are to be shown.
fn details(e: &Explanation, verbose: bool, style: Style) -> String {
    let c = &e.container;
    let mut out = format!(
        "\n{}  profile {}, pid {}, {}, id {}\n",
        style.bold(&shown(c.title())),
        shown(&c.profile),
        c.pid,
        c.status,
        shown(names::short(&c.id))
    );
    let mut section = "";
    for line in e.lines.iter().filter(|l| !is_quiet(l, verbose)) {
        if line.section != section {
            section = line.section;
            out.push_str(&format!("  {section}\n"));
        }
        out.push_str(&one(line, style));
    }
    // In one line: nobody reads thirty.
    let paths = |promised: &str| {
        let of = e
            .lines
            .iter()
            .filter(|l| is_path(l) && l.promised == promised);
        of.count()
    };
    let (hidden, fixed) = (paths("masked"), paths("read-only"));
    if !verbose && hidden + fixed > 0 {
        let mark = style.warn(&format!("{:<MARK$}", "tightened"));
        out.push_str(&format!(
            "  paths of the kernel\n    {mark}{hidden} hidden, {fixed} read-only: -v shows which\n"
        ));
    }
    if !c.denials.is_empty() {
        out.push_str("  denied so far\n");
    }
    for d in &c.denials {
        let call = format!("{} ({})", shown(&d.call), d.what);
        out.push_str(&format!(
            "    {:>9} {call:<27} {}\n",
            d.count,
            shown(&d.rule)
        ));
    }
    out
}

/// As the pod asked, and nothing to be said about it; or one of the many paths that profiles hide.
fn is_quiet(line: &Line, verbose: bool) -> bool {
    !verbose && (matches!(line.mark, Mark::Kept | Mark::Note) || is_path(line))
}

/// A path that the profile hides or makes read-only, and that is so.
fn is_path(line: &Line) -> bool {
    line.mark == Mark::Tightened
        && line.section == "files"
        && matches!(line.promised.as_str(), "masked" | "read-only")
        && line.what.starts_with('/')
}

fn quiet(e: &Explanation, verbose: bool) -> usize {
    let as_asked = |l: &&Line| is_quiet(l, verbose) && !is_path(l);
    e.lines.iter().filter(as_asked).count()
}

fn one(line: &Line, style: Style) -> String {
    let (mark, aside) = match line.mark {
        Mark::Kept => ("kept", None),
        Mark::Tightened => ("tightened", Some(format!("(asked: {})", line.asked))),
        Mark::Missing => ("MISSING", Some(format!("(promised: {})", line.promised))),
        Mark::NotShown => ("not shown", None),
        Mark::NotHere => ("not here", None),
        Mark::Note => ("", None),
    };
    let padded = format!("{mark:<MARK$}");
    let mark = match line.mark {
        Mark::Missing => style.bad(&padded),
        Mark::Tightened => style.warn(&padded),
        Mark::Kept => style.good(&padded),
        Mark::NotShown | Mark::NotHere | Mark::Note => style.dim(&padded),
    };
    let text = match aside {
        Some(aside) => format!("{} {aside}", line.found),
        None => line.found.clone(),
    };
    let before = 4 + MARK + WHAT + 1;
    let width = style.width;
    let what = shown(&line.what);
    let mut out = format!("    {mark}{what:<WHAT$} ");
    // A name that is too long has a line of its own, and so has everything on a narrow terminal.
    let (indent, mut first) = if width < before + 30 {
        (4 + MARK, false)
    } else {
        (before, what.chars().count() <= WHAT)
    };
    for part in style::wrap(&shown(&text), width.saturating_sub(indent).max(20)) {
        if !first {
            out = out.trim_end().to_owned();
            out.push_str(&format!("\n{:indent$}", ""));
        }
        out.push_str(&part);
        first = false;
    }
    out + "\n"
}
