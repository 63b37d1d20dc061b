//! Common services and toolchains, from Debian's packages, do the same work under every profile. The root is an overlay, as
//! containerd's are.

use std::fs;
use std::process::Command;

use containerd_shim_protos::api::{CreateTaskRequest, Mount};
use serde_json::json;

use crate::Case;
use crate::isolation::{fifo, run_under};
use crate::support::shim::{Shim, Streams};
use crate::support::{Output, test_directory};

/// The cases of this file.
pub fn cases() -> Vec<Case> {
    [
        Case::plain("common::standard", || {
            all_work("containerd-shim-cofferdam-v1");
        }),
        Case::plain("common::hardened", || {
            all_work("containerd-shim-cofferdam-hardened-v1");
        }),
        Case::plain("common::untrusted", || {
            all_work("containerd-shim-cofferdam-untrusted-v1");
        }),
    ]
    .map(|case| case.unless(missing()))
    .into()
}

/// Why there is none of this.
pub fn missing() -> Option<String> {
    let there = root().join("etc/debian_version").exists();
    (!there).then(|| "no root of common services here".to_owned())
}

fn root() -> std::path::PathBuf {
    test_directory().join("common")
}

/// The script of a service, and the end of its output.
pub fn work(name: &str) -> (&'static str, &'static str) {
    let found = WORK.iter().find(|(n, ..)| *n == name).unwrap();
    (found.1, found.2)
}

/// What is run, what it does, and the end of its output.
const WORK: [(&str, &str, &str); 8] = [
    (
        "nginx",
        "nginx; for i in 1 2 3; do busybox wget -q -O - http://127.0.0.1/ | grep -c 'Welcome to nginx!</h1>'; done; nginx -s quit 2> /dev/null",
        "1\n1\n1\n",
    ),
    (
        "redis",
        "redis-server --daemonize yes --dir /var/lib/redis > /dev/null; until redis-cli ping > /dev/null 2>&1; do sleep 0.05; done; \
         redis-cli set a 41; redis-cli incr a; redis-cli eval 'return redis.call(\"get\", \"a\") * 2' 0; redis-cli bgsave > /dev/null; \
         until [ -s /var/lib/redis/dump.rdb ]; do sleep 0.05; done; redis-cli shutdown; echo saved",
        "OK\n42\n84\nsaved\n",
    ),
    (
        "postgres",
        "as='setpriv --reuid=postgres --regid=postgres --init-groups'; b=/usr/lib/postgresql/15/bin; d=/var/lib/postgresql/mine; \
         $as $b/initdb -D $d > /dev/null; $as $b/pg_ctl -D $d -w -o '-k /tmp' -l /tmp/log start > /dev/null; \
         p='psql -h /tmp -U postgres -tA -c'; $p 'create table t as select generate_series(1, 1000) as n' ; $p 'select sum(n) from t'; \
         $as $b/pg_ctl -D $d -w stop | tail -1",
        "SELECT 1000\n500500\nserver stopped\n",
    ),
    (
        "python",
        "python3 -m venv /root/env && /root/env/bin/python -c '\nimport multiprocessing, socket, sqlite3, subprocess, tempfile, threading\n\
         with multiprocessing.Pool(3) as p: print(sum(p.map(abs, range(-100, 0))))\n\
         print(subprocess.run([\"id\", \"-u\"], capture_output=True).stdout.decode().strip())\n\
         with tempfile.NamedTemporaryFile() as f: print(sqlite3.connect(f.name).execute(\"select 6 * 7\").fetchone()[0])\n'; \
         cd /usr/share/doc/python3; python3 -m http.server 8000 > /dev/null 2>&1 & \
         until busybox wget -q -O - http://127.0.0.1:8000/ > /dev/null 2>&1; do sleep 0.05; done; echo served; kill %1",
        "5050\n0\n42\nserved\n",
    ),
    (
        "node",
        "node -e 'const http = require(\"http\"), { Worker } = require(\"worker_threads\"); \
         const s = http.createServer((q, r) => r.end(\"hello\")).listen(8080, () => http.get(\"http://127.0.0.1:8080\", r => r.on(\"data\", d => { \
         console.log(String(d)); s.close(); new Worker(\"let n = 0; for (let i = 0; i < 1e6; i++) n += i % 7; \
         require(\\\"worker_threads\\\").parentPort.postMessage(n)\", { eval: true }).on(\"message\", n => { console.log(n); process.exit(0) }) })))'",
        "hello\n2999997\n",
    ),
    (
        "gcc",
        "cd /root && printf '#include <stdio.h>\\n#include <pthread.h>\\nstatic void *f(void *x) { return x; }\\n\
         int main(void) { pthread_t t; void *r; pthread_create(&t, 0, f, (void *)7L); pthread_join(t, &r); printf(\"%%ld\\\\n\", (long)r); }\\n' > a.c && \
         gcc -O2 -o a a.c && ./a",
        "7\n",
    ),
    (
        "packages",
        "mkdir -p /root/p/DEBIAN /root/p/opt && printf 'Package: mine\\nVersion: 1\\nArchitecture: all\\nMaintainer: me <me@x.org>\\nDescription: x\\n' > /root/p/DEBIAN/control && \
         printf '#!/bin/sh\\nchown games:games /opt/file && echo configured\\n' > /root/p/DEBIAN/postinst && chmod 755 /root/p/DEBIAN/postinst && echo x > /root/p/opt/file && \
         dpkg-deb --build /root/p /root/mine.deb > /dev/null && apt-get install -y -q /root/mine.deb 2>&1 | grep -o configured; \
         stat -c %U /opt/file; dpkg -r mine > /dev/null; ls /opt/file 2> /dev/null | wc -l",
        "configured\ngames\n0\n",
    ),
    (
        "shell",
        "useradd -m me && su me -c 'id -un; cd; for i in 1 2 3; do echo $i; done | sort -r | head -1; ln -s a b; readlink b'; \
         tar c -C /usr/share/doc . 2>/dev/null | gzip | gunzip | tar t | grep -c nginx-light/copyright",
        "me\n3\na\n1\n",
    ),
];

