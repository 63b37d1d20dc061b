use super::parse_signal;

#[test]
fn signals_by_name_and_number() {
    for (text, number) in [
        ("9", 9),
        ("KILL", 9),
        ("SIGTERM", 15),
        ("sigusr1", 10),
        ("SIGRTMIN+2", 36),
        ("64", 64),
        ("0", 0),
    ] {
        assert_eq!(parse_signal(text).unwrap(), number, "{text}");
    }
    for text in ["65", "-1", "NOSUCH", "", "SIGRTMIN+99"] {
        assert!(parse_signal(text).is_err(), "{text}");
    }
}
