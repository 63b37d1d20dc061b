use std::path::Path;

use super::Profile;

fn refusal(text: &str) -> String {
    let parsed = Profile::parse(Path::new("/nonexistent"), "mine", "mine.toml", text);
    parsed.unwrap_err().to_string()
}

/// The keys that are known where `text` has one that is not: the parser names them all.
fn known(text: &str) -> Vec<String> {
    let refusal = refusal(text);
    let (_, names) = refusal.split_once("expected ").unwrap();
    let quoted = names.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented() {
    let page = include_str!("../../../docs/profiles.md");
    let tables = known("nosuch = 1");
    assert!(tables.contains(&"pod".to_owned()), "{tables:?}");
    let mut keys = 0;
    for table in tables.iter().filter(|t| *t != "extends") {
        assert!(page.contains(&format!("`[{table}]`")), "[{table}]");
        for key in known(&format!("[{table}]\nnosuch = 1")) {
            keys += 1;
            assert!(page.contains(&format!("`{key}`")), "{table}.{key}");
        }
    }
    assert!(keys > 35, "{keys} keys: the parser does not name them");
}

#[test]
fn mistakes_say_what_to_write() {
    for (text, said) in [
        ("[limits]\npids = 5", "{ default = N, max = N }"),
        (
            "extends = \"hardened\"\n[limits]\npids = { max = 512 }",
            "set both",
        ),
        (
            "extends = \"hardned\"",
            "profile \"mine\": extends: there is no",
        ),
        ("[pod]\nhost_paths = [\"/srv/*\"]", "without wildcards"),
        ("[pod]\nhost_paths = [\"/srv/../etc\"]", "without wildcards"),
        (
            "[pod]\nforbidden_host_paths = [\"/srv/*\"]",
            "pod.forbidden_host_paths: \"/srv/*\": expected a path without wildcards",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(said), "{text:?}: {refusal}");
    }
}
