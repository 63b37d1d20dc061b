//! What a container can read of its own isolation: the owner of a pod sees what changed, without an account on the node.

use super::Profile;

/// Bytes that a notice has at most: a page of memory of each container.
const LONGEST: usize = 4096;

/// The text of a container's `/dev/cofferdam`. `changes` is what differs from what the pod asked for. What it says of the node a container can
/// see anyway, in `/proc`; it says nothing of what the node cannot enforce.
pub fn notice(profile: &Profile, contact: Option<&str>, changes: &[String]) -> String {
    let mut text = format!(
        "This container is isolated by Cofferdam's profile {:?}.\n",
        profile.name
    );
    let mut rules = Vec::new();
    if profile.seccomp.floor.is_some() {
        rules.push(
            "- System calls that the profile denies fail with \"operation not permitted\" (EPERM)."
                .to_owned(),
        );
    }
    if let Some(names) = &profile.process.capabilities {
        let left = match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(" "),
        };
        rules.push(format!("- Capabilities that it can have at most: {left}"));
    }
    for (list, what) in [
        (&profile.landlock.write, "Files can be changed only below"),
        (
            &profile.landlock.execute,
            "Programs can be executed only from",
        ),
    ] {
        if let Some(paths) = list {
            let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
            rules.push(format!(
                "- {what}: {} (elsewhere: \"permission denied\")",
                paths.join(" ")
            ));
        }
    }
    if let Some(egress) = &profile.network.egress {
        let to: Vec<&str> = egress.iter().map(|rule| rule.to.as_str()).collect();
        let to = to.join(" ");
        rules.push(format!(
            "- Connections go only to itself and to: {to} (else \"operation not permitted\")"
        ));
    }
    for rule in rules {
        text += &format!("{rule}\n");
    }
    text += &match contact {
        Some(contact) => format!(
            "The administrators of the node can see what was denied, and by which rule. Ask: {contact}\n"
        ),
        None => "The administrators of the node can see what was denied, and by which rule.\n"
            .to_owned(),
    };
    // Long lists leave room for the changes.
    let fits = (0..=LONGEST / 2).rev().find(|n| text.is_char_boundary(*n));
    text.truncate(fits.unwrap_or(0));
    if !changes.is_empty() {
        text += "\nChanged from what was asked for:\n";
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
