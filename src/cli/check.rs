//! `cofferdam check`: can this node enforce what profiles promise?

use super::{json, print};
use crate::inspect::containerd::Source;
use crate::inspect::{Finding, State, check as look};

/// Status 0 where all is well, 1 where something fails, 3 where something is less than it could be.
pub(super) fn check(profiles: &[String], source: &Source, as_json: bool, verbose: bool) -> i32 {
    let findings = look(profiles, source);
    let worst = findings.iter().map(|f| f.state).max().unwrap_or(State::Ok);
    if as_json {
        json::print(
            "Check",
            serde_json::json!({ "state": worst, "findings": findings }),
        );
    } else {
        print(&text(&findings, verbose));
    }
    match worst {
        State::Ok => 0,
        State::Failing => 1,
        State::Degraded => 3,
    }
}

fn text(findings: &[Finding], verbose: bool) -> String {
    let mut out = String::new();
    let mut area = "";
    for f in findings {
        if f.area != area {
            area = &f.area;
            let of: Vec<&Finding> = findings.iter().filter(|g| g.area == *area).collect();
            let good = of.iter().filter(|g| g.state == State::Ok).count();
            out.push_str(&format!(
                "{area}: {good} of {} as they should be\n",
                of.len()
            ));
        }
        let mark = match f.state {
            State::Ok if !verbose => continue,
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Failing => "FAILING",
        };
        out.push_str(&format!("  {mark:<9} {}: {}\n", f.what, f.found));
        if !f.remedy.is_empty() {
            out.push_str(&format!("            remedy: {}\n", f.remedy));
        }
    }
    out
}
