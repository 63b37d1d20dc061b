//! `containerd-shim-cofferdam-v1`: the shim that containerd starts for a pod.

fn main() {
    let args: Vec<_> = std::env::args_os().collect();
    std::process::exit(cofferdam::bootstrap::run(&args));
}
