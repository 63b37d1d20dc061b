//! Programs that run inside of containers: the tests themselves, under another name.

#![allow(unsafe_code)]

use std::os::unix::net::UnixDatagram;

use nix::libc;

/// Runs the program whose name this process has, if it is one of these.
pub fn run() -> bool {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    match program.rsplit('/').next() {
        Some("edge-notify") => {
            let manager = std::env::var("NOTIFY_SOCKET").unwrap();
            let socket = UnixDatagram::unbound().unwrap();
            // What is the node's to say is not passed on.
            socket
                .send_to(b"READY=1\nMAINPID=1\nSTATUS=up", manager)
                .unwrap();
        }
        Some("edge-keys") if args.next().as_deref() == Some("add") => {
            add_key();
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1000));
            }
        }
        Some("edge-keys") => println!("{}", if find_key() { "found" } else { "not found" }),
        _ => return false,
    }
    true
}

const SESSION: i64 = -3;

fn add_key() {
    // SAFETY: the strings end with NUL, and the payload has one byte.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            c"cofferdam-edge".as_ptr(),
            c"x".as_ptr(),
            1,
            SESSION,
        )
    };
    assert!(key > 0);
}

fn find_key() -> bool {
    // SAFETY: the strings end with NUL; 10 is KEYCTL_SEARCH.
    let key = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            10,
            SESSION,
            c"user".as_ptr(),
            c"cofferdam-edge".as_ptr(),
            0,
        )
    };
    key > 0
}
