//! Specs that were changed at random: each gives a plan, or an error that names a field.

use serde_json::{Value, json};

/// What containerd's CRI plugin sends for an ordinary container.
fn config() -> Value {
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "user": { "uid": 1000, "gid": 1000, "additionalGids": [2000] },
            "args": ["sh", "-c", "true"],
            "env": ["PATH=/usr/bin:/bin", "A=b"],
            "cwd": "/",
            "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
            "noNewPrivileges": true,
            "oomScoreAdj": 900,
            "scheduler": { "policy": "SCHED_OTHER", "nice": 1 },
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 4 }
        },
        "root": { "path": "/" },
        "hostname": "name",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"] },
            { "destination": "/volume", "type": "bind", "source": "/tmp", "options": ["rbind", "rshared", "ro"] }
        ],
        "hooks": { "createRuntime": [{ "path": "/bin/true", "args": ["true"], "timeout": 3 }] },
        "annotations": { "a": "b" },
        "linux": {
            "resources": { "memory": { "limit": 1_000_000, "swap": 1_000_000 }, "cpu": { "shares": 10, "cpus": "0" }, "pids": { "limit": 5 } },
            "cgroupsPath": "/a/b",
            "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }, { "type": "cgroup" }],
            "devices": [{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438 }],
            "sysctl": { "net.ipv4.ip_forward": "1" },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }] }]
            },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "rootfsPropagation": "rslave"
        }
    })
}

fn plan(json: &Value) -> std::result::Result<(), String> {
    let text = serde_json::to_vec(json).unwrap();
    super::super::fuzz::plan(&text).map_err(|e| e.to_string())
}

/// A small generator of numbers: the same ones every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(k, v)| pointers(v, &format!("{at}/{}", k.replace('/', "~1")), out)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

#[test]
fn a_mutated_spec_gives_a_plan_or_an_error_that_names_a_field() {
    assert_eq!(plan(&config()), Ok(()));
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(-9_000_000_000_i64),
        json!(u64::MAX),
        json!(1.5),
        json!(""),
        json!("a\u{0}b"),
        json!("../../.."),
        json!("/"),
        json!("x".repeat(5000)),
        json!([]),
        json!({}),
        json!([null]),
        json!(["a", "a"]),
        json!("rbind"),
        json!("user"),
        json!({ "a": {} }),
    ];
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut plans, mut errors) = (0, 0);
    for _ in 0..6000 {
        let mut json = config();
        for _ in 0..=numbers.below(2) {
            let mut all = Vec::new();
            pointers(&json, "", &mut all);
            let at = &all[1 + numbers.below(all.len() - 1)];
            let value = values[numbers.below(values.len())].clone();
            if let Some(place) = json.pointer_mut(at) {
                *place = value;
            }
        }
        match plan(&json) {
            Ok(()) => plans += 1,
            Err(text) => {
                errors += 1;
                let named = text.contains(": ") && !text.starts_with(": ");
                assert!(named && text.len() < 20_000, "{text:?} from {json}");
            }
        }
    }
    assert!(
        plans > 300 && errors > 300,
        "{plans} plans, {errors} errors: the mutations say nothing"
    );
}
