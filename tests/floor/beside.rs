//! What is asked for beside a spec, and what others left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use containerd_shim_protos::api::CreateTaskResponse;
use containerd_shim_protos::api::Empty;
use nix::mount::MntFlags;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::mount::umount2;
use serde_json::json;

use super::{HARDENED, OfNode, UNTRUSTED, refused};
use crate::isolation::request;
use crate::isolation::run_under;
use crate::support::Output;
use crate::support::shim::Shim;
use crate::support::shim::Streams;

/// Mounts that a client passes for the root: a snapshotter's, and nothing else.
pub(super) fn roots_beside_the_spec() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let spec = s.spec("box", &["true"]);
        let layers = s.dir().join("layers");
        for dir in ["lower", "upper", "work"] {
            fs::create_dir_all(layers.join(dir)).unwrap();
        }
        symlink("/etc", layers.join("link")).unwrap();
        let overlay = |options: &[&str]| {
            (
                "overlay".to_owned(),
                "overlay".to_owned(),
                options
                    .iter()
                    .map(|o| o.replace("L/", &format!("{}/", layers.display())))
                    .collect(),
            )
        };
        let of_kernel = |fstype: &str| {
            let source = layers.join("lower").display().to_string();
            (fstype.to_owned(), source, Vec::new())
        };
        let bind = |source: &str| {
            (
                "bind".to_owned(),
                source.replace("L/", &format!("{}/", layers.display())),
                vec!["rbind".to_owned()],
            )
        };
        for (fstype, source, options) in [
            bind("/"),
            bind("/etc"),
            bind("L/link"),
            bind("L/lower/../../../.."),
            ("ext4".into(), "/dev/vda".into(), vec![]),
            ("proc".into(), "proc".into(), vec![]),
            of_kernel("proc"),
            of_kernel("debugfs"),
            of_kernel("sysfs"),
            of_kernel("devtmpfs"),
            of_kernel("cgroup2"),
            of_kernel("tmpfs"),
            ("tmpfs".into(), "tmpfs".into(), vec![]),
            overlay(&["lowerdir=/etc:L/lower"]),
            overlay(&["lowerdir=L/lower:/"]),
            overlay(&["lowerdir=L/lower", "upperdir=/etc", "workdir=L/work"]),
            overlay(&["index=off,lowerdir=/etc"]),
            overlay(&["lowerdir=L/lower", "lowerdir+=/etc"]),
            overlay(&["lowerdir=etc:L/lower"]),
            overlay(&["lowerdir=L/lower:"]),
        ] {
            let mut request = s.create_request("box", &spec, Streams::default());
            let told = format!("{fstype} {source} {options:?}");
            request.rootfs[0].type_ = fstype;
            request.rootfs[0].source = source;
            request.rootfs[0].options = options;
            let answer = s.call::<CreateTaskResponse>("Create", &request);
            let (_, why) = answer.expect_err(&told);
            assert!(why.contains("refuses the root's mount 0"), "{told}: {why}");
        }
        let mut request = s.create_request("box", &spec, Streams::default());
        request.rootfs[0].target = "../../x".into();
        let (_, why) = s
            .call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        assert!(why.contains("is not the root"), "{why}");
        s.end();
    }
}

/// A file as a stream is a file of the node's that its root writes, or that the container reads.
pub(super) fn streams_are_no_files() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let file = s.dir().join("target");
        fs::write(&file, "content\n").unwrap();
        let path = file.display().to_string();
        let spec = s.spec("box", &["sh", "-c", "echo x; echo y >&2"]);
        s.run("live", &["sleep", "1000"]);
        for streams in [
            Streams {
                stdout: path.clone(),
                ..Streams::default()
            },
            Streams {
                stderr: path.clone(),
                ..Streams::default()
            },
            Streams {
                stdin: path.clone(),
                ..Streams::default()
            },
            Streams {
                stdout: format!("file://{path}"),
                ..Streams::default()
            },
            Streams {
                stdout: format!("file://{path}"),
                terminal: true,
                ..Streams::default()
            },
            Streams {
                stdout: format!("file://{path}-new"),
                ..Streams::default()
            },
        ] {
            let told = format!("{streams:?}");
            let (_, why) = s
                .create_with("box", &spec, streams.clone())
                .expect_err(&told);
            assert!(why.contains("is not a fifo"), "{told}: {why}");
            let exec = Shim::exec_request("live", "e", &["true"], streams);
            let answer = s
                .call::<Empty>("Exec", &exec)
                .and_then(|_| s.start_process("live", "e"));
            let (_, why) = answer.expect_err(&told);
            assert!(why.contains("is not a fifo"), "{told}: {why}");
            s.delete("live", "e").ok();
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "content\n");
        assert!(!file.with_file_name("target-new").exists());
        // A pipe between other processes looks like a fifo, too.
        let mut other = Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        for (stdin, stdout) in [("0", ""), ("", "0")] {
            let pipe = |n: &str| match n {
                "" => String::new(),
                n => format!("/proc/{}/fd/{n}", other.id()),
            };
            let streams = Streams {
                stdin: pipe(stdin),
                stdout: pipe(stdout),
                ..Streams::default()
            };
            let (_, why) = s.create_with("box", &spec, streams).unwrap_err();
            assert!(why.contains("is a pipe without a name"), "{why}");
        }
        other.kill().unwrap();
        other.wait().unwrap();
        s.finish("live");
        s.end();
    }
}

