//! For tests: any spec, under any class. What the executor would do is compared with what was judged, effect by effect, and with
//! what the class promises, computed here a second time and from the effects alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines
)] // for tests: a panic is a find

mod beside;
mod promise;
mod spec;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::judged::Judged;
use super::profile::{Limit, Profile};
use super::{Given, Node, Place, PodOfKubernetes, judge};
use crate::executor::effects::effects;
use crate::oci::{Links, Reading, Request};

/// Choices: from a fuzzer's bytes, or from a generator of numbers when they are used up.
pub struct Choices<'a> {
    bytes: &'a [u8],
    state: u64,
}

impl<'a> Choices<'a> {
    /// The same bytes make the same choices.
    pub fn new(bytes: &'a [u8]) -> Self {
        let fold = |n: u64, b: &u8| n.wrapping_mul(0x100_0000_01b3) ^ u64::from(*b);
        Self {
            bytes,
            state: bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold),
        }
    }

    fn below(&mut self, n: usize) -> usize {
        if let Some((first, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return usize::from(*first) % n;
        }
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap_or(0)
    }

    fn one<'v, T>(&mut self, of: &'v [T]) -> &'v T {
        let i = self.below(of.len());
        &of[i]
    }

    fn some<T: Clone>(&mut self, of: &[T], most: usize) -> Vec<T> {
        let n = self.below(most + 1);
        (0..n).map(|_| self.one(of).clone()).collect()
    }
}

/// A small node below a temporary directory, made once: a kubelet with two pods, a containerd, and links.
struct World {
    dir: PathBuf,
    given: Given,
    classes: Vec<Profile>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("cdtest-world-{}", std::process::id()));
        let at = |p: &str| dir.join(p);
        for path in [
            "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v",
            "kubelet/pods/u2/volumes/kubernetes.io~secret/s",
            "root/io.containerd.grpc.v1.cri/sandboxes/s1",
            "root/io.containerd.runtime.v2.task/k8s.io/c1",
            "state/io.containerd.runtime.v2.task/k8s.io/c1/rootfs",
            "root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs",
            "root/io.containerd.snapshotter.v1.overlayfs/snapshots/2/fs",
            "root/io.containerd.snapshotter.v1.overlayfs/snapshots/2/work",
            "srv",
        ] {
            fs::create_dir_all(at(path)).expect("a temporary directory");
        }
        for file in [
            "root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts",
            "kubelet/pods/u1/etc-hosts",
            "srv/secret",
        ] {
            fs::write(at(file), "").expect("a temporary file");
        }
        let bundle = at("state/io.containerd.runtime.v2.task/k8s.io/c1");
        let link = |to: PathBuf, link: PathBuf| std::os::unix::fs::symlink(to, link).ok();
        link(
            at("root/io.containerd.runtime.v2.task/k8s.io/c1"),
            bundle.join("work"),
        );
        let volume = at("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/v");
        link("/".into(), volume.join("link"));
        let snapshot = at("root/io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs");
        link("/".into(), snapshot.join("link"));
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).ok();
        link(at("kubelet/pods/u2"), volume.join("other"));
        let node = Node {
            kubelet_root: at("kubelet"),
            ..Node::default()
        };
        let given = Given {
            open_files: 20_000,
            core_size: u64::MAX,
            users: None,
            cgroup_v2: true,
            recursive_attributes: true,
            place: Place::of(&node, &bundle, "c1"),
            namespaces: Some(BTreeSet::new()),
        };
        let class = |name| Profile::load_from(Path::new("/nonexistent"), name).expect("built in");
        let mut classes = vec![class("hardened"), class("untrusted")];
        let mut listing = class("hardened");
        listing.name = "listing".into();
        listing.pod.host_paths = Some(vec![at("srv"), "/".into(), "/proc".into()]);
        listing.pod.hooks = Some(vec!["/bin/true".into()]);
        listing.pod.loggers = Some(vec!["/bin/true".into()]);
        listing.filesystem.read_only_root = true;
        classes.push(listing);
        let mut limited = class("untrusted");
        limited.name = "limited".into();
        let limit = |max| Limit {
            default: None,
            max: Some(max),
        };
        limited.limits.memory = limit(1 << 30);
        limited.limits.swap = limit(1 << 20);
        limited.limits.cpu = limit(1500);
        classes.push(limited);
        World {
            dir,
            given,
            classes,
        }
    })
}

/// Makes a spec from bytes, and checks what becomes of it in each class. How many classes took it.
///
/// # Panics
/// Where an effect was not judged, or is beyond the class.
pub fn check(bytes: &[u8]) -> usize {
    let mut choices = Choices::new(bytes);
    let spec = spec::spec(&mut choices);
    let world = world();
    let beside = beside::Asked::new(&mut choices, world);
    let bundle = world
        .dir
        .join("state/io.containerd.runtime.v2.task/k8s.io/c1");
    let mut taken = 0;
    for profile in &world.classes {
        beside.check(profile);
        let Ok(parsed) = serde_json::from_value(spec.clone()) else {
            return taken;
        };
        let reading = Reading::Run(Links::OfRoot);
        let Ok(request) = Request::read(parsed, &bundle, reading) else {
            return taken;
        };
        let mut given = world.given.clone();
        given.place = given.place.of_pod(PodOfKubernetes::claimed(&request));
        let Ok(verdict) = judge(profile, &given, request) else {
            continue;
        };
        let Ok((effects, hooks)) = effects(&verdict.judged) else {
            continue;
        };
        taken += 1;
        let told = || format!("{}: {spec:#}", profile.name);
        promise::judged_all(&verdict.judged, &effects, &told);
        let sources = promise::allowed_sources(profile, world, &verdict.judged);
        promise::within(profile, &verdict.judged, &sources, &effects, &hooks, &told);
        beside.check_root(profile, &given.place, &verdict.judged, world);
        let linux = verdict.judged.rest.linux().as_ref();
        if let Some(r) = linux.and_then(|l| l.resources().clone()) {
            beside::resources(profile, &Judged::new(r), true, &told);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_effect_is_beyond_a_class() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not here: namespaces and mounts are opened as root");
            return;
        }
        let cases: u64 = std::env::var("COFFERDAM_CASES")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(20_000);
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let some_of = |worker: usize| -> usize {
            let own = (worker as u64..cases).step_by(workers);
            own.map(|n| super::check(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()))
                .sum()
        };
        let taken: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..workers)
                .map(|worker| scope.spawn(move || some_of(worker)))
                .collect();
            all.into_iter().map(|w| w.join().expect("no find")).sum()
        });
        assert!(
            taken as u64 > cases / 100,
            "{taken} of {cases}: the specs say nothing"
        );
        let beside = super::beside::taken();
        eprintln!("{cases} specs, {taken} times taken by a class; beside them {beside:?}");
        let (streams, roots, updates, limits) = beside;
        for n in [streams, roots, updates, limits] {
            assert!(n as u64 > cases / 500, "{beside:?}: too few were taken");
        }
        std::fs::remove_dir_all(&super::world().dir).ok();
    }
}
