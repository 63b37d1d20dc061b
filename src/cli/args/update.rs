//! Arguments of `update`.

use std::path::PathBuf;

use clap::Args;

use super::values::size;

#[derive(Debug, Args)]
pub(in super::super) struct UpdateArgs {
    /// Container id
    pub id: String,
    /// A file with linux.resources, or - for standard input; all other options are ignored then
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Bytes, also as in 64M; -1 is no limit
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    pub memory: Option<i64>,
    /// Bytes, memory and swap together
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    pub memory_swap: Option<i64>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    pub memory_reservation: Option<i64>,
    /// Bytes. Kernels have no such limit any more: refused unless --memory covers it
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    pub kernel_memory: Option<i64>,
    /// Bytes, on cgroup v1
    #[arg(long, allow_hyphen_values = true, value_parser = size)]
    pub kernel_memory_tcp: Option<i64>,
    /// Relative weight
    #[arg(long, alias = "cpu-share")]
    pub cpu_shares: Option<u64>,
    /// Microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Microseconds in a period; -1 is no limit
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds that may be saved up for a burst
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// Microseconds, on cgroup v1
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds in a real-time period, on cgroup v1
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1 for what runs only where nobody else wants the processor, 0 for the usual
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    /// A list of processors
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// A list of memory nodes
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Number of processes; -1 is no limit, and 0 changes nothing
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Relative weight, 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// A schema of the L3 cache, for a container with linux.intelRdt
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    /// A schema of the memory's bandwidth, for a container with linux.intelRdt
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
}
