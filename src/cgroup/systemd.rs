//! The systemd cgroup driver: a container whose `linux.cgroupsPath` is `slice:prefix:name` lives in a transient scope, so
//! that systemd knows of it, accounts for it and leaves its limits alone on a reload.
//!
//! A connection to the system bus lasts for one operation: an idle shim has none. (systemd's own socket would do without a
//! bus daemon, but zbus panics at the senders' names there.) What the units' properties cannot express is written to the groups afterwards, which
//! `Delegate=` allows.
//!
//! Containers of ordinary users belong to the user's own systemd, below the groups that the node's has delegated to it.
//!
//! Sources: org.freedesktop.systemd1(5), systemd.scope(5), systemd.resource-control(5),
//! <https://systemd.io/CGROUP_DELEGATION>.

use std::path::PathBuf;
use std::time::Duration;

use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};
use zbus::{MatchRule, MessageStream, connection, message};

use super::devices::Rules;
use super::path::Unit;
use super::settings::Setting;
use super::{Error, Result};
use crate::sys::creds;

/// D-Bus specification, "Well-known Message Bus Instances". `DBUS_SYSTEM_BUS_ADDRESS` is not looked at: what containerd
/// happens to have in its environment must not matter.
const SOCKET: &str = "/run/dbus/system_bus_socket";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// How long a job of systemd may take before we say that it hangs.
const WITHIN: Duration = Duration::from_secs(30);

/// Which systemd makes a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    /// The node's.
    Node,
    /// An ordinary user's own, `systemd --user`.
    User,
}

impl Manager {
    /// The one that this process may ask.
    pub(crate) fn of_caller() -> Self {
        if creds::is_root_of_machine() {
            Self::Node
        } else {
            Self::User
        }
    }

    /// Where units go whose slice is not given.
    pub(crate) fn default_slice(self) -> &'static str {
        match self {
            Self::Node => "system.slice",
            Self::User => "user.slice",
        }
    }

    /// Its bus, as D-Bus addresses it, and as whom to speak there.
    fn bus(self) -> (String, Option<u32>) {
        if self == Self::Node {
            return (format!("unix:path={SOCKET}"), None);
        }
        let uid = uid_outside();
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = set("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
            let runtime = set("XDG_RUNTIME_DIR");
            let runtime = runtime.unwrap_or_else(|| format!("/run/user/{}", uid.unwrap_or(0)));
            format!("unix:path={runtime}/bus")
        });
        (address, uid)
    }

    /// What to do without it.
    fn remedy(self) -> &'static str {
        match self {
            Self::Node => {
                "without systemd use the cgroupfs driver (the kubelet's cgroupDriver, containerd's SystemdCgroup = false)"
            }
            Self::User => {
                "log in through systemd-logind (or `loginctl enable-linger USER`), or use --cgroup-manager cgroupfs"
            }
        }
    }
}

/// This process's user, as its parent's user namespace knows it: the bus compares with what the kernel says there.
fn uid_outside() -> Option<u32> {
    let own = nix::unistd::geteuid().as_raw();
    let map = crate::procfs::read("/proc/self/uid_map").ok()?;
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let (inside, outside, count) = (next()?, next()?, next()?);
        let offset = own.checked_sub(inside).filter(|offset| *offset < count)?;
        outside.checked_add(offset)
    })
}

/// The group that a user's systemd has been given, as `/proc/PID/cgroup` has it.
pub(super) fn group_of_user(unit: &Unit) -> Result<PathBuf> {
    conversation(unit, async |systemd| {
        let answer = systemd.0.call_method(
            Some(SYSTEMD),
            MANAGER,
            Some("org.freedesktop.DBus.Properties"),
            "Get",
            &(INTERFACE, "ControlGroup"),
        );
        let value: OwnedValue = answer.await?.body().deserialize()?;
        let path = String::try_from(value).map_err(zbus::Error::from)?;
        Ok(PathBuf::from(path))
    })
}

/// A property of a unit, and its value.
pub(super) type Property = (&'static str, Value<'static>);

/// The properties that say the same as these control files: systemd writes the files again on a reload.
pub(super) fn properties(settings: &[Setting]) -> Vec<Property> {
    let mut out: Vec<Property> = Vec::new();
    let period = settings
        .iter()
        .find(|s| s.file == "cpu.cfs_period_us")
        .and_then(|s| s.value.parse().ok());
    for s in settings {
        let v = s.value.as_str();
        let mut add = |name, value: Option<u64>| {
            if let Some(value) = value {
                out.push((name, Value::U64(value)));
            }
        };
        match s.file.as_str() {
            "memory.max" => add("MemoryMax", limit(v)),
            "memory.high" => add("MemoryHigh", limit(v)),
            "memory.low" => add("MemoryLow", limit(v)),
            "memory.min" => add("MemoryMin", limit(v)),
            "memory.swap.max" => add("MemorySwapMax", limit(v)),
            "memory.limit_in_bytes" => add("MemoryLimit", limit(v)),
            "pids.max" => add("TasksMax", limit(v)),
            "cpu.weight" => add("CPUWeight", limit(v)),
            "cpu.shares" => add("CPUShares", limit(v)),
            "io.weight" => add("IOWeight", limit(v)),
            "blkio.weight" => add("BlockIOWeight", limit(v)),
            "cpu.max" => {
                let mut words = v.split_whitespace();
                let quota = words.next().unwrap_or("max");
                let period = words.next().and_then(|p| p.parse().ok());
                add("CPUQuotaPerSecUSec", Some(per_second(quota, period)));
                add("CPUQuotaPeriodUSec", period);
            }
            "cpu.cfs_quota_us" => add("CPUQuotaPerSecUSec", Some(per_second(v, period))),
            "cpuset.cpus" => out.extend(bit_mask(v).map(|m| ("AllowedCPUs", m))),
            "cpuset.mems" => out.extend(bit_mask(v).map(|m| ("AllowedMemoryNodes", m))),
            _ => {}
        }
    }
    out
}

