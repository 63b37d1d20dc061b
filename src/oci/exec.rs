//! The process of an exec: what its request says, and for all else what its container's process has.

use oci_spec::runtime::Process;

use super::{Result, load};

/// What an exec has of its container's process unless its own request says otherwise.
#[derive(Debug, Clone)]
pub struct Inherited(Process);

impl Inherited {
    /// Of a container whose process this is.
    pub fn of(process: &Process) -> Self {
        let mut process = process.clone();
        process.set_args(None);
        Self(process)
    }

    /// Reads the process of an exec request, and completes it: environment, capabilities, limits, `noNewPrivileges`, labels, umask,
    /// score and scheduling are the container's where the request has none. A request without a user is for root, as with runc.
    pub fn complete(&self, json: &[u8]) -> Result<Process> {
        let mut process = load::parse_process(json)?;
        self.fill(&mut process);
        Ok(process)
    }

    fn fill(&self, process: &mut Process) {
        let own = &self.0;
        macro_rules! inherit {
            ($($field:ident: $set:ident),*) => {$(
                if process.$field().is_none() {
                    process.$set(own.$field().clone());
                }
            )*};
        }
        inherit!(
            env: set_env,
            capabilities: set_capabilities,
            rlimits: set_rlimits,
            no_new_privileges: set_no_new_privileges,
            oom_score_adj: set_oom_score_adj,
            scheduler: set_scheduler,
            io_priority: set_io_priority,
            exec_cpu_affinity: set_exec_cpu_affinity
        );
        let is_unset = |label: &Option<String>| label.as_deref().is_none_or(str::is_empty);
        if is_unset(process.apparmor_profile()) {
            process.set_apparmor_profile(own.apparmor_profile().clone());
        }
        if is_unset(process.selinux_label()) {
            process.set_selinux_label(own.selinux_label().clone());
        }
        if process.user().umask().is_none() {
            let mut user = process.user().clone();
            user.set_umask(own.user().umask());
            process.set_user(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn own() -> Value {
        json!({
            "args": ["init"], "cwd": "/", "env": ["A=1"], "noNewPrivileges": true, "apparmorProfile": "own", "selinuxLabel": "own",
            "user": { "uid": 7, "gid": 8, "umask": 23, "additionalGids": [9] }, "oomScoreAdj": 100,
            "capabilities": { "bounding": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 }]
        })
    }

    fn completed(request: Value) -> Value {
        let own: Process = serde_json::from_value(own()).unwrap();
        let done = Inherited::of(&own).complete(request.to_string().as_bytes());
        serde_json::to_value(done.unwrap()).unwrap()
    }

    #[test]
    fn what_a_request_does_not_say_is_the_containers() {
        let mut expected = own();
        expected["args"] = json!(["sh"]);
        // Groups belong to the user, and the user of a request that names none is root.
        expected["user"] = json!({ "uid": 0, "gid": 0, "umask": 23 });
        let empty = json!({ "args": ["sh"], "cwd": "/", "apparmorProfile": "" });
        assert_eq!(completed(empty), expected);
    }

    #[test]
    fn what_a_request_says_is_its_own() {
        let request = json!({
            "args": ["sh"], "cwd": "/tmp", "env": [], "noNewPrivileges": false, "apparmorProfile": "other", "selinuxLabel": "other",
            "user": { "uid": 1, "gid": 2, "umask": 0 }, "oomScoreAdj": 0, "capabilities": {}, "rlimits": []
        });
        assert_eq!(completed(request.clone()), request);
    }
}
