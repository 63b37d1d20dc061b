//! `make run`: pods in each isolation class on a private containerd, asked for as a kubelet does, looked at with `cofferdam`,
//! and removed. With a directory as its argument it also draws what it printed, for the documentation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]
#![allow(dead_code)] // the tests' support is more than this needs

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::cri::{self, Client};
use support::place::program;
use support::{BUSYBOX, Daemon, NGINX, Output, Release, Setup, wait_until};

/// Characters of a line in a picture.
const COLUMNS: usize = 118;

fn main() {
    let pictures = std::env::args().nth(1).map(PathBuf::from);
    println!("starting a private containerd");
    let daemon = Daemon::start(
        Release::V2,
        Setup {
            cri: true,
            ..Setup::default()
        },
    );
    daemon.import("nginx");
    let client = Client::connect(&daemon);
    let mut pods = Vec::new();
    for class in ["cofferdam", "cofferdam-hardened", "cofferdam-untrusted"] {
        let config = cri::pod_config(&daemon, class);
        let pod = client.run_pod(&config, class).unwrap();
        daemon.remember(&pod);
        let start = |container: &cri::ContainerConfig| {
            let id = client.create(&pod, container, &config).unwrap();
            client.start(&id).unwrap();
            id
        };
        start(&cri::container_config("nginx", NGINX, &[]));
        let sidecar = start(&cri::container_config(
            "sidecar",
            BUSYBOX,
            &["sleep", "1000"],
        ));
        let ip = client.pod_ip(&pod).unwrap();
        let url = format!("http://{ip}/");
        let page = || Output::of(Command::new("curl").args(["-s", "-m", "5", &url])).stdout;
        wait_until("nginx serves", Duration::from_secs(30), || {
            page().contains("Served from a pod in Cofferdam")
        });
        println!("RuntimeClass {class}: {url} says {:?}", page().trim());
        // Something for the counters.
        let script = "mount -t tmpfs none /tmp; unshare -U true; chroot / true";
        client.exec(&sidecar, &["sh", "-c", script], 20).unwrap();
        pods.push((pod, sidecar));
    }
    for (name, args) in [
        ("top", vec!["top", "--sort", "denials"]),
        ("explain", vec!["explain", &pods[2].1]),
    ] {
        let out = Output::of(Command::new(program()).args(&args));
        let shown = if name == "explain" {
            "explain SIDECAR"
        } else {
            "top --sort denials"
        };
        let text = format!("$ cofferdam {shown}\n{}", out.stdout);
        println!("\n{text}");
        if let Some(directory) = &pictures {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::write(directory.join(format!("{name}.svg")), draw(&text)).unwrap();
        }
    }
    for (pod, _) in &pods {
        client.stop_pod(pod).unwrap();
        client.remove_pod(pod).unwrap();
    }
    drop(client);
    drop(daemon);
    support::clean_up();
    println!("everything is removed");
}

/// A terminal's text as SVG.
fn draw(text: &str) -> String {
    let escape = |s: &str| {
        s.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let lines: Vec<String> = text
        .lines()
        .map(|l| l.chars().take(COLUMNS).collect())
        .collect();
    let longest = lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let (width, height) = (longest * 8 + 24, lines.len() * 17 + 24);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1b1f24\"/>\n"
    );
    for (i, line) in lines.iter().enumerate() {
        let colour = if line.contains("MISSING") {
            "#ff7b72"
        } else if line.contains("tightened") {
            "#7ee787"
        } else if line.contains("not shown") {
            "#d2a8ff"
        } else if line.starts_with('$') {
            "#79c0ff"
        } else {
            "#e6edf3"
        };
        out += &format!(
            "<text x=\"12\" y=\"{}\" fill=\"{colour}\" xml:space=\"preserve\">{}</text>\n",
            (i + 1) * 17 + 8,
            escape(line)
        );
    }
    out + "</svg>\n"
}
