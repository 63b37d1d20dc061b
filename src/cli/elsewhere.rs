//! Two kinds of containers are known here: containerd's, and those of bundles. Somebody who asks for one among the others is told
//! where it is.

use super::Error;
use super::args::Global;
use super::store::Store;
use crate::control::{self, docker};

/// Of an error that says that something is not there: where it is.
pub(super) fn hint(e: &Error, global: &Global) -> String {
    match e {
        // An engine asks about ids that it makes itself, often, and shows nobody the answer.
        _ if global.log.is_some() => None,
        Error::NoContainer(id) => {
            among_pods(id).map(|there| format!(" among those of OCI bundles{there}"))
        }
        Error::InvalidId(id) => among_pods(id),
        Error::Control(control::Error::NotFound { name, .. }) => among_bundles(name, global),
        _ => None,
    }
    .unwrap_or_default()
}

fn among_pods(id: &str) -> Option<String> {
    // A name of three letters or less is too likely to be the beginning of some other id.
    let target = control::find(id).ok().filter(|_| id.len() > 3)?;
    let pod = target.pod.title();
    let client = match target.pod.namespace.as_str() {
        "k8s.io" => "crictl or kubectl".to_owned(),
        docker::NAMESPACE => "docker".to_owned(),
        namespace => format!("ctr --namespace {namespace} task"),
    };
    Some(format!(
        "; it belongs to the pod {pod}, which containerd manages: use {client} for it. \
         `cofferdam explain {id}` shows it"
    ))
}

fn among_bundles(name: &str, global: &Global) -> Option<String> {
    let store = Store::new(&global.state_directory());
    store.load(name).ok()?;
    Some(format!(
        ": it is a container of an OCI bundle: `cofferdam state {name}` and `cofferdam ps {name}` show it"
    ))
}
