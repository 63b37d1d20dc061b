//! Sessions, recorded as text beside this file: what is on the screen after each key. `COFFERDAM_WRITE=1` records them anew.

use super::*;
use crate::sys::time::seconds_since_1970;

const NAMES: [&str; 30] = [
    "shop/web-6d4b75cb6d-x2k9p",
    "shop/web-6d4b75cb6d-7hq4m",
    "shop/checkout-7f9c8d5b44-bq8zl",
    "shop/checkout-7f9c8d5b44-wm2xx",
    "shop/db-0",
    "shop/db-1",
    "shop/cache-59d8c9f7d8-p4r7s",
    "shop/mail-5c6f8f7b9-kd2vh",
    "build/runner-1",
    "build/runner-2",
    "build/runner-3",
    "build/runner-4",
    "build/cache-0",
    "agents/sandbox-a-8k2lm",
    "agents/sandbox-b-zz91x",
    "agents/sandbox-c-1m0pq",
    "agents/tools-6b8c5f4d7d-9xk2v",
    "monitoring/node-exporter-x8f2d",
    "monitoring/prometheus-0",
    "monitoring/alertmanager-0",
    "kube-system/coredns-5dd5756b68-abcde",
    "kube-system/coredns-5dd5756b68-fghij",
    "test/a",
    "test/b",
    "test/c",
    "test/d",
    "test/e",
    "hello",
    "0123456789abc",
    "staging/a-deployment-with-quite-a-long-name-5f7d9c6b8-zx81q",
];

fn rows() -> Vec<Row> {
    let row = |(i, name): (usize, &&str)| {
        let n = i as u64;
        Row {
            pid: 1000 + u32::try_from(i).unwrap(),
            title: (*name).into(),
            id: format!("{i:013x}"),
            class: ["standard", "hardened", "untrusted"][i % 3].into(),
            isolation: ["-----", "-CNSL", "UCNSL"][i % 3].into(),
            containers: 2 + i % 4,
            memory: (n * n + 3) << 20,
            memory_limit: (i % 3 > 0).then_some((n + 1) << 24),
            pids: 2 + n,
            percent: (n * 37 % 100) as f64,
            denials: if i == 13 { 4088 } else { 0 },
            started: seconds_since_1970() - 3600 * (n + 1),
            version: if i == 4 {
                "0.0.9"
            } else {
                env!("CARGO_PKG_VERSION")
            }
            .into(),
            ..Row::default()
        }
    };
    let mut rows: Vec<Row> = NAMES.iter().enumerate().map(row).collect();
    rows.push(Row {
        pid: 4242,
        title: "shim 4242".into(),
        error: Some("does not answer within 900 ms".into()),
        ..Row::default()
    });
    rows
}

fn screen(width: usize, height: usize) -> Screen {
    let mut screen = Screen::new(Sort::Pod, false, "", Duration::from_secs(1));
    screen.resize(width, height);
    screen.set_rows(rows());
    screen
}

fn press(screen: &mut Screen, keys: &[KeyCode]) -> Do {
    let press = |asked, key: &KeyCode| match screen.key(KeyEvent::new(*key, KeyModifiers::NONE)) {
        Do::Nothing => asked,
        other => other,
    };
    keys.iter().fold(Do::Nothing, press)
}

/// The screen as text; a mark before each line that does not look plain.
fn text(screen: &mut Screen) -> String {
    let line = |(look, line): (Look, String)| {
        let mark = match look {
            Look::Plain => ' ',
            Look::Head => '#',
            Look::Selected => '>',
            Look::Bad => '!',
            Look::Hint => '.',
        };
        format!("{mark}{}\n", line.trim_end())
    };
    screen.lines().into_iter().map(line).collect()
}

