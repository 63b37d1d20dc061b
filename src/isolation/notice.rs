//! What a container can read of its own isolation: the owner of a pod sees what changed, without an account on the node.

use super::Profile;

/// Bytes that a notice has at most: a page of memory of each container.
const LONGEST: usize = 4096;

/// The text of a container's `/dev/cofferdam`. `changes` is what differs from what the pod asked for. Nothing in it is about the node, nor about
/// what the node cannot enforce.
pub fn notice(profile: &Profile, contact: Option<&str>, changes: &[String]) -> String {
    let name = &profile.name;
    let mut text = format!(
        "This container is isolated by the profile {name:?} of its RuntimeClass (Cofferdam).\n"
    );
    if profile.seccomp.floor.is_some() {
        text +=
            "System calls that the profile denies fail with \"operation not permitted\" (EPERM).\n";
    }
    if profile.network.egress.is_some() {
        text += "So do connections to destinations that it does not list (network.egress).\n";
    }
    text += &match contact {
        Some(contact) => format!("The node's logs have each denial and its rule. Ask: {contact}\n"),
        None => {
            "The node's logs have each denial and its rule: ask who runs the cluster.\n".to_owned()
        }
    };
    if !changes.is_empty() {
        text += "\nChanged, beside what the pod asked for:\n";
    }
    for (i, change) in changes.iter().enumerate() {
        let line = format!("  {change}\n");
        let more = format!("  and {} more\n", changes.len() - i);
        if text.len() + line.len() + more.len() > LONGEST {
            text += &more;
            break;
        }
        text += &line;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_into_a_page() {
        let profile = Profile::load_from(std::path::Path::new("/nowhere"), "untrusted").unwrap();
        let text = notice(&profile, Some("platform@example.com"), &["a: b".to_owned()]);
        assert!(
            text.contains("\"untrusted\"") && text.contains("Ask: platform@example.com"),
            "{text}"
        );
        assert!(text.ends_with("asked for:\n  a: b\n"), "{text}");
        let many = vec!["x".repeat(100); 100];
        let text = notice(&profile, None, &many);
        assert!(text.len() <= LONGEST && text.ends_with("more\n"), "{text}");
    }
}
