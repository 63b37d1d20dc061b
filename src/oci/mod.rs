//! An OCI spec, read once.
//!
//! [`load()`] parses `config.json`. [`Request::read`] then turns the parts that can be read in more than one way into what they
//! come down to: a mount's kind and its effective flags, a namespace that is the node's, new, or another one that was opened,
//! devices by number, hooks by kind. What a spec names on the node is opened here, and never looked up again. `isolation`
//! judges the result, and the executor carries out what passed: neither of them sees the spec's own words for these parts, so
//! they cannot read them differently.

pub mod capabilities;
mod device;
mod error;
mod exec;
mod hook;
mod load;
mod mount;
pub mod namespace;
pub mod path;
mod request;
mod root_mount;
mod source;
pub mod streams;
mod validate;

pub use device::{Device, DeviceKind, LINKS, NODES, Node, is_default, is_usable};
pub use error::{Error, Result};
pub use exec::Inherited;
pub use hook::{Hook, HookKind, Hooks};
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub use load::parse_spec;
pub use load::{load, load_file, parse_of, parse_process, parse_resources, read};
pub use mount::{Flags, Kind, Mount, Options};
pub use namespace::{Joined, Namespace, Namespaces};
pub use request::{Request, Root};
pub use root_mount::RootMount;
pub use source::{Links, Opened, Reading, Source};
pub use streams::StdioUris;
pub use validate::resources as check_resources;
