//! `update`.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::args::UpdateArgs;
use super::store::{Status, Store};
use super::{Error, Result};
use crate::oci;

pub(super) fn update(store: &Store, args: &UpdateArgs) -> Result<()> {
    let entry = store.load(&args.id)?;
    if matches!(entry.status(), Status::Stopped | Status::Creating) {
        let status = entry.status().name();
        return Err(Error::Other(format!("cannot update a {status} container")));
    }
    let resources = match &args.resources {
        Some(path) => read_resources(path)?,
        None => flags(args),
    };
    let resources = oci::parse_resources(resources.to_string().as_bytes())?;
    oci::check_resources(&resources)?;
    let cgroup = entry.own_cgroup()?;
    cgroup.update(&entry.profile()?.judge_update(resources)?)?;
    let schemata = [&args.l3_cache_schema, &args.mem_bw_schema];
    let schemata: Vec<&str> = schemata.into_iter().flatten().map(String::as_str).collect();
    if args.resources.is_some() || schemata.is_empty() {
        return Ok(());
    }
    Ok(cgroup.update_resctrl(&schemata)?)
}

fn read_resources(path: &Path) -> Result<Value> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(Error::io("read standard input"))?;
    } else {
        text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
    }
    serde_json::from_str(&text).map_err(|e| Error::Other(format!("{}: {e}", path.display())))
}

/// The flags as `linux.resources`; what is not given stays as it is.
fn flags(a: &UpdateArgs) -> Value {
    fn without_nulls(value: Value) -> Value {
        let Value::Object(map) = value else {
            return value;
        };
        let map: serde_json::Map<_, _> = map
            .into_iter()
            .map(|(k, v)| (k, without_nulls(v)))
            .filter(|(_, v)| !v.is_null() && v.as_object().is_none_or(|o| !o.is_empty()))
            .collect();
        Value::Object(map)
    }
    without_nulls(json!({
        "memory": {
            "limit": a.memory, "swap": a.memory_swap, "reservation": a.memory_reservation,
            "kernel": a.kernel_memory, "kernelTCP": a.kernel_memory_tcp
        },
        "cpu": {
            "shares": a.cpu_shares, "quota": a.cpu_quota, "period": a.cpu_period, "burst": a.cpu_burst, "idle": a.cpu_idle,
            "realtimePeriod": a.cpu_rt_period, "realtimeRuntime": a.cpu_rt_runtime,
            "cpus": a.cpuset_cpus, "mems": a.cpuset_mems
        },
        "pids": { "limit": a.pids_limit },
        "blockIO": { "weight": a.blkio_weight }
    }))
}