/// The paths of mounts are judged; an image's links do not lead them elsewhere.
pub(super) fn links_of_an_image() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        let root = s.dir().join("linked");
        Output::of(
            Command::new("cp")
                .arg("-a")
                .arg(crate::support::test_directory().join("rootfs"))
                .arg(&root),
        )
        .ok();
        for (link, to) in [
            ("dev-link", "/dev"),
            ("proc-link", "proc"),
            ("below", "/proc/sys"),
            ("sys-link", "/sys/kernel"),
            ("fine", "/home"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        fs::create_dir_all(root.join("home")).unwrap();
        // An image's list of users that has no end names nobody's home.
        fs::remove_file(root.join("etc/passwd")).ok();
        symlink("/dev/zero", root.join("etc/passwd")).unwrap();
        let create = |at: &str| {
            let mut spec = s.spec("box", &["true"]);
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "type": "tmpfs", "source": "tmpfs", "destination": at, "options": []
            }));
            let mut request = s.create_request("box", &spec, Streams::default());
            request.rootfs[0].source = root.display().to_string();
            s.call::<CreateTaskResponse>("Create", &request)
        };
        for at in ["/dev-link", "/proc-link", "/below", "/sys-link"] {
            let (_, why) = create(at).expect_err(at);
            assert!(why.contains("a symbolic link of the image"), "{at}: {why}");
        }
        create("/fine").unwrap();
        s.finish("box");
        s.end();
    }
}

/// What is mounted below a listed path comes along, and is looked at, too; the kernel's own links are no image's.
pub(super) fn mounts_below_a_listed_path() {
    let node = OfNode::new("below");
    let dir = node.0.join("listed");
    fs::create_dir_all(dir.join("proc")).unwrap();
    mount(
        Some("proc"),
        &dir.join("proc"),
        Some("proc"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let s = Shim::start(3);
    let listing = |path: &Path| format!("extends = \"hardened\"\n[pod]\nhost_paths = [{path:?}]\n");
    let run = |id: &str, source: &Path, at: &str, option: &str, listed: &Path| {
        let mut spec = s.spec("box", &["true"]);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "type": "bind", "source": source, "destination": at, "options": [option]
        }));
        run_under(&s, &request(&s, id, &spec, &listing(listed)))
    };
    let why = run("box", &dir, "/dev/host", "rbind", &dir).unwrap_err();
    assert!(why.contains("below it is mounted what shows"), "{why}");
    run("single", &dir, "/dev/host", "bind", &dir).unwrap();
    umount2(&dir.join("proc"), MntFlags::MNT_DETACH).unwrap();
    // A listed path with a link that somebody else can make lists nothing.
    let link = node.0.join("link");
    symlink(&dir, &link).unwrap();
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        &link,
        Some(1000.into()),
        None,
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
    let why = run("linked", &dir, "/dev/host", "bind", &link).unwrap_err();
    assert!(why.contains("is not below one of pod.host_paths"), "{why}");
    run("whole", &dir, "/dev/host", "rbind", &dir).unwrap();
    // As lxcfs does: /proc/net is a link of the kernel's.
    let file = dir.join("dev");
    fs::write(&file, "faked\n").unwrap();
    run("lxcfs", &file, "/proc/net/dev", "bind", &dir).unwrap();
    // What is forbidden has no other name.
    let alias = node.0.join("alias");
    fs::create_dir_all(alias.join("secret")).unwrap();
    fs::create_dir_all(dir.join("secret")).unwrap();
    mount(
        Some(&dir),
        &alias,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    for (id, source) in [("alias", alias.join("secret")), ("above", alias.clone())] {
        let profile = format!("[pod]\nforbidden_host_paths = [{:?}]\n", dir.join("secret"));
        let mut spec = s.spec(id, &["true"]);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "type": "bind", "source": source, "destination": "/dev/host", "options": ["rbind"]
        }));
        let why = run_under(&s, &request(&s, id, &spec, &profile)).unwrap_err();
        assert!(why.contains("it shows"), "{why}");
    }
    umount2(&alias, MntFlags::MNT_DETACH).unwrap();
    s.end();
}

/// A bundle is its container's: nobody else is created there, and no container can write it.
pub(super) fn bundles_of_others() {
    for program in [HARDENED, UNTRUSTED] {
        let s = Shim::start_as(3, program);
        s.run("victim", &["sleep", "1000"]);
        let record = s.dir().join("victim/cofferdam.json");
        let before = fs::read_to_string(&record).unwrap();
        let mut request = s.create_request("box", &s.spec("box", &["true"]), Streams::default());
        request.bundle = s.dir().join("victim").display().to_string();
        let (_, why) = s
            .call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        assert!(why.contains("is of a container that runs"), "{why}");
        assert_eq!(fs::read_to_string(&record).unwrap(), before);
        // Its root is a link in a place of a pod's, which the pod can change at any time.
        let volume = Path::new("/var/lib/kubelet/pods")
            .join(crate::support::pod_uid())
            .join("volumes/kubernetes.io~empty-dir/b");
        let bundle = volume.join("box");
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::write(
            bundle.join("config.json"),
            s.spec("box", &["true"]).to_string(),
        )
        .unwrap();
        request.bundle = bundle.display().to_string();
        let (_, why) = s
            .call::<CreateTaskResponse>("Create", &request)
            .unwrap_err();
        assert!(why.contains("a bundle where containers can write"), "{why}");
        fs::remove_dir_all(&volume).unwrap();
        let link = s.dir().join("box/link");
        let why = refused(&s, |spec| {
            symlink("/etc", &link).ok();
            spec["root"]["path"] = json!("link");
        });
        assert!(why.contains("(root.path; "), "{why}");
        s.finish("victim");
        s.end();
    }
}
