//! Whatever a spec says, nothing that the executor would do was not judged, and nothing of it is beyond the class.
#![no_main]

libfuzzer_sys::fuzz_target!(|choices: &[u8]| {
    cofferdam::isolation::property::check(choices);
});
