//! The results: a table, what was to be reached, and plots.

use std::collections::BTreeSet;
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
const GOALS: [Goal; 17] = [
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
        "the same of untrusted",
        "/memory/20x1/untrusted/pss_kib",
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
        1.1,
    ),
    ratio(
        "untrusted, against standard",
        "/life/untrusted/total/p50_ms",
        "/life/standard/total/p50_ms",
        1.2,
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

/// Everything, for people, in Markdown. What was not measured is left out.
pub fn tables(results: &Value) -> String {
    let all = [
        goals(results),
        phases(results),
        beside(results),
        growth(results),
        memory(results),
        eight(results),
        pods(results),
        quiet(results),
        profiles(results),
    ];
    let mut out = all.into_iter().flatten().collect::<Vec<_>>().join("\n");
    out.insert(0, '\n');
    out
}

/// Puts the tables into a document, between `<!-- NAME -->` and `<!-- end of NAME -->`.
pub fn put_into(document: &Path, name: &str, results: &Value) {
    let text = fs::read_to_string(document).unwrap();
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the document has the mark");
    let (_, after) = rest
        .split_once(&end)
        .expect("the document has the second mark");
    let tables = tables(results);
    fs::write(document, format!("{before}{begin}{tables}\n{end}{after}")).unwrap();
}

/// A table: its heads, and rows of as many cells.
fn rows<S: AsRef<str>>(heads: &[S], rows: impl IntoIterator<Item = Vec<String>>) -> Option<String> {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let body: String = rows
        .into_iter()
        .map(|cells| line(cells.iter().map(String::as_str).collect()))
        .collect();
    let heads: Vec<&str> = heads.iter().map(AsRef::as_ref).collect();
    let rule = "|---".repeat(heads.len());
    (!body.is_empty()).then(|| format!("{}{rule}|\n{body}", line(heads)))
}

/// A number by its pointer, with so many decimals; nothing where there is none.
fn shown(results: &Value, pointer: &str, decimals: usize) -> String {
    number(results, pointer).map_or(String::new(), |v| format!("{v:.decimals$}"))
}

fn keys(results: &Value, key: &str) -> Vec<String> {
    let names = results[key].as_object().into_iter().flatten();
    names.map(|(name, _)| name.clone()).collect()
}

fn goals(results: &Value) -> Option<String> {
    let row = |goal: &Goal| {
        let value = goal.value(results)?;
        let reached = goal.is_reached(value, false);
        let word = if goal.at_least { "at least " } else { "" };
        Some(vec![
            goal.name.to_owned(),
            format!("{value:.2}"),
            format!("{word}{}", goal.limit),
            if reached {
                "reached"
            } else {
                "**not reached**"
            }
            .to_owned(),
        ])
    };
    let heads = ["figure", "measured", "at most", ""];
    rows(&heads, GOALS.iter().filter_map(row))
}

fn phases(results: &Value) -> Option<String> {
    let table = |key: &str, title: &str| {
        let columns = || PHASES.into_iter().chain(["exec"]);
        let row = |name: String| {
            let cell = |phase: &str| {
                let at = |p: &str| shown(results, &format!("/{key}/{name}/{phase}/{p}_ms"), 1);
                let all = ["p50", "p95", "p99"].map(at);
                let has = !all[0].is_empty();
                if has { all.join(" / ") } else { String::new() }
            };
            let cells: Vec<String> = columns().map(cell).collect();
            [vec![name], cells].concat()
        };
        let title = format!("milliseconds, {title}: p50 / p95 / p99");
        let heads: Vec<&str> = [title.as_str()].into_iter().chain(columns()).collect();
        rows(&heads, keys(results, key).into_iter().map(row))
    };
    let both = [
        table("life", "50 ms apart"),
        table("life_tight", "in a tight loop"),
    ];
    let both: Vec<String> = both.into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join("\n"))
}

/// What has no other runtime beside it on containerd.
fn beside(results: &Value) -> Option<String> {
    let figures = [
        ("inside of our shim, standard", "/inside/standard"),
        ("inside of our shim, hardened", "/inside/hardened"),
        ("the bare floor", "/inside/floor"),
        ("`cofferdam run`", "/command_line/cofferdam"),
        ("`runc run`", "/command_line/runc"),
        ("`runsc run`", "/command_line/runsc"),
    ];
    let row = |(name, pointer): (&str, &str)| {
        let at = |p: &str| shown(results, &format!("{pointer}/{p}_ms"), 1);
        let cells = ["p50", "p95", "p99"].map(at);
        (!cells[0].is_empty()).then(|| [vec![name.to_owned()], cells.to_vec()].concat())
    };
    rows(
        &["milliseconds", "p50", "p95", "p99"],
        figures.into_iter().filter_map(row),
    )
}

