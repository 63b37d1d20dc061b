//! Any `config.json` gives a plan or an error that names something, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|config: &[u8]| {
    if let Err(e) = cofferdam::executor::fuzz::plan(config) {
        assert!(e.to_string().contains(": "), "{e}");
    }
});
