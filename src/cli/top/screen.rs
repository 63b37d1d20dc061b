//! What is on the screen, and what keys do to it. No terminal is touched here.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::row::{LEGEND, Row, Sort, sort};
use super::table::Table;
use crate::show::shown;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    /// Names of columns.
    Head,
    /// The selected pod.
    Selected,
    /// Something that asks for attention.
    Bad,
    /// What can be done.
    Hint,
}

/// What is to be done after a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    Nothing,
    /// Look again at once.
    Look,
    /// Show everything about the pod of this shim.
    Explain(u32),
    Quit,
}

/// The keys, for the line at the bottom and for help.
const HINT: &str = "Enter explain  / filter  s sort  r reverse  ? help  q quit";
/// Letters that sort at once.
const SORTS: [(char, Sort); 8] = [
    ('p', Sort::Pod),
    ('l', Sort::Class),
    ('n', Sort::Containers),
    ('m', Sort::Memory),
    ('i', Sort::Pids),
    ('c', Sort::Cpu),
    ('d', Sort::Denials),
    ('t', Sort::Started),
];
/// Times between two looks, in milliseconds.
const INTERVALS: [u64; 8] = [200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

/// A text that covers the table, to be read and scrolled.
#[derive(Debug, Default)]
pub(super) struct Page {
    lines: Vec<String>,
    first: usize,
}

impl Page {
    pub(super) fn new(text: &str) -> Self {
        Self {
            lines: text.lines().map(|l| shown(l).into_owned()).collect(),
            first: 0,
        }
    }
}

/// The screen.
#[derive(Debug)]
pub(super) struct Screen {
    rows: Vec<Row>,
    pub sort: Sort,
    pub reverse: bool,
    pub filter: String,
    /// Whether the filter is being typed.
    typing: bool,
    /// The shim of the pod that is selected.
    selected: Option<u32>,
    /// The first pod that is shown.
    first: usize,
    pub every: Duration,
    paused: bool,
    page: Option<Page>,
    /// Columns and lines.
    size: (usize, usize),
}

impl Screen {
    pub(super) fn new(sort: Sort, reverse: bool, filter: &str, every: Duration) -> Self {
        Self {
            rows: Vec::new(),
            sort,
            reverse,
            filter: filter.to_owned(),
            typing: false,
            selected: None,
            first: 0,
            every,
            paused: false,
            page: None,
            size: (80, 24),
        }
    }

    pub(super) fn resize(&mut self, columns: usize, lines: usize) {
        self.size = (columns.max(1), lines.max(1));
    }

    pub(super) fn width(&self) -> usize {
        self.size.0
    }

    /// Whether nothing new is to be looked at.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn set_rows(&mut self, rows: Vec<Row>) {
        self.rows = rows;
    }

    pub(super) fn show(&mut self, page: Page) {
        self.page = Some(page);
    }

    /// The pods that pass the filter, sorted.
    fn visible(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .rows
            .iter()
            .filter(|r| r.contains(&self.filter))
            .cloned()
            .collect();
        sort(&mut rows, self.sort, self.reverse);
        rows
    }

    /// Lines for pods: without the summary, the heads and the hint.
    fn room(&self) -> usize {
        self.size.1.saturating_sub(3).max(1)
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Do {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Do::Quit;
        }
        if self.typing {
            return self.type_filter(key.code);
        }
        if self.page.is_some() {
            return self.page_key(key.code, control);
        }
        self.table_key(key.code, control)
    }

    fn type_filter(&mut self, key: KeyCode) -> Do {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
        self.first = 0;
        Do::Nothing
    }

    fn page_key(&mut self, key: KeyCode, control: bool) -> Do {
        let room = self.size.1.saturating_sub(1).max(1);
        let Some(page) = &mut self.page else {
            return Do::Nothing;
        };
        let last = page.lines.len().saturating_sub(room);
        page.first = match moved(key, control) {
            Some(Move::Lines(by)) => page.first.saturating_add_signed(by),
            Some(Move::Pages(by)) => page.first.saturating_add_signed(by * room.cast_signed()),
            Some(Move::First) => 0,
            Some(Move::Last) => last,
            None => match key {
                KeyCode::Char(' ') => page.first + room,
                KeyCode::Char('q') | KeyCode::Esc | KeyCode::Enter => {
                    self.page = None;
                    return Do::Nothing;
                }
                _ => page.first,
            },
        }
        .min(last);
        Do::Nothing
    }

    fn table_key(&mut self, key: KeyCode, control: bool) -> Do {
        if let Some(to) = moved(key, control) {
            self.select(to);
            return Do::Nothing;
        }
        match key {
            KeyCode::Char('q') => return Do::Quit,
            KeyCode::Enter => {
                let visible = self.visible();
                let chosen = visible.iter().find(|r| Some(r.pid) == self.selected);
                if let Some(row) = chosen.or(visible.first()) {
                    return Do::Explain(row.pid);
                }
            }
            KeyCode::Esc => {
                self.filter.clear();
                self.selected = None;
                self.first = 0;
            }
            KeyCode::Char('/') => {
                self.typing = true;
                self.filter.clear();
            }
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('s') => {
                let at = SORTS.iter().position(|(_, s)| *s == self.sort).unwrap_or(0);
                let next = SORTS.iter().cycle().nth(at + 1);
                self.sort = next.map_or(self.sort, |(_, sort)| *sort);
            }
            KeyCode::Char('+' | '-') => {
                let now = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
                let longer = INTERVALS.iter().find(|ms| **ms > now);
                let shorter = INTERVALS.iter().rev().find(|ms| **ms < now);
                let other = if key == KeyCode::Char('+') {
                    longer
                } else {
                    shorter
                };
                self.every = other.map_or(self.every, |ms| Duration::from_millis(*ms));
            }
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('g') | KeyCode::F(5) => return Do::Look,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.page = Some(Page::new(&help())),
            KeyCode::Char(c) => {
                if let Some((_, sort)) = SORTS.iter().find(|(letter, _)| *letter == c) {
                    self.sort = *sort;
                }
            }
            _ => {}
        }
        Do::Nothing
    }

    fn select(&mut self, to: Move) {
        let visible = self.visible();
        let last = visible.len().saturating_sub(1);
        let now = self
            .selected
            .and_then(|pid| visible.iter().position(|r| r.pid == pid));
        let room = self.room().cast_signed();
        let next = match (now, to) {
            (_, Move::First) => 0,
            (_, Move::Last) => last,
            (Some(now), Move::Lines(by)) => now.saturating_add_signed(by),
            (Some(now), Move::Pages(by)) => now.saturating_add_signed(by * room),
            // The first key selects the first pod that is seen, or what a page further is.
            (None, Move::Lines(_)) => self.first,
            (None, Move::Pages(by)) => self.first.saturating_add_signed(by * room),
        }
        .min(last);
        self.selected = visible.get(next).map(|r| r.pid);
    }

    /// What is to be seen: lines of at most the screen's width, at most as many as it has.
    pub(super) fn lines(&mut self) -> Vec<(Look, String)> {
        let (width, height) = self.size;
        let lines = match &mut self.page {
            Some(page) => page_lines(page, height),
            None => self.table_lines(),
        };
        let cut = |(look, line): (Look, String)| {
            let line: String = line.chars().take(width).collect();
            // A bar goes across.
            let line = match look {
                Look::Head | Look::Selected => format!("{line:<width$}"),
                _ => line,
            };
            (look, line)
        };
        lines.into_iter().take(height).map(cut).collect()
    }

    fn table_lines(&mut self) -> Vec<(Look, String)> {
        let visible = self.visible();
        let room = self.room();
        let at = self
            .selected
            .and_then(|pid| visible.iter().position(|r| r.pid == pid));
        if let Some(at) = at {
            self.first = self.first.clamp((at + 1).saturating_sub(room), at);
        }
        self.first = self.first.min(visible.len().saturating_sub(room));
        let table = Table::fitting(self.size.0, &visible);
        let mut lines = vec![(Look::Plain, self.summary(&visible))];
        lines.push((Look::Head, table.head()));
        let shown = visible.iter().enumerate().skip(self.first).take(room);
        lines.extend(shown.map(|(i, row)| {
            let look = match (Some(i) == at, &row.error) {
                (true, _) => Look::Selected,
                (_, Some(_)) => Look::Bad,
                _ => Look::Plain,
            };
            (look, table.row(row))
        }));
        if visible.is_empty() {
            let why = if self.rows.is_empty() {
                "no pods are managed by Cofferdam on this node"
            } else {
                "no pod has this text: Esc shows all"
            };
            lines.push((Look::Plain, why.into()));
        }
        while lines.len() + 1 < self.size.1 {
            lines.push((Look::Plain, String::new()));
        }
        lines.truncate(self.size.1.saturating_sub(1).max(1));
        lines.push((Look::Hint, self.bottom(visible.len())));
        lines
    }

    /// The line above all: how many, and how they are shown.
    fn summary(&self, visible: &[Row]) -> String {
        let pods = visible.iter().filter(|r| !r.class.is_empty()).count();
        let containers: usize = visible.iter().map(|r| r.containers).sum();
        let denied: u64 = visible.iter().map(|r| r.denials).sum();
        let ours = env!("CARGO_PKG_VERSION");
        // Their shims were started before an upgrade.
        let others = self.rows.iter().filter(|r| !r.version.is_empty());
        let others = others.filter(|r| r.version != ours).count();
        let mut text = format!("{pods} pods, {containers} containers, {denied} denied");
        if others > 0 {
            text.push_str(&format!(", {others} of another version"));
        }
        let order = if self.reverse { ", reverse" } else { "" };
        text.push_str(&format!("  by {}{order}", self.sort.name()));
        if self.paused {
            text.push_str("  paused");
        } else {
            text.push_str(&format!(
                "  every {}",
                humantime::format_duration(self.every)
            ));
        }
        text
    }

    fn bottom(&self, count: usize) -> String {
        if self.typing {
            return format!("filter: {}_", shown(&self.filter));
        }
        let filter = match self.filter.as_str() {
            "" => String::new(),
            text => format!("filter {:?}  ", shown(text)),
        };
        let room = self.room();
        let part = if count > room {
            format!(
                "{}-{} of {count}  ",
                self.first + 1,
                (self.first + room).min(count)
            )
        } else {
            String::new()
        };
        format!("{part}{filter}{HINT}")
    }
}

