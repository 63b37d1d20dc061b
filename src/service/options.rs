//! The options of a handler, as containerd passes them with each Create.

use std::sync::Once;

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, CodedInputStream, Message};
use containerd_shim_protos::shim::oci as runc;

use crate::pod::{Error, Options, ProfileSource, Result};

/// What runc's shim takes in a handler's `[options]` and has no meaning here: containerd `api/types/runc/options/oci.proto`.
const RUNCS_OWN: [&str; 9] = [
    "BinaryName",
    "CriuImagePath",
    "CriuPath",
    "CriuWorkPath",
    "Root",
    "ShimCgroup",
    "SystemdCgroup",
    "TaskApiAddress",
    "TaskApiVersion",
];

/// containerd's `runc.v1.Options`, or `runtimeoptions.v1.Options`, which name an isolation profile.
pub(super) fn options(any: Option<&Any>) -> Result<Options> {
    let Some(any) = any.filter(|a| !a.type_url.is_empty()) else {
        return Ok(Options::default());
    };
    let wrong = |e: protobuf::Error| Error::InvalidArgument(format!("runtime options: {e}"));
    match any.type_url.rsplit('/').next() {
        Some("containerd.runc.v1.Options") => {
            let options = runc::Options::parse_from_bytes(&any.value).map_err(wrong)?;
            Ok(Options {
                no_pivot_root: options.no_pivot_root,
                no_new_keyring: options.no_new_keyring,
                io_owner: (options.io_uid != 0).then_some((options.io_uid, options.io_gid)),
                profile: None,
            })
        }
        Some("runtimeoptions.v1.Options") => {
            let (path, body) = path_and_body(&any.value).map_err(wrong)?;
            let mut options = Options::default();
            let body = without_runcs(&body, &mut options)?;
            options.profile = if !path.is_empty() {
                Some(ProfileSource::File(path.into()))
            } else if !body.trim().is_empty() {
                Some(ProfileSource::Text(body))
            } else {
                None
            };
            Ok(options)
        }
        _ => Err(Error::InvalidArgument(format!(
            "runtime options of type {:?} are not known",
            any.type_url
        ))),
    }
}

/// The profile in a handler's table of options, as TOML; none where it has only what is for runc's shim.
///
/// # Errors
/// A key of runc's with a value that it cannot have, for people.
pub fn profile_in(table: &str) -> std::result::Result<Option<String>, String> {
    let rest = without_runcs(table, &mut Options::default()).map_err(|e| e.to_string())?;
    Ok((!rest.trim().is_empty()).then_some(rest))
}

/// containerd `api/types/runtimeoptions/v1/api.proto`: a path in field 2, the text of a table in field 3.
fn path_and_body(options: &[u8]) -> protobuf::Result<(String, String)> {
    let mut stream = CodedInputStream::from_bytes(options);
    let (mut path, mut body) = (String::new(), String::new());
    while let Some(tag) = stream.read_raw_tag_or_eof()? {
        match tag {
            0x12 => path = stream.read_string()?,
            0x1a => body = stream.read_string()?,
            tag => protobuf::rt::skip_field_for_tag(tag, &mut stream)?,
        }
    }
    Ok((path, body))
}

/// Takes the keys of runc's handler out of a table, for who has copied that handler: what means something here is done, and of the rest a
/// warning tells. Any other key is a profile's.
fn without_runcs(body: &str, options: &mut Options) -> Result<String> {
    static WARNED: Once = Once::new();
    let Ok(mut table) = body.parse::<toml::Table>() else {
        return Ok(body.to_owned()); // the profile's error says where it is wrong
    };
    let before = table.len();
    let flag = |table: &mut toml::Table, key: &str| match table.remove(key) {
        None => Ok(false),
        Some(toml::Value::Boolean(set)) => Ok(set),
        Some(_) => Err(Error::InvalidArgument(format!(
            "runtime options: {key} is true or false"
        ))),
    };
    options.no_pivot_root = flag(&mut table, "NoPivotRoot")?;
    options.no_new_keyring = flag(&mut table, "NoNewKeyring")?;
    let id = |table: &mut toml::Table, key: &str| match table.remove(key) {
        None => Ok(0),
        Some(value) => value
            .as_integer()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| Error::InvalidArgument(format!("runtime options: {key} is an id"))),
    };
    let owner = (id(&mut table, "IoUid")?, id(&mut table, "IoGid")?);
    options.io_owner = (owner.0 != 0).then_some(owner);
    let ignored = RUNCS_OWN.map(|key| table.remove(key).map(|_| key));
    let ignored: Vec<&str> = ignored.into_iter().flatten().collect();
    if !ignored.is_empty() {
        WARNED.call_once(|| {
            log::warn!(
                "runtime options: {} is for runc's shim, and is ignored: remove it from the handler's [options]",
                ignored.join(", ")
            );
        });
    }
    if table.len() == before {
        return Ok(body.to_owned());
    }
    toml::to_string(&table).map_err(|e| Error::InvalidArgument(format!("runtime options: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> (Option<String>, Options) {
        let mut any = Any::new();
        any.type_url = "runtimeoptions.v1.Options".into();
        any.value = vec![0x1a, u8::try_from(body.len()).unwrap()];
        any.value.extend(body.bytes());
        let options = options(Some(&any)).unwrap();
        let text = match &options.profile {
            Some(ProfileSource::Text(text)) => Some(text.clone()),
            _ => None,
        };
        (text, options)
    }

    #[test]
    fn a_handler_may_be_a_copy_of_runcs() {
        let (profile, options) = read("SystemdCgroup = true\nNoPivotRoot = true\nIoUid = 5\n");
        assert_eq!(profile, None);
        assert!(options.no_pivot_root && !options.no_new_keyring);
        assert_eq!(options.io_owner, Some((5, 0)));
        let (profile, _) = read("SystemdCgroup = true\nextends = \"hardened\"\n");
        assert_eq!(profile.as_deref(), Some("extends = \"hardened\"\n"));
        let (profile, _) = read("extends = \"hardened\" # as it is\n");
        assert_eq!(
            profile.as_deref(),
            Some("extends = \"hardened\" # as it is\n")
        );
    }
}
