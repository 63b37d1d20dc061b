use super::*;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

/// A terminal that nobody has open, and then somebody again: the event loop goes on, and so does the output.
#[test]
fn a_terminal_is_opened_again() {
    let dir = std::env::temp_dir().join(format!("cdtest-reopened-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("out");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let pty = nix::pty::openpty(None, None).unwrap();
    let name = nix::unistd::ttyname(&pty.slave).unwrap();
    let open = || std::fs::OpenOptions::new().write(true).open(&name).unwrap();
    runtime.block_on(async {
        let (phase, phases) = watch::channel(Phase::Running);
        let fifo = Arc::new(Fifo::open(&path).unwrap());
        let mut output = std::fs::OpenOptions::new();
        let mut output = output
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let master = Arc::new(non_blocking(pty.master).unwrap());
        let relay = tokio::spawn(terminal_output(master, Some(Sink::Fifo(fifo)), phases));
        sleep(Duration::from_millis(20)).await;
        let mut said = String::new();
        drop(pty.slave);
        for word in ["one", "two", "three"] {
            // Closed and opened again before the relay looks, and the other way round.
            let mut slave = open();
            sleep(Duration::from_millis(20)).await;
            write!(slave, "{word} ").unwrap();
            let begun = std::time::Instant::now();
            sleep(Duration::from_millis(150)).await;
            assert!(
                begun.elapsed() < Duration::from_secs(2),
                "the event loop stood still"
            );
            output.read_to_string(&mut said).ok();
            drop(slave);
            if word == "two" {
                sleep(Duration::from_millis(80)).await;
            }
        }
        assert_eq!(said, "one two three ");
        phase.send_replace(Phase::Exited);
        timeout(Duration::from_secs(5), relay)
            .await
            .unwrap()
            .unwrap();
    });
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Bursts of many sizes, from a writer and to a reader that both pause at odd moments: whatever the order in which the two
/// ends become ready, every byte arrives.
#[test]
fn no_wake_up_is_lost() {
    const TOTAL: usize = 8 << 20;
    let dir = std::env::temp_dir().join(format!("cdtest-relay-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (_phase, phases) = watch::channel(Phase::Running);
        let relays = (0..4u64).map(|n| {
            let path = dir.join(n.to_string());
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let fifo = Arc::new(Fifo::open(&path).unwrap());
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let mut input = std::fs::File::from(writer);
            let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            std::thread::spawn(move || {
                let buffer = vec![b'x'; 1 << 17];
                let mut left = TOTAL;
                while left > 0 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let size = left.min(1 + usize::try_from(state % (1 << (10 + 2 * n))).unwrap());
                    input.write_all(&buffer[..size]).unwrap();
                    left -= size;
                    if state % 5 == 0 {
                        std::thread::sleep(Duration::from_micros(state % 60));
                    }
                }
            });
            let reading = std::thread::spawn(move || {
                let mut output = std::fs::File::open(&path).unwrap();
                let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
                while total < TOTAL {
                    let size = 1 + (total * 7919) % buffer.len();
                    let n = output.read(&mut buffer[..size]).unwrap();
                    assert!(n > 0, "the end came after {total} bytes");
                    total += n;
                    if total % 3 == 0 {
                        std::thread::sleep(Duration::from_micros((total % 50) as u64));
                    }
                }
                total
            });
            let source = non_blocking(reader).unwrap();
            let relay = tokio::spawn(pipe(source, fifo, phases.clone()));
            (relay, reading)
        });
        for (relay, reading) in relays.collect::<Vec<_>>() {
            timeout(Duration::from_secs(60), relay)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(reading.join().unwrap(), TOTAL);
        }
    });
    std::fs::remove_dir_all(&dir).unwrap();
}
