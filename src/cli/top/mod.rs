//! `cofferdam top`: the pods of this node.

mod live;
mod row;
mod screen;
mod table;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{Result, json, print};
use crate::control::{self, Found};
use row::{Row, Sort, measure};
use table::Table;

/// Between the two looks of a table that is printed once.
const ONCE: Duration = Duration::from_millis(300);

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Print everything once, as JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// Print the table once, with every column. This is the default without a terminal
    #[arg(short = '1', long)]
    once: bool,
    /// What to sort by
    #[arg(short, long, value_enum, default_value = "pod")]
    sort: Sort,
    /// Reverse the order
    #[arg(short, long)]
    reverse: bool,
    /// Only pods with this text in their name, id, class or version
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    filter: String,
    /// Time between two looks, as in 1s, 500ms or 1m; a number is seconds
    #[arg(short, long, default_value = "1s", value_parser = super::args::duration)]
    interval: Duration,
}

pub(super) fn top(args: &TopArgs) -> Result<i32> {
    if args.json {
        let (mut items, mut errors) = (Vec::new(), Vec::new());
        let all = control::pods()?;
        for found in &all {
            match &found.pod {
                Ok(pod) if !Row::from(pod.clone()).contains(&args.filter) => {}
                Ok(pod) => items.push(json!(json::Pod::from(pod))),
                Err(e) => errors.push(json!({ "shim": found.pid, "message": e.to_string() })),
            }
        }
        json::print("PodList", json!({ "items": items, "errors": errors }));
        return Ok(0);
    }
    if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return once(args);
    }
    live::run(args)
}

fn rows(found: Vec<Found>) -> Vec<Row> {
    found.into_iter().map(Row::from).collect()
}

/// For pipes: a line of heads, a line for each pod. What is wrong goes to standard error.
fn once(args: &TopArgs) -> Result<i32> {
    let (before, at) = (rows(control::pods()?), Instant::now());
    let (before, silent): (Vec<Row>, Vec<Row>) =
        before.into_iter().partition(|r| !r.class.is_empty());
    std::thread::sleep(ONCE);
    // Those that hang are waited for once only.
    let pids: Vec<u32> = before.iter().map(|r| r.pid).collect();
    let mut all = rows(control::ask_all(pids));
    measure(&before, &mut all, at.elapsed());
    all.retain(|r| r.contains(&args.filter));
    row::sort(&mut all, args.sort, args.reverse);
    for row in all.iter().chain(&silent) {
        if let Some(error) = &row.error {
            log::warn!("{}: {error}", row.title);
        }
    }
    all.retain(|r| !r.class.is_empty());
    let table = Table::whole(&all);
    let lines = std::iter::once(table.head()).chain(all.iter().map(|r| table.row(r)));
    let text: String = lines.map(|line| line + "\n").collect();
    print(&text);
    Ok(0)
}
