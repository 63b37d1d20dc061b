//! The results: a table, what was to be reached, and plots.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::life::PHASES;

fn number(results: &Value, pointer: &str) -> Option<f64> {
    results.pointer(pointer)?.as_f64()
}

/// One figure that was to be reached.
struct Goal {
    name: &'static str,
    /// What is divided, and by what; nothing is a figure by itself.
    figure: &'static str,
    by: &'static str,
    /// At most; for `at_least` at least.
    limit: f64,
    at_least: bool,
    /// How much more a short run may have: it is a hint, no measurement.
    slack: f64,
}

const fn ratio(name: &'static str, figure: &'static str, by: &'static str, limit: f64) -> Goal {
    Goal {
        name,
        figure,
        by,
        limit,
        at_least: false,
        slack: 1.5,
    }
}

const fn at_least(goal: Goal) -> Goal {
    Goal {
        at_least: true,
        ..goal
    }
}

/// The list. Memory is in KiB.
const GOALS: [Goal; 16] = [
    ratio(
        "life, against runc",
        "/life/standard/total/p50_ms",
        "/life/runc/total/p50_ms",
        0.30,
    ),
    ratio(
        "exec, against runc",
        "/life/standard/exec/p50_ms",
        "/life/runc/exec/p50_ms",
        0.15,
    ),
    ratio(
        "request to program inside the shim, against the bare floor",
        "/inside/standard/p50_ms",
        "/inside/floor/p50_ms",
        1.5,
    ),
    ratio(
        "CRI pod to running, against runc",
        "/pods/standard/running/p50_ms",
        "/pods/runc/running/p50_ms",
        0.45,
    ),
    at_least(ratio(
        "eight at a time, containers a second, against runc",
        "/eight/standard/per_second",
        "/eight/runc/per_second",
        3.0,
    )),
    ratio(
        "memory a pod of 20, against runc",
        "/memory/20x1/standard/pss_kib",
        "/memory/20x1/runc/pss_kib",
        0.10,
    ),
    ratio(
        "memory of one pod alone, against runc",
        "/memory/1x1/standard/pss_kib",
        "/memory/1x1/runc/pss_kib",
        0.12,
    ),
    ratio(
        "KiB of each further container",
        "/further_container/standard",
        "",
        150.0,
    ),
    ratio(
        "wake-ups of an idle shim",
        "/idle/standard/wakeups",
        "",
        0.0,
    ),
    ratio(
        "CPU of an idle shim, microseconds",
        "/idle/standard/cpu_us",
        "",
        0.0,
    ),
    at_least(ratio(
        "output of one container, against runc",
        "/output_1/standard/mb_per_second",
        "/output_1/runc/mb_per_second",
        2.0,
    )),
    ratio(
        "shim CPU for output, ms a GB",
        "/output_1/standard/shim_cpu_ms_per_gb",
        "",
        10.0,
    ),
    ratio(
        "hardened, against standard",
        "/life/hardened/total/p50_ms",
        "/life/standard/total/p50_ms",
        1.3,
    ),
    ratio(
        "untrusted, against standard",
        "/life/untrusted/total/p50_ms",
        "/life/standard/total/p50_ms",
        1.6,
    ),
    ratio(
        "hardened inside the shim, against runsc",
        "/inside/hardened/p50_ms",
        "/command_line/runsc/p50_ms",
        0.05,
    ),
    ratio(
        "system calls under hardened, against standard",
        "/profiles/1/calls_ms",
        "/profiles/0/calls_ms",
        1.05,
    ),
];

impl Goal {
    fn value(&self, results: &Value) -> Option<f64> {
        let figure = number(results, self.figure)?;
        if self.by.is_empty() {
            return Some(figure);
        }
        Some(figure / number(results, self.by)?)
    }

    fn is_reached(&self, value: f64, short: bool) -> bool {
        let slack = if short { self.slack } else { 1.0 };
        // What is to be nothing is nearly nothing in a few seconds.
        let limit = if short && self.limit == 0.0 {
            2.0
        } else {
            self.limit
        };
        if self.at_least {
            value >= limit / slack
        } else {
            value <= limit * slack
        }
    }
}

