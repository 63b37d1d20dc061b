//! `cofferdam`: the OCI runtime command line.

fn main() {
    std::process::exit(cofferdam::cli::run(std::env::args_os()));
}