fn limit(value: &str) -> Option<u64> {
    match value {
        "max" | "-1" => Some(u64::MAX),
        _ => value.parse().ok(),
    }
}

/// A quota in microseconds of a period, as microseconds of a second, in the steps of 1 % that systemd keeps.
fn per_second(quota: &str, period: Option<u64>) -> u64 {
    let Some(quota) = limit(quota).filter(|q| *q != u64::MAX) else {
        return u64::MAX;
    };
    let exact = quota.saturating_mul(1_000_000) / period.filter(|p| *p > 0).unwrap_or(100_000);
    exact.next_multiple_of(10_000)
}

/// A list such as `0-2,5` as systemd's array of bytes, the lowest bit of the first byte first.
fn bit_mask(list: &str) -> Option<Value<'static>> {
    let mut mask = Vec::new();
    for part in list.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        for bit in from..=to.min(8191) {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0u8);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(Value::from(mask))
}

/// Starts the unit: a scope around `pid`, or a slice.
pub(super) fn start(
    unit: &Unit,
    pid: Option<i32>,
    resources: Vec<Property>,
    devices: Option<&Rules>,
) -> Result<()> {
    let mut properties: Vec<Property> = vec![
        (
            "Description",
            Value::from(format!("cofferdam container {}", unit.name)),
        ),
        ("DefaultDependencies", Value::Bool(false)),
        ("MemoryAccounting", Value::Bool(true)),
        ("CPUAccounting", Value::Bool(true)),
        ("IOAccounting", Value::Bool(true)),
        ("TasksAccounting", Value::Bool(true)),
    ];
    match pid {
        Some(pid) => properties.extend([
            ("Slice", Value::from(unit.slice.clone())),
            ("Delegate", Value::Bool(true)),
            ("PIDs", Value::from(vec![pid.cast_unsigned()])),
        ]),
        None => properties.push(("Wants", Value::from(vec![unit.slice.clone()]))),
    }
    properties.extend(resources);
    if let Some(rules) = devices {
        let (policy, allowed) = rules.for_systemd();
        properties.push(("DevicePolicy", Value::from(policy)));
        properties.push(("DeviceAllow", Value::from(allowed)));
    }
    let body = (
        unit.name.as_str(),
        "replace",
        properties,
        Vec::<(String, Vec<Property>)>::new(),
    );
    conversation(unit, async |systemd| {
        let started = systemd.job("StartTransientUnit", &body).await;
        let there_already = matches!(&started, Err(Failure::Refused(name, _))
            if name == "org.freedesktop.systemd1.UnitExists");
        if !there_already {
            return started;
        }
        // One that failed stays until somebody has seen it. One that runs is another container's.
        systemd
            .call("ResetFailedUnit", &(unit.name.as_str(),))
            .await?;
        systemd.job("StartTransientUnit", &body).await
    })
}

/// Puts this process into a scope of its own, which the systemd that has made `unit` makes. It ends with its last process.
pub(super) fn adopt_caller(unit: &Unit) -> Result<()> {
    let pid = std::process::id();
    let properties: Vec<Property> = vec![
        ("Description", Value::from("cofferdam, the command")),
        ("DefaultDependencies", Value::Bool(false)),
        ("Slice", Value::from(unit.manager.default_slice())),
        ("PIDs", Value::from(vec![pid])),
    ];
    let name = format!("cofferdam-command-{pid}.scope");
    let others = Vec::<(String, Vec<Property>)>::new();
    conversation(unit, async |systemd| {
        let body = (name.as_str(), "replace", properties, others);
        systemd.job("StartTransientUnit", &body).await
    })
}

/// Changes properties of a running unit, until it ends.
pub(super) fn update(unit: &Unit, properties: Vec<Property>) -> Result<()> {
    if properties.is_empty() {
        return Ok(());
    }
    let body = (unit.name.as_str(), true, properties);
    conversation(unit, async |systemd| {
        systemd.call("SetUnitProperties", &body).await.map(|_| ())
    })
}