/// What was not reached.
pub fn broken(results: &Value, short: bool) -> Vec<String> {
    let missed = |goal: &Goal| {
        let value = goal.value(results)?;
        let word = if goal.at_least { "at least" } else { "at most" };
        (!goal.is_reached(value, short))
            .then(|| format!("{}: {value:.2}, {word} {}", goal.name, goal.limit))
    };
    GOALS.iter().filter_map(missed).collect()
}

/// Everything, for people; in Markdown.
pub fn table(results: &Value) -> String {
    let mut out = String::new();
    let mut line = |text: String| out += &format!("{text}\n");
    line("\n| figure | measured | at most | |\n|---|---|---|---|".into());
    for goal in &GOALS {
        let value = goal.value(results);
        let shown = value.map_or("not measured".into(), |v| format!("{v:.2}"));
        let verdict = match value.map(|v| goal.is_reached(v, false)) {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "",
        };
        let limit = if goal.at_least {
            format!("at least {}", goal.limit)
        } else {
            goal.limit.to_string()
        };
        line(format!("| {} | {shown} | {limit} | {verdict} |", goal.name));
    }
    for (key, title) in [("life", "50 ms apart"), ("life_tight", "in a tight loop")] {
        line(format!(
            "\n| milliseconds, {title}: p50 / p95 / p99 | {} | exec |",
            PHASES.join(" | ")
        ));
        line(format!("|---|{}", "---|".repeat(PHASES.len() + 1)));
        for (name, phases) in results[key].as_object().into_iter().flatten() {
            let cell = |phase: &str| {
                let at = |p: &str| phases[phase][p].as_f64();
                match (at("p50_ms"), at("p95_ms"), at("p99_ms")) {
                    (Some(a), Some(b), Some(c)) => format!("{a:.1} / {b:.1} / {c:.1}"),
                    _ => String::new(),
                }
            };
            let cells: Vec<String> = PHASES.iter().copied().chain(["exec"]).map(cell).collect();
            line(format!("| {name} | {} |", cells.join(" | ")));
        }
    }
    let one = |pointer: &str| {
        number(results, pointer).map_or("not measured".into(), |v| format!("{v:.1}"))
    };
    line(format!(
        "\nmilliseconds: inside of our shim {} (hardened {}), bare floor {}; command lines: cofferdam {}, runc {}, runsc {}",
        one("/inside/standard/p50_ms"),
        one("/inside/hardened/p50_ms"),
        one("/inside/floor/p50_ms"),
        one("/command_line/cofferdam/p50_ms"),
        one("/command_line/runc/p50_ms"),
        one("/command_line/runsc/p50_ms")
    ));
    for key in [
        "eight",
        "pods",
        "pods_eight",
        "memory",
        "idle",
        "output_1",
        "output_50",
        "growth_node",
        "growth_pod",
        "profiles",
    ] {
        line(format!("\n{key}:"));
        let rows: Vec<(String, &Value)> = match &results[key] {
            Value::Object(rows) => rows.iter().map(|(k, v)| (k.clone(), v)).collect(),
            Value::Array(rows) => rows.iter().map(|v| (v["name"].to_string(), v)).collect(),
            _ => Vec::new(),
        };
        for (name, row) in rows {
            line(format!("  {name}: {}", rounded(row)));
        }
    }
    out
}

/// A row with numbers that can be read.
fn rounded(value: &Value) -> String {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(k, v)| match v {
                Value::Object(_) => format!("{k} ({})", rounded(v)),
                v => format!("{k} {}", rounded(v)),
            })
            .collect::<Vec<_>>()
            .join(", "),
        Value::Array(rows) => rows.iter().map(rounded).collect::<Vec<_>>().join("; "),
        Value::Number(n) => match n.as_f64() {
            Some(f) if f.fract() != 0.0 => format!("{f:.1}"),
            _ => n.to_string(),
        },
        other => other.to_string(),
    }
}

