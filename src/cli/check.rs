//! `cofferdam check`: can this node enforce what profiles promise?

use std::path::Path;

use super::style::{self, Style};
use super::{CheckArgs, Error, Result, json, print_raw};
use crate::inspect::containerd::Source;
use crate::inspect::{Finding, State, check as look};
use crate::show::shown;

/// Status 0 where all is well, 1 where something fails, 3 where something is less than it could be.
///
/// # Errors
/// The other root cannot be entered.
pub(super) fn check(args: &CheckArgs) -> Result<i32> {
    let source = Source {
        program: args.containerd.clone(),
        config: args.config.clone(),
        root: args.root.clone(),
    };
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    let findings =
        look(&args.profiles, &source).map_err(Error::io(format!("enter {}", root.display())))?;
    let worst = findings.iter().map(|f| f.state).max().unwrap_or(State::Ok);
    if args.json {
        json::print(
            "Check",
            serde_json::json!({ "state": worst, "findings": findings }),
        );
    } else {
        print_raw(&text(&findings, args.verbose, Style::of_stdout(WIDTH)));
    }
    Ok(match worst {
        State::Ok | State::NotHere => 0,
        State::Failing => 1,
        State::Degraded => 3,
    })
}

/// Where lines are broken without a terminal.
const WIDTH: usize = 110;
/// Columns before what was found.
const INDENT: usize = 12;

fn text(findings: &[Finding], verbose: bool, style: Style) -> String {
    let mut out = String::new();
    let mut area = "";
    for f in findings {
        if f.area != area {
            area = &f.area;
            let of: Vec<&Finding> = findings.iter().filter(|g| g.area == *area).collect();
            let good = of.iter().filter(|g| g.state <= State::NotHere).count();
            let title = format!("{}: {good} of {} passed", shown(area), of.len());
            out.push_str(&format!("{}\n", style.bold(&title)));
        }
        let mark = match f.state {
            State::Ok if !verbose => continue,
            State::Ok => style.good("ok       "),
            State::NotHere => style.dim("not here "),
            State::Degraded => style.warn("degraded "),
            State::Failing => style.bad("FAILING  "),
        };
        let width = style.width.saturating_sub(INDENT).max(20);
        let found = style::wrap(&shown(&format!("{}: {}", f.what, f.found)), width);
        out.push_str(&format!("  {mark} {}\n", found.join("\n            ")));
        if !f.remedy.is_empty() {
            let remedy = style::wrap(&shown(&format!("remedy: {}", f.remedy)), width);
            out.push_str(&format!("            {}\n", remedy.join("\n            ")));
        }
    }
    out
}