/// Stops the unit and makes systemd forget it. That it is gone already is fine.
pub(super) fn stop(unit: &Unit) -> Result<()> {
    conversation(unit, async |systemd| {
        let gone = |r| match r {
            Err(Failure::Refused(name, _)) if name == "org.freedesktop.systemd1.NoSuchUnit" => {
                Ok(())
            }
            r => r,
        };
        gone(
            systemd
                .job("StopUnit", &(unit.name.as_str(), "replace"))
                .await,
        )?;
        let reset = systemd
            .call("ResetFailedUnit", &(unit.name.as_str(),))
            .await;
        gone(reset.map(|_| ()))
    })
}

/// What can go wrong in a conversation with systemd.
enum Failure {
    /// systemd's answer: the error's name and text.
    Refused(String, String),
    /// Anything else.
    Other(String),
}

impl From<zbus::Error> for Failure {
    fn from(e: zbus::Error) -> Self {
        match e {
            zbus::Error::MethodError(name, text, _) => {
                Self::Refused(name.to_string(), text.unwrap_or_default())
            }
            e => Self::Other(e.to_string()),
        }
    }
}

/// One connection to systemd.
struct Systemd(zbus::Connection);

impl Systemd {
    async fn call<B>(
        &self,
        method: &'static str,
        body: &B,
    ) -> std::result::Result<zbus::Message, Failure>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        Ok(self
            .0
            .call_method(Some(SYSTEMD), MANAGER, Some(INTERFACE), method, body)
            .await?)
    }

    /// A call that starts a job, and the job's end.
    async fn job<B>(&self, method: &'static str, body: &B) -> std::result::Result<(), Failure>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(SYSTEMD)?
            .interface(INTERFACE)?
            .member("JobRemoved")?
            .build();
        let mut messages = MessageStream::for_match_rule(rule, &self.0, None).await?;
        let job: OwnedObjectPath = self.call(method, body).await?.body().deserialize()?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let (_, path, _, result): (u32, OwnedObjectPath, String, String) =
                message.body().deserialize()?;
            if path != job {
                continue;
            }
            return match result.as_str() {
                "done" | "skipped" => Ok(()),
                result => Err(Failure::Other(format!(
                    "its job ended with {result:?}; see journalctl -u UNIT"
                ))),
            };
        }
        Err(Failure::Other("systemd closed the connection".into()))
    }
}

/// Connects, speaks and hangs up, on a runtime of its own that is gone afterwards.
fn conversation<T>(
    unit: &Unit,
    speak: impl AsyncFnOnce(&Systemd) -> std::result::Result<T, Failure>,
) -> Result<T> {
    let error = |reason: String| Error::Systemd {
        unit: unit.text.clone(),
        reason,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| error(format!("no runtime for a connection to systemd: {e}")))?;
    runtime.block_on(async {
        let spoken = tokio::time::timeout(WITHIN, async {
            let (address, user) = unit.manager.bus();
            let unreachable = |e: zbus::Error| {
                error(format!(
                    "has systemd's form, but systemd cannot be reached through {address}: {e}; {}",
                    unit.manager.remedy()
                ))
            };
            let builder = connection::Builder::address(address.as_str()).map_err(unreachable)?;
            let builder = match user {
                Some(uid) => builder.user_id(uid),
                None => builder,
            };
            let systemd = Systemd(builder.build().await.map_err(unreachable)?);
            let spoken = match systemd.call("Subscribe", &()).await {
                Ok(_) => speak(&systemd).await,
                Err(e) => Err(e),
            };
            spoken.map_err(|failure| match failure {
                Failure::Refused(name, text) => error(format!("systemd refuses: {text} ({name})")),
                Failure::Other(text) => error(format!("systemd: {text}")),
            })
        });
        spoken
            .await
            .unwrap_or_else(|_| Err(error(format!("systemd does not answer within {WITHIN:?}"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_files_become_properties() {
        let settings = [
            Setting::new("memory", "memory.max", "67108864", "memory.limit"),
            Setting::new("memory", "memory.swap.max", "max", "memory.swap"),
            Setting::new("cpu", "cpu.max", "5001 10000", "cpu.quota"),
            Setting::new("cpuset", "cpuset.cpus", "0-1,9", "cpu.cpus"),
            Setting::new("hugetlb", "hugetlb.2MB.max", "0", "hugepageLimits"),
        ];
        assert_eq!(
            properties(&settings),
            [
                ("MemoryMax", Value::U64(67_108_864)),
                ("MemorySwapMax", Value::U64(u64::MAX)),
                ("CPUQuotaPerSecUSec", Value::U64(510_000)),
                ("CPUQuotaPeriodUSec", Value::U64(10_000)),
                ("AllowedCPUs", Value::from(vec![0b11u8, 0b10])),
            ]
        );
    }

    #[test]
    fn v1_quota_takes_the_period_beside_it() {
        let settings = [
            Setting::new("cpu", "cpu.cfs_period_us", "50000", "cpu.period"),
            Setting::new("cpu", "cpu.cfs_quota_us", "25000", "cpu.quota"),
        ];
        assert_eq!(
            properties(&settings),
            [("CPUQuotaPerSecUSec", Value::U64(500_000))]
        );
    }
}