/// Plots, for the documentation.
pub fn draw(results: &Value, directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let life = ["nothing", "standard", "hardened", "untrusted", "runc"].map(|name| {
        let value = number(results, &format!("/life/{name}/total/p50_ms"));
        (name, value.unwrap_or(0.0))
    });
    let bars = bars(
        "Create, Start, Wait and Delete of /bin/true, ms (median)",
        &life,
    );
    fs::write(directory.join("life.svg"), bars).unwrap();
    for (key, title) in [
        (
            "growth_node",
            "a life beside N pods on the node, ms (median)",
        ),
        (
            "growth_pod",
            "a life beside N containers in the pod, ms (median)",
        ),
    ] {
        let series: Vec<(&str, Vec<(f64, f64)>)> = ["standard", "runc"]
            .into_iter()
            .map(|name| {
                let rows = results[key][name].as_array().cloned().unwrap_or_default();
                let point = |r: &Value| Some((r["containers"].as_f64()?, r["total_ms"].as_f64()?));
                (name, rows.iter().filter_map(point).collect())
            })
            .collect();
        fs::write(directory.join(format!("{key}.svg")), curves(title, &series)).unwrap();
    }
}

const COLOURS: [&str; 5] = ["#8b949e", "#1f6feb", "#3fb950", "#a371f7", "#d29922"];

fn frame(title: &str, width: u32, height: u32, inside: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"12\" y=\"22\" font-weight=\"bold\">{title}</text>\n{inside}</svg>\n"
    )
}

fn bars(title: &str, rows: &[(&str, f64)]) -> String {
    let most = rows.iter().map(|r| r.1).fold(1.0, f64::max);
    let mut inside = String::new();
    for (i, (name, value)) in rows.iter().enumerate() {
        let (y, width) = (40 + i * 30, value / most * 420.0);
        writeln!(
            inside,
            "<text x=\"12\" y=\"{}\">{name}</text><rect x=\"100\" y=\"{y}\" width=\"{width:.1}\" height=\"20\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.1}</text>",
            y + 15,
            COLOURS[i % COLOURS.len()],
            108.0 + width,
            y + 15
        )
        .unwrap();
    }
    frame(title, 600, 50 + 30 * rows.len() as u32, &inside)
}

fn curves(title: &str, series: &[(&str, Vec<(f64, f64)>)]) -> String {
    let points = || series.iter().flat_map(|(_, p)| p);
    let (most_x, most_y) =
        points().fold((1.0, 1.0), |(x, y): (f64, f64), p| (x.max(p.0), y.max(p.1)));
    let place = |(x, y): (f64, f64)| (60.0 + x / most_x * 480.0, 270.0 - y / most_y * 210.0);
    let mut inside =
        String::from("<path d=\"M60 50V270H550\" stroke=\"#8b949e\" fill=\"none\"/>\n");
    for (value, at) in [(0.0, 0.0), (most_y / 2.0, most_y / 2.0), (most_y, most_y)] {
        writeln!(
            inside,
            "<text x=\"12\" y=\"{:.0}\">{value:.0}</text>",
            place((0.0, at)).1 + 4.0
        )
        .unwrap();
    }
    for (i, (name, points)) in series.iter().enumerate() {
        let colour = if *name == "runc" {
            COLOURS[4]
        } else {
            COLOURS[1]
        };
        let path: Vec<String> = points
            .iter()
            .map(|p| place(*p))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        writeln!(
            inside,
            "<polyline points=\"{}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>\
             <text x=\"{}\" y=\"42\" fill=\"{colour}\">{name}</text>",
            path.join(" "),
            400 + i * 80
        )
        .unwrap();
        for (x, y) in points {
            let (at, up) = place((*x, *y));
            writeln!(
                inside,
                "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"288\" font-size=\"11\">{x}</text>",
                at - 8.0
            )
            .unwrap();
        }
    }
    frame(title, 580, 300, &inside)
}