fn page_lines(page: &mut Page, height: usize) -> Vec<(Look, String)> {
    let room = height.saturating_sub(1).max(1);
    page.first = page.first.min(page.lines.len().saturating_sub(room));
    let shown = page.lines.iter().skip(page.first).take(room);
    let mut lines: Vec<_> = shown.map(|l| (Look::Plain, l.clone())).collect();
    while lines.len() < room {
        lines.push((Look::Plain, String::new()));
    }
    let last = (page.first + room).min(page.lines.len());
    let place = format!("{}-{last} of {}", page.first + 1, page.lines.len());
    lines.push((
        Look::Hint,
        format!("{place}  Up/Down PageUp/PageDown scroll  q back"),
    ));
    lines
}

enum Move {
    Lines(isize),
    Pages(isize),
    First,
    Last,
}

/// Where a key goes, in the table as on a page.
fn moved(key: KeyCode, control: bool) -> Option<Move> {
    Some(match key {
        KeyCode::Up | KeyCode::Char('k') => Move::Lines(-1),
        KeyCode::Down | KeyCode::Char('j') => Move::Lines(1),
        KeyCode::PageUp => Move::Pages(-1),
        KeyCode::PageDown => Move::Pages(1),
        KeyCode::Char('b') if control => Move::Pages(-1),
        KeyCode::Char('f') if control => Move::Pages(1),
        KeyCode::Home => Move::First,
        KeyCode::End => Move::Last,
        _ => return None,
    })
}

fn help() -> String {
    let mut text = String::from(
        "cofferdam top\n\n\
         Up, Down, j, k       select a pod\n\
         PageUp, PageDown     a screen up, a screen down\n\
         Home, End            the first pod, the last pod\n\
         Enter                explain the selected pod: what is enforced on it\n\
         /                    filter by a text in name, id, class or version; Esc shows all\n\
         s                    sort by the next column; by letter:\n",
    );
    for (letter, sort) in SORTS {
        text.push_str(&format!("    {letter}                {}\n", sort.name()));
    }
    text.push_str(
        "r                    reverse the order\n\
         +, -                 look less often, more often\n\
         Space                pause\n\
         g, F5                look now\n\
         ?, h, F1             this page\n\
         q, Ctrl-C            quit\n\n\
         ISOL: what all containers of the pod have\n",
    );
    for (letter, what) in LEGEND {
        text.push_str(&format!("    {letter}  {what}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
