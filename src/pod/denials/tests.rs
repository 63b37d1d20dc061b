use super::*;

#[test]
fn tokens_are_taken_and_come_back() {
    let mut bucket = TokenBucket::new(Rate {
        burst: 2.0,
        per_second: 1000.0,
    });
    assert!(bucket.take().is_ok() && bucket.take().is_ok());
    let wait = bucket.take().unwrap_err();
    assert!(wait <= Duration::from_millis(1));
    std::thread::sleep(Duration::from_millis(5));
    assert!(bucket.take().is_ok());
}

#[test]
fn arguments_are_named() {
    assert_eq!(flags(0x1002_0000), "CLONE_NEWNS|CLONE_NEWUSER");
    assert_eq!(flags(0x11), "0x11");
    let me = std::process::id();
    let v4 = [2u8, 0, 0, 80, 10, 0, 0, 1];
    assert_eq!(address(me, v4.as_ptr() as u64, 8), "10.0.0.1:80");
    let unix = b"\x01\x00/run/x\x00junk";
    assert_eq!(address(me, unix.as_ptr() as u64, 13), "/run/x");
}
