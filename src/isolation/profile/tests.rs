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
    let template = include_str!("../../../shim-config/profiles/template.toml");
    let tables = known("nosuch = 1");
    assert!(tables.contains(&"pod".to_owned()), "{tables:?}");
    let mut keys = 0;
    for table in tables.iter().filter(|t| *t != "extends") {
        assert!(page.contains(&format!("`[{table}]`")), "[{table}]");
        for key in known(&format!("[{table}]\nnosuch = 1")) {
            keys += 1;
            let documented =
                page.contains(&format!("`{key}`")) || page.contains(&format!("`{table}.{key}`"));
            assert!(documented, "{table}.{key}");
            // `cofferdam profile new` offers it.
            assert!(template.contains(&format!("\n# {key} = ")), "{table}.{key}");
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
            "profile \"mine\" (mine.toml): line 1, column 1: extends: there is no",
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

#[test]
fn every_mistake_is_told_at_once() {
    let text = "extends = \"hardened\"\n\n[limits]\nmemory = { max = \"8GiB\" }\npids = { default = 9, max = 5 }\n\n\
                [process]\ncapabilities = [\"chown\", \"x\"]\nnosuch = 1\n\n[pod]\nhost_paths = [\"srv\", \"/a/..\"]\n";
    let all = refusal(text);
    for part in [
        "line 4, column 18: ",
        "; line 5, column 1: limits.pids: the default 9",
        "; line 8, column 1: process.capabilities: \"CAP_X\"",
        "; line 9, column 1: unknown field `nosuch`",
        "; line 12, column 1: pod.host_paths: \"srv\" is not an absolute path",
        "pod.host_paths: \"/a/..\": expected a path",
    ] {
        assert!(all.contains(part), "{part:?} is not in {all}");
    }
    assert!(!all.contains('\n'), "{all}");
    // Not TOML, in two places.
    let all = refusal("[limits\npids = { max = 5 }\n[process]\nx = = 1\n");
    assert!(all.contains("line 1") && all.contains("line 4"), "{all}");
}

#[test]
fn lists_replace_or_change_what_they_inherit() {
    let parse = |text: &str| Profile::parse(Path::new("/nonexistent"), "mine", "mine.toml", text);
    let base = parse("extends = \"hardened\"").unwrap();
    let masked = base.filesystem.masked_paths.clone();
    let text = "extends = \"hardened\"\n[filesystem]\nmasked_paths = { add = [\"/proc/x\"], remove = [\"/proc/kcore\"] }\n\
                [process]\ncapabilities = { remove = [\"CAP_KILL\"] }\n[pod]\nhost_paths = { add = [\"/srv\"] }\n";
    let mine = parse(text).unwrap();
    let changed = &mine.filesystem.masked_paths;
    assert_eq!(changed.len(), masked.len());
    assert!(changed.contains(&"/proc/x".into()) && !changed.contains(&"/proc/kcore".into()));
    let caps = |p: &Profile| p.process.capabilities.clone().unwrap();
    assert_eq!(caps(&mine).len() + 1, caps(&base).len());
    assert_eq!(mine.pod.host_paths.unwrap(), [Path::new("/srv")]);
    // Replaced.
    let text = "extends = \"hardened\"\n[filesystem]\nmasked_paths = [\"/proc/x\"]\n";
    assert_eq!(parse(text).unwrap().filesystem.masked_paths, ["/proc/x"]);
    // What is added is checked as a list is.
    let wrong = "extends = \"hardened\"\n[landlock]\nscopes = { add = [\"all\"] }\n";
    let refusal = parse(wrong).unwrap_err().to_string();
    assert!(
        refusal.contains("line 3") && refusal.contains("unknown variant"),
        "{refusal}"
    );
}

#[test]
fn a_profile_comes_back_from_its_own_text() {
    let text = "extends = \"untrusted\"\n[limits]\ncpu = { default = 0.5, max = \"1500m\" }\nmemory = { max = \"8Gi\" }\n\
                [process]\ncapabilities = [\"chown\"]\nwrite_xor_execute = \"best-effort\"\n";
    let parse = |text: &str| Profile::parse(Path::new("/nonexistent"), "mine", "mine.toml", text);
    let mine = parse(text).unwrap();
    assert_eq!(mine.limits.cpu.max, Some(1500));
    assert_eq!(mine.limits.memory.max, Some(8 << 30));
    let again = parse(&mine.to_toml()).unwrap();
    let of = |p: Profile| Profile { extends: None, ..p };
    assert_eq!(of(mine), of(again));
}

/// A file that changes a built-in profile for every class is reached from those that extend it.
#[test]
fn a_file_may_extend_the_built_in_whose_name_it_has() {
    let directory = std::env::temp_dir().join(format!("cofferdam-chain-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let text = "extends = \"hardened\"\n[limits]\npids = { default = 77, max = 77 }\n";
    std::fs::write(directory.join("hardened.toml"), text).unwrap();
    for name in ["hardened", "untrusted"] {
        let loaded = Profile::load_from(&directory, name).unwrap();
        let is_changed = loaded.limits.pids.max == Some(77) || name == "untrusted";
        assert!(is_changed, "{name}: {:?}", loaded.limits);
    }
    std::fs::write(directory.join("a.toml"), "extends = \"b\"\n").unwrap();
    std::fs::write(directory.join("b.toml"), "extends = \"a\"\n").unwrap();
    let refused = Profile::load_from(&directory, "a").unwrap_err().to_string();
    assert!(refused.contains("extend one another"), "{refused}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn paths_of_landlock_have_no_wildcards() {
    let refused = refusal("[landlock]\nwrite = [\"/tmp/*\"]\n");
    assert!(refused.contains("without wildcards"), "{refused}");
}
