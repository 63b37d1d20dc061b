//! The dialects of `start`. containerd 2.3 and later write protobuf `BootstrapParams` to standard input and read a
//! `BootstrapResult`. Before that, everything comes in flags and environment, with the runtime's options (or nothing) on
//! standard input. Those versions cannot be told apart: 1.6 and 1.7 read a plain address, 2.0 to 2.2 read it as well (or
//! JSON, which 1.6 does not know), so they get a plain address.

use containerd_shim::Flags;
use containerd_shim::bootstrap::{BootstrapParams, BootstrapResult, LogLevel};
use containerd_shim::protos::protobuf::Message;

use super::{Error, Result};

/// How containerd spoke to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Flags in, plain address out.
    Plain,
    /// Protobuf in, protobuf out.
    Bootstrap,
}

/// What `start` needs to know, whatever the dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Params {
    pub dialect: Dialect,
    pub id: String,
    pub namespace: String,
    /// containerd's main socket; part of our own socket's name.
    pub grpc_address: String,
    /// Where events go.
    pub ttrpc_address: String,
    pub socket_dir: Option<String>,
    pub debug: bool,
}

/// Environment of the older dialects.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub ttrpc_address: String,
    pub grpc_address: String,
}

impl Params {
    /// From standard input, flags and environment.
    pub(crate) fn parse(input: &[u8], flags: &Flags, env: Environment) -> Result<Self> {
        let params = match bootstrap(input, flags)? {
            Some(p) => Self {
                dialect: Dialect::Bootstrap,
                id: p.instance_id,
                namespace: p.namespace,
                grpc_address: p.containerd_grpc_address,
                ttrpc_address: p.containerd_ttrpc_address,
                socket_dir: p.socket_dir.filter(|d| !d.is_empty()),
                debug: flags.debug || is_debug(p.log_level.value()),
            },
            None => Self {
                dialect: Dialect::Plain,
                id: flags.id.clone(),
                namespace: flags.namespace.clone(),
                grpc_address: if flags.address.is_empty() {
                    env.grpc_address
                } else {
                    flags.address.clone()
                },
                ttrpc_address: env.ttrpc_address,
                socket_dir: None,
                debug: flags.debug,
            },
        };
        for (value, name) in [(&params.id, "-id"), (&params.namespace, "-namespace")] {
            if value.is_empty() {
                return Err(Error::Other(format!("{name} is missing")));
            }
        }
        Ok(params)
    }

    /// The answer to `start`. The task API is v2 in the plain dialect (its clients know no other), v3 in the newer one.
    pub(crate) fn reply(&self, address: &str) -> Result<Vec<u8>> {
        match self.dialect {
            Dialect::Plain => Ok(address.as_bytes().to_vec()),
            Dialect::Bootstrap => {
                let result = BootstrapResult {
                    version: 3,
                    address: address.to_owned(),
                    protocol: "ttrpc".to_owned(),
                    ..BootstrapResult::default()
                };
                result
                    .write_to_bytes()
                    .map_err(|e| Error::Other(format!("encode the answer: {e}")))
            }
        }
    }
}

/// Numbers of `LogLevel` grow with the threshold.
fn is_debug(level: i32) -> bool {
    use containerd_shim::protos::protobuf::Enum;
    level != LogLevel::default().value() && level <= LogLevel::LOG_LEVEL_DEBUG.value()
}

/// Decodes the newer dialect. Runtime options of the older one decode as well, field by field: the type url as the id. A
/// message for somebody else is an error, not an old dialect.
fn bootstrap(input: &[u8], flags: &Flags) -> Result<Option<BootstrapParams>> {
    if input.is_empty() {
        return Ok(None);
    }
    let Ok(params) = BootstrapParams::parse_from_bytes(input) else {
        return Ok(None);
    };
    if params.instance_id == flags.id && params.namespace == flags.namespace {
        return Ok(Some(params));
    }
    let as_options = BootstrapParams {
        instance_id: params.instance_id.clone(),
        namespace: params.namespace.clone(),
        ..BootstrapParams::default()
    };
    if params == as_options {
        return Ok(None);
    }
    Err(Error::Other(format!(
        "the bootstrap parameters are for {}/{}, but the arguments say {}/{}",
        params.namespace, params.instance_id, flags.namespace, flags.id
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            id: "abc".into(),
            namespace: "k8s.io".into(),
            address: "/run/c.sock".into(),
            ..Flags::default()
        }
    }

    fn env() -> Environment {
        Environment {
            ttrpc_address: "/run/c.sock.ttrpc".into(),
            grpc_address: "/run/env.sock".into(),
        }
    }

    /// `BootstrapParams` as containerd 2.3's `proto.Marshal` writes it: `instance_id` 1, `namespace` 2, `log_level` 3,
    /// `containerd_version` 4, ttrpc address 5, grpc address 6, binary 7, `extensions` 8, `socket_dir` 9.
    const RECORDED: &[u8] = b"\x0a\x03abc\x12\x06k8s.io\x22\x06v2.3.1\x2a\x11/run/c.sock.ttrpc\x32\x0b/run/c.sock\x3a\x13/usr/bin/containerd";

    #[test]
    fn containerd_1_6_sends_nothing_and_reads_a_plain_address() {
        let p = Params::parse(b"", &flags(), env()).unwrap();
        assert_eq!(
            (p.dialect, p.grpc_address.as_str(), p.ttrpc_address.as_str()),
            (Dialect::Plain, "/run/c.sock", "/run/c.sock.ttrpc")
        );
        assert_eq!(
            p.reply("unix:///run/containerd/s/x").unwrap(),
            b"unix:///run/containerd/s/x"
        );
    }

    #[test]
    fn containerd_2_0_sends_options() {
        // Any { type_url: "containerd.runc.v1.Options", value: { systemd_cgroup: true } }
        let p = Params::parse(
            b"\x0a\x1acontainerd.runc.v1.Options\x12\x02\x48\x01",
            &flags(),
            env(),
        )
        .unwrap();
        assert_eq!(p.dialect, Dialect::Plain);
        assert_eq!(p.id, "abc");
    }

    #[test]
    fn containerd_2_3_speaks_protobuf_both_ways() {
        let p = Params::parse(RECORDED, &flags(), Environment::default()).unwrap();
        assert_eq!(
            (p.dialect, p.grpc_address.as_str(), p.ttrpc_address.as_str()),
            (Dialect::Bootstrap, "/run/c.sock", "/run/c.sock.ttrpc")
        );
        // BootstrapResult { version 1, address 2, protocol 3 }
        assert_eq!(
            p.reply("unix:///s/x").unwrap(),
            b"\x08\x03\x12\x0bunix:///s/x\x1a\x05ttrpc"
        );
    }

    #[test]
    fn a_message_for_another_shim_is_an_error() {
        let other = Flags {
            id: "other".into(),
            ..flags()
        };
        assert!(
            Params::parse(RECORDED, &other, env())
                .unwrap_err()
                .to_string()
                .contains("k8s.io/abc")
        );
    }

    #[test]
    fn an_id_is_required() {
        assert_eq!(
            Params::parse(b"", &Flags::default(), env())
                .unwrap_err()
                .to_string(),
            "-id is missing"
        );
    }
}
