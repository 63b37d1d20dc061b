//! From a number to a spec: a usual one, with a few fields that are not.

use serde_json::{Value, json};

use super::fields::FIELDS;

/// Numbers that follow from one: `splitmix64`.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// One in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Some of them, in their order.
    pub fn some<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        let chance = 2 + self.below(3);
        all.iter()
            .filter(|_| self.one_in(chance))
            .cloned()
            .collect()
    }
}

/// The program says what it sees, each part under a heading of its own.
const PROBE: &str = r#"
echo "=pwd"; pwd
echo "=env"; xargs -0 -n1 < /proc/self/environ | grep -v '^SHLVL='
echo "=status"; grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp|Sig|Cpus_allowed_list)' /proc/self/status | grep -v -E '^(SigQ|Seccomp_filters)'
echo "=limits"; tail -n +2 /proc/self/limits | grep -v -E 'pending|processes'
echo "=mounts"; cat /proc/self/mountinfo
echo "=cgroup"; cat /proc/self/cgroup
echo "=names"; hostname; cat /proc/sys/kernel/domainname; uname -m
echo "=maps"; cat /proc/self/uid_map /proc/self/gid_map
echo "=oom"; cat /proc/self/oom_score_adj
echo "=dev"; ls -lnA /dev | sed -E 's/ [A-Z][a-z][a-z] .*[0-9][0-9]:[0-9][0-9] / /'
echo "=time"; cat /proc/self/timens_offsets
echo "=sysctl"; for k in net/ipv4/ip_forward net/ipv4/ip_unprivileged_port_start net/core/somaxconn kernel/msgmax kernel/shm_rmid_forced; do cat /proc/sys/$k; done 2>&1
echo "=nice"; cut -d' ' -f18,19,41 /proc/self/stat
echo "=links"; ls -l /proc/self/fd | sed 's/.* //' | sed -E 's/:\[[0-9]+\]//; s/^[0-9]+$//' | grep -v '^/proc'
"#;

/// What is usual.
fn base() -> Value {
    let caps = json!([
        "CAP_AUDIT_WRITE",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_CHOWN"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": ["sh", "-c", PROBE], "env": ["PATH=/bin", "TERM=xterm"], "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "hostname": "differ",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// So that the first numbers, which are all that a short run tries, are of all fields: a prime that divides no number of pairs.
const STRIDE: u64 = 1009;

/// The spec of a number: every pair of fields first, each once; beyond these, some at random.
pub fn numbered(number: u64) -> Value {
    let mut random = Random::new(number);
    let mut spec = base();
    let fields = FIELDS.len() as u64;
    let pairs = fields * fields;
    let mut change = |index: u64| FIELDS[usize::try_from(index).unwrap()](&mut random, &mut spec);
    if number < pairs {
        let pair = number * STRIDE % pairs;
        change(pair / fields);
        change(pair % fields);
        return spec;
    }
    let mut random = Random::new(!number);
    for _ in 0..=random.below(5) {
        FIELDS[random.below(FIELDS.len())](&mut random, &mut spec);
    }
    spec
}