fn growth(results: &Value) -> Option<String> {
    let series = [
        ("/growth_node/standard", "total_ms"),
        ("/growth_node/standard", "inside_ms"),
        ("/growth_node/standard", "floor_ms"),
        ("/growth_node/standard", "nothing_ms"),
        ("/growth_node/runc", "total_ms"),
        ("/growth_pod/standard", "total_ms"),
        ("/growth_pod/runc", "total_ms"),
    ];
    let of = |pointer: &str| results.pointer(pointer).and_then(Value::as_array);
    let all = series.iter().filter_map(|(p, _)| of(p)).flatten();
    let steps: BTreeSet<u64> = all.filter_map(|r| r["containers"].as_u64()).collect();
    let row = |step: u64| {
        let cell = |(pointer, key): &(&str, &str)| {
            let row = of(pointer)?.iter().find(|r| r["containers"] == step)?;
            row[*key].as_f64().map(|v| format!("{v:.1}"))
        };
        let cells = series.iter().map(|s| cell(s).unwrap_or_default());
        std::iter::once(step.to_string()).chain(cells).collect()
    };
    let heads = [
        "a life beside so many, ms",
        "on the node",
        "of it inside the shim",
        "bare floor",
        "nothing",
        "runc",
        "in the pod",
        "runc",
    ];
    rows(&heads, steps.into_iter().map(row))
}

fn memory(results: &Value) -> Option<String> {
    let runtimes = ["standard", "hardened", "untrusted", "runc"];
    let row = |shape: String| {
        let cell = |name: &str| {
            let at = |what: &str| {
                let pointer = format!("/memory/{shape}/{name}/{what}_kib");
                results
                    .pointer(&pointer)
                    .map(|_| shown(results, &pointer, 0))
            };
            let both = at("pss").zip(at("private"));
            both.map_or(String::new(), |(pss, private)| format!("{pss} ({private})"))
        };
        let (pods, containers) = shape.split_once('x').unwrap();
        let what = format!("{pods} pods of {containers}");
        std::iter::once(what).chain(runtimes.map(cell)).collect()
    };
    let shapes = keys(results, "memory").into_iter().map(row);
    let heads = [&["shim memory, KiB a pod: PSS (private)"], &runtimes[..]].concat();
    let table = rows(&heads, shapes)?;
    let further = |name: &str| shown(results, &format!("/further_container/{name}"), 0);
    let (ours, theirs) = (further("standard"), further("runc"));
    Some(format!(
        "{table}\nEach further container in a pod takes {ours} KiB of the shim (runc: {theirs}).\n"
    ))
}

fn eight(results: &Value) -> Option<String> {
    let names = keys(results, "eight");
    let cell = |name: &String| shown(results, &format!("/eight/{name}/per_second"), 1);
    let cells: Vec<String> = names.iter().map(cell).collect();
    let what = "containers a second, eight at a time".to_owned();
    let heads = [vec![String::new()], names].concat();
    let row = [vec![what], cells].concat();
    rows(&heads, (row.len() > 1).then_some(row))
}

fn pods(results: &Value) -> Option<String> {
    let names = keys(results, "pods");
    let row = |(key, what, label): (&str, &str, &str)| {
        let cell = |name: &String| {
            let at = |p: &str| shown(results, &format!("/{key}/{name}/{what}/{p}_ms"), 1);
            format!("{} / {}", at("p50"), at("p95"))
        };
        let cells: Vec<String> = names.iter().map(cell).collect();
        [vec![label.to_owned()], cells].concat()
    };
    let figures = [
        ("pods", "running", "one, to running"),
        ("pods", "removal", "one, removal"),
        ("pods_eight", "running", "eight at a time, all running"),
        ("pods_eight", "removal", "eight at a time, all removed"),
    ];
    let heads = [vec!["CRI pods, ms: p50 / p95".to_owned()], names.clone()].concat();
    rows(
        &heads,
        (!names.is_empty())
            .then(|| figures.map(row))
            .into_iter()
            .flatten(),
    )
}

/// Idle shims, and output.
fn quiet(results: &Value) -> Option<String> {
    let row = |(label, key, fields): (&str, &str, &[&str])| {
        let cell = |name: &str| {
            let at = |f: &&str| shown(results, &format!("/{key}/{name}/{f}"), 0);
            fields.iter().map(at).collect::<Vec<_>>().join(", ")
        };
        let has = results[key].is_object();
        has.then(|| vec![label.to_owned(), cell("standard"), cell("runc")])
    };
    let output: &[&str] = &["mb_per_second", "shim_cpu_ms_per_gb"];
    let figures = [
        (
            "an idle shim: seconds, wake-ups, CPU µs, threads",
            "idle",
            &["seconds", "wakeups", "cpu_us", "threads"][..],
        ),
        (
            "output of one container: MB/s, shim CPU ms a GB",
            "output_1",
            output,
        ),
        (
            "output of fifty at once: MB/s, shim CPU ms a GB",
            "output_50",
            output,
        ),
    ];
    rows(
        &["", "standard", "runc"],
        figures.into_iter().filter_map(row),
    )
}

fn profiles(results: &Value) -> Option<String> {
    let all = results["profiles"].as_array()?;
    let row = |p: &Value| {
        let at = |key: &str| p[key].as_f64().map_or(String::new(), |v| format!("{v:.2}"));
        let name = p["name"].as_str().unwrap_or_default().to_owned();
        let cells = ["life_ratio", "calls_ratio", "unfiltered_ratio"].map(at);
        [vec![name], cells.to_vec()].concat()
    };
    let heads = [
        "against standard",
        "a life",
        "300,000 system calls, under the default filter",
        "under none of the pod's",
    ];
    rows(&heads, all.iter().map(row))
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
