//! Standard streams: amounts, slow and absent readers, descendants that hold them, files and logger programs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::spec::Bundle;
use crate::support::{BUSYBOX, Daemon, Output, RUNTIME, wait_until};

crate::cases!(ctr: [
    much_output,
    much_output_of_an_exec,
    short_outputs_are_whole,
    a_background_child_does_not_hold_an_exec,
    a_log_file,
    a_logger_program,
    a_logger_that_is_not_there,
    exec_input_to_its_end,
]);

/// SHA-256 of 64 MiB of what `sh -c SCRIPT` prints, and of what came out.
fn digest_of(mut command: Command) -> (String, u64) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut sum = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut to_sum = sum.stdin.take().unwrap();
    let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
    loop {
        let n = out.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        to_sum.write_all(&buffer[..n]).unwrap();
        total += n as u64;
    }
    drop(to_sum);
    assert!(child.wait().unwrap().success());
    (
        Output::wait(sum, "sha256sum").stdout[..64].to_owned(),
        total,
    )
}

/// 64 MiB that differ from one another everywhere.
const PRINT_64_MIB: &str =
    "i=0; while [ $i -lt 64 ]; do seq -w $i 1000000 | head -c 1048576; i=$((i+1)); done";

fn expected() -> (String, u64) {
    let mut local = Command::new(crate::support::test_directory().join("rootfs/bin/busybox"));
    local.args([
        "sh",
        "-c",
        &PRINT_64_MIB
            .replace("seq ", "busybox seq ")
            .replace("head ", "busybox head "),
    ]);
    digest_of(local)
}

fn much_output(d: &mut Daemon) {
    let expected = expected();
    assert_eq!(expected.1, 64 << 20);
    assert_eq!(
        digest_of(d.run_command(&["--rm"], "much", &["sh", "-c", PRINT_64_MIB])),
        expected
    );
}

fn much_output_of_an_exec(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sleep", "1000"]);
    assert_eq!(
        digest_of(d.exec_command(&[], "box", "much", &["sh", "-c", PRINT_64_MIB])),
        expected()
    );
    d.remove("box");
}

fn short_outputs_are_whole(d: &mut Daemon) {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo $i; echo e$i >&2; done";
    let expected = (
        String::from("1\n2\n3\n4\n5\n6\n7\n8\n9\n"),
        String::from("e1\ne2\ne3\ne4\ne5\ne6\ne7\ne8\ne9\n"),
    );
    for i in 0..10 {
        let out = d
            .run_container(&[], &format!("short{i}"), &["sh", "-c", script])
            .ok();
        assert_eq!((out.stdout, out.stderr), expected);
    }
    d.run_detached(&[], "box", &["sleep", "1000"]);
    for i in 0..30 {
        let out = d
            .exec(&[], "box", &format!("short{i}"), &["sh", "-c", script])
            .ok();
        assert_eq!((out.stdout, out.stderr), expected);
    }
    d.remove("box");
}

fn a_background_child_does_not_hold_an_exec(d: &mut Daemon) {
    d.run_detached(&[], "box", &["sleep", "1000"]);
    let begun = Instant::now();
    let out = d
        .exec(&[], "box", "e", &["sh", "-c", "echo before; sleep 900 &"])
        .ok();
    assert_eq!(out.stdout, "before\n");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    d.remove("box");
}

fn log_uri(d: &Daemon, uri: &str, id: &str, command: &[&str]) -> Output {
    let mut args = vec![
        "run",
        "--detach",
        "--runtime",
        RUNTIME,
        "--log-uri",
        uri,
        BUSYBOX,
        id,
    ];
    args.extend(command);
    d.remember(id);
    d.ctr(args)
}

fn stopped(d: &Daemon, id: &str) {
    wait_until("the task stops", Duration::from_secs(5), || {
        d.task_status(id).as_deref() == Some("STOPPED")
    });
}

fn a_log_file(d: &mut Daemon) {
    let log = d.dir().join("logs/new/out.log");
    log_uri(
        d,
        &format!("file://{}", log.display()),
        "logged",
        &["sh", "-c", "echo out; echo err >&2; echo more"],
    )
    .ok();
    stopped(d, "logged");
    assert_eq!(fs::read_to_string(&log).unwrap(), "out\nerr\nmore\n");
    d.remove("logged");
}

fn a_logger_program(d: &mut Daemon) {
    let (logger, log) = (d.dir().join("logger"), d.dir().join("logged"));
    // Reads both streams to their end, and says on 5 that it is ready.
    let script = format!(
        "#!/bin/bash\nexec 5>&-\n{{ sed 's/^/out: /' <&3 & sed 's/^/err: /' <&4 & wait; echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $*\"; }} > {0}.new\nmv {0}.new {0}\n",
        log.display()
    );
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}?key=value", logger.display());
    log_uri(d, &uri, "logged", &["sh", "-c", "echo one; echo two >&2"]).ok();
    stopped(d, "logged");
    d.remove("logged");
    wait_until("the logger finishes", Duration::from_secs(5), || {
        log.exists()
    });
    let text = fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            format!("logged {} key value", d.namespace()).as_str(),
            "err: two",
            "out: one"
        ]
        .map(|l| l)
        .iter()
        .copied()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );
}

fn a_logger_that_is_not_there(d: &mut Daemon) {
    let out = log_uri(d, "binary:///no/such/logger", "x", &["true"]);
    assert!(
        out.status != 0
            && out
                .stderr
                .contains("stdout \"binary:///no/such/logger\": No such file or directory"),
        "{out:?}"
    );
    d.remove("x");
}

fn exec_input_to_its_end(d: &mut Daemon) {
    let b = Bundle::new(d, "box", &["sleep", "1000"]);
    b.run_detached();
    // Not 0: ctr forgets CloseIO where its own input ends before the exec is made.
    for (i, size) in [1, 70_000, 1_000_000].into_iter().enumerate() {
        let mut child = d
            .exec_command(&[], "box", &format!("e{i}"), &["wc", "-c"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(&vec![b'x'; size])
            .unwrap();
        assert_eq!(
            Output::wait(child, "wc").ok().stdout.trim(),
            size.to_string()
        );
    }
    d.remove("box");
}
