//! Any `linux.seccomp` gives an error, or a program that the kernel takes.
#![no_main]

libfuzzer_sys::fuzz_target!(|filter: &[u8]| {
    cofferdam::executor::fuzz::compile(filter).ok();
});