/// Goes through a session and compares it with what was recorded.
fn session(width: usize, height: usize, recorded: &str) {
    use KeyCode::{Backspace, Char, Down, End, Enter, Esc, F, Home, Insert, PageDown, Tab, Up};
    let mut screen = screen(width, height);
    let typed = |text: &str| text.chars().map(Char).collect::<Vec<_>>();
    let steps: Vec<(&str, Vec<KeyCode>)> = vec![
        ("nothing", vec![]),
        (
            "unknown keys",
            vec![Tab, Insert, F(9), Char('Z'), Char('%')],
        ),
        ("Down Down", vec![Down, Down]),
        ("PageDown", vec![PageDown]),
        ("End", vec![End]),
        ("Up", vec![Up]),
        ("Home", vec![Home]),
        ("m: by memory", vec![Char('m')]),
        ("r: reverse", vec![Char('r')]),
        ("d: by denials", vec![Char('r'), Char('d')]),
        ("/ shop", [vec![Char('/')], typed("shop")].concat()),
        ("Backspace twice, Enter", vec![Backspace, Backspace, Enter]),
        (
            "a filter that nothing has",
            [vec![Char('/')], typed("zzz"), vec![Enter]].concat(),
        ),
        ("Esc", vec![Esc]),
        ("Space, + +", vec![Char(' '), Char('+'), Char('+')]),
        ("? for help", vec![Char('?')]),
        ("down the page", vec![Down, Down, Down]),
        ("q: back", vec![Char('q')]),
    ];
    let mut all = String::new();
    for (name, keys) in steps {
        assert_eq!(press(&mut screen, &keys), Do::Nothing, "{name}");
        all.push_str(&format!("== {name}\n{}", text(&mut screen)));
    }
    let file = format!("src/cli/top/screen/{width}x{height}.txt");
    if std::env::var_os("COFFERDAM_WRITE").is_some() {
        std::fs::write(&file, &all).unwrap();
    } else {
        assert_eq!(all, recorded, "{file}");
    }
}

#[test]
fn a_session_at_80x24() {
    session(80, 24, include_str!("80x24.txt"));
}

#[test]
fn a_session_at_200x50() {
    session(200, 50, include_str!("200x50.txt"));
}

#[test]
fn enter_explains_and_q_quits() {
    use KeyCode::{Char, Down, Enter, Esc};
    let mut screen = screen(80, 24);
    let pid = |name: &str| rows().iter().find(|r| r.title == name).unwrap().pid;
    // Without a selection the first.
    assert_eq!(
        press(&mut screen, &[Enter]),
        Do::Explain(pid("0123456789abc"))
    );
    assert_eq!(
        press(&mut screen, &[Down, Down, Enter]),
        Do::Explain(pid("agents/sandbox-a-8k2lm"))
    );
    screen.show(Page::new("one\ntwo"));
    assert!(text(&mut screen).starts_with(" one\n two\n"));
    // On a page q goes back, in the table it ends.
    assert_eq!(press(&mut screen, &[Char('q')]), Do::Nothing);
    assert_eq!(press(&mut screen, &[Esc]), Do::Nothing);
    assert_eq!(press(&mut screen, &[Char('q')]), Do::Quit);
    let control_c = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.key(control_c), Do::Quit);
}

#[test]
fn a_pod_stays_selected_while_others_come_and_go() {
    use KeyCode::{Char, Down};
    let mut screen = screen(80, 24);
    press(&mut screen, &[Char('m'), Down, Down, Down]);
    let selected = |screen: &mut Screen| {
        let lines = screen.lines();
        let line = lines.iter().find(|(look, _)| *look == Look::Selected);
        line.map(|(_, line)| line.split(' ').next().unwrap().to_owned())
    };
    let before = selected(&mut screen).unwrap();
    let mut rows = rows();
    rows.reverse();
    rows.truncate(8);
    screen.set_rows(rows);
    assert_eq!(selected(&mut screen), Some(before));
    screen.set_rows(Vec::new());
    assert_eq!(selected(&mut screen), None);
    press(&mut screen, &[Down, KeyCode::PageDown, KeyCode::End]);
    assert!(text(&mut screen).contains("no pods are managed"));
}

#[test]
fn it_fits_every_size() {
    for width in (1..220).step_by(7) {
        for height in 1..60 {
            let mut screen = screen(width, height);
            for keys in [&[][..], &[KeyCode::End], &[KeyCode::Char('?')]] {
                press(&mut screen, keys);
                let lines = screen.lines();
                assert!(lines.len() <= height, "{width}x{height}");
                let longest = lines.iter().map(|(_, l)| l.chars().count()).max();
                assert!(longest.unwrap() <= width, "{width}x{height}");
            }
        }
    }
}

#[test]
fn what_others_chose_does_not_command_the_terminal() {
    let mut screen = screen(80, 24);
    screen.set_rows(vec![Row {
        title: "\u{1b}]0;x\u{7}".into(),
        class: "c\u{1b}[2J".into(),
        ..Row::default()
    }]);
    screen.filter.clear();
    assert!(!text(&mut screen).contains('\u{1b}'));
    screen.show(Page::new("a\u{1b}[2Jb"));
    assert!(!text(&mut screen).contains('\u{1b}'));
}
