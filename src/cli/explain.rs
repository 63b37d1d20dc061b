//! `cofferdam explain`: what is enforced on a live container.

use serde_json::json;

use super::{Error, Result, print, print_json};
use crate::control;
use crate::inspect::{self, Explanation, Line, Mark};
use crate::show::shown;

/// Sections of which only what is not as the pod asked is shown, unless all is wanted.
const LONG: [&str; 1] = ["files"];

pub(super) fn explain(id: &str, as_json: bool, verbose: bool) -> Result<i32> {
    let pod = control::find(id)?;
    let containers = control::find_container(&pod, id);
    if containers.is_empty() {
        let why = match &pod.broken {
            Some(broken) => format!(": {broken}"),
            None => String::new(),
        };
        return Err(Error::Other(format!(
            "pod {} has no containers{why}",
            pod.id
        )));
    }
    let mut explained = Vec::new();
    let mut unseen = Vec::new();
    for container in containers {
        match inspect::explain(&pod, container) {
            Ok(e) => explained.push(e),
            Err(why) => unseen.push(why.to_string()),
        }
    }
    let missing: usize = explained.iter().map(Explanation::missing).sum();
    if as_json {
        let all = json!({
            "pod": { "id": pod.id, "namespace": pod.namespace, "class": pod.class, "shim": pod.pid },
            "containers": explained,
            "unseen": unseen,
            "missing": missing,
        });
        print_json(&format!("{all:#}\n"));
    } else {
        print(&format!(
            "pod {}  class {}, namespace {}, shim {}\n",
            pod.id, pod.class, pod.namespace, pod.pid
        ));
        for e in &explained {
            print(&tree(e, verbose));
        }
        for why in &unseen {
            print(&format!("  {why}\n"));
        }
    }
    if explained.is_empty() {
        return Err(Error::Other(unseen.join("; ")));
    }
    Ok(i32::from(missing > 0))
}

/// Where lines are broken.
const WIDTH: usize = 118;

fn name(mark: Mark) -> &'static str {
    match mark {
        Mark::Kept => "kept",
        Mark::Tightened => "tightened",
        Mark::Missing => "MISSING",
        Mark::NotShown => "not shown",
        Mark::Note => "",
    }
}

/// A container, its sections, and their lines.
fn tree(e: &Explanation, verbose: bool) -> String {
    let c = &e.container;
    let mut out = format!(
        "└─ container {}  profile {}, pid {}, {}\n",
        shown(&c.id),
        shown(&c.profile),
        c.pid,
        c.status
    );
    let mut section = "";
    for line in &e.lines {
        if line.section != section {
            section = line.section;
            out.push_str(&format!("   ├─ {section}\n"));
            let quiet = quiet(e, section, verbose);
            if quiet > 0 {
                out.push_str(&format!("   │    {:<9} {quiet} as the pod asked\n", "kept"));
            }
        }
        if !is_quiet(line, verbose) {
            out.push_str(&one(line));
        }
    }
    out.push_str("   └─ denied so far\n");
    for d in &c.denials {
        let call = format!("{} ({})", shown(&d.call), d.what);
        out.push_str(&format!("        {:>9} {call:<28} {}\n", d.count, d.rule));
    }
    if c.denials.is_empty() {
        let nothing = if c.watched || c.filters == 0 {
            "nothing"
        } else {
            "not counted"
        };
        out.push_str(&format!("        {nothing}\n"));
    }
    let count = |mark| e.lines.iter().filter(|l| l.mark == mark).count();
    out.push_str(&format!(
        "   {} kept, {} tightened, {} not shown by the kernel, {} missing\n",
        count(Mark::Kept),
        count(Mark::Tightened),
        count(Mark::NotShown),
        e.missing()
    ));
    out
}

fn is_quiet(line: &Line, verbose: bool) -> bool {
    !verbose && line.mark == Mark::Kept && LONG.contains(&line.section)
}

fn quiet(e: &Explanation, section: &str, verbose: bool) -> usize {
    let of = |l: &&Line| l.section == section && is_quiet(l, verbose);
    e.lines.iter().filter(of).count()
}

fn one(line: &Line) -> String {
    let mark = name(line.mark);
    let (aside, text) = match line.mark {
        Mark::Kept | Mark::Note | Mark::NotShown => ("", ""),
        Mark::Tightened => ("asked", line.asked.as_str()),
        Mark::Missing => ("promised", line.promised.as_str()),
    };
    let (what, found) = (shown(&line.what), shown(&line.found));
    let mut out = format!("   │    {mark:<9} {what:<26} {found}");
    let aside = if aside.is_empty() {
        String::new()
    } else {
        format!("({aside}: {})", shown(text))
    };
    // What does not fit beside it goes below.
    if !aside.is_empty() && out.chars().count() + aside.chars().count() + 3 > WIDTH {
        out.push_str(&format!("\n   │    {:<9} {:<26} {aside}", "", ""));
    } else if !aside.is_empty() {
        out.push_str(&format!("   {aside}"));
    }
    out + "\n"
}