/// A network as CNI leaves it: made on the node, with the loopback device up.
pub struct Network(String);

impl Network {
    pub fn make(name: &str) -> Self {
        let this = Self(format!("cdtest-{}-{name}", std::process::id()));
        ip(&["netns", "add", &this.0]);
        ip(&["-n", &this.0, "link", "set", "lo", "up"]);
        this
    }
}

fn ip(args: &[&str]) {
    Output::of(Command::new("ip").args(args)).ok();
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.0]);
    }
}

/// The request for a container that runs a script in the common root, of which it has a layer of its own below the shim's
/// directory.
pub fn request(s: &Shim, network: &Network, id: &str, script: &str) -> CreateTaskRequest {
    let mut spec = s.spec(id, &["bash", "-c", script]);
    spec["process"]["env"] = json!([
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "LC_ALL=C.UTF-8"
    ]);
    spec["root"]["readonly"] = json!(false);
    for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!(format!("/run/netns/{}", network.0));
        }
    }
    let out = fifo(s, &format!("{id}-out"));
    let streams = Streams {
        stdout: out.clone(),
        stderr: out,
        ..Streams::default()
    };
    let mut request = s.create_request(id, &spec, streams);
    let layers = s.dir().join(format!("{id}-layers"));
    fs::create_dir_all(layers.join("fs")).unwrap();
    fs::create_dir_all(layers.join("work")).unwrap();
    request.rootfs = vec![Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            format!("lowerdir={}", root().display()),
            format!("upperdir={}", layers.join("fs").display()),
            format!("workdir={}", layers.join("work").display()),
        ],
        ..Mount::default()
    }];
    request
}

fn all_work(program: &str) {
    let network = Network::make(program);
    let s = Shim::start_as(3, program);
    for (name, script, expected) in WORK {
        let request = request(&s, &network, name, script);
        let (text, _) = run_under(&s, &request).unwrap();
        assert!(text.ends_with(expected), "{name} under {program}:\n{text}");
        fs::remove_dir_all(s.dir().join(format!("{name}-layers"))).unwrap();
    }
    s.end();
}
