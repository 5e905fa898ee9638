//! Screen files that cannot be used: every problem is named with its place, and nothing is started.

use std::path::Path;

use serde_json::Value;

use crate::{contents, stderr, stdout, wellspring};

const GOOD: &str = "[screen]\nname = \"small\"\n\n[images]\nstore = \"images\"\nchannels = [\"DNA\"]\n\n\
                    [plate_map]\nfile = \"map.csv\"\n\n\
                    [controls]\nreference = { role = \"healthy\" }\nphenotype = { role = \"disease\" }\n";

/// What `check --json` finds wrong: line, column and message.
fn problems(folder: &Path, text: &str) -> Vec<(u64, u64, String)> {
    std::fs::write(folder.join("a.toml"), text).unwrap();
    let output = wellspring(folder, &["check", "a.toml", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let number = |problem: &Value, key: &str| problem[key].as_u64().unwrap_or_default();
    let found = found["problems"].as_array().unwrap().iter();
    found
        .map(|problem| {
            let message = problem["message"].as_str().unwrap().to_owned();
            (number(problem, "line"), number(problem, "column"), message)
        })
        .collect()
}

#[test]
fn names_that_cannot_be_and_models_nobody_knows_are_told_together_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["with spaces".to_owned(), "a".repeat(300)] {
        let text = GOOD.replace("small", &name) + "\n[model]\nname = \"efficientnet-lit0\"\n";
        let found = problems(folder.path(), &text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].0, found[0].1), (2, 8));
        assert!(found[0].2.contains("cannot name a screen"), "{found:?}");
        assert!(found[0].2.len() < 250, "{found:?}");
        assert_eq!((found[1].0, found[1].1), (16, 8));
        assert!(
            found[1].2.contains("did you mean 'efficientnet-lite0'?"),
            "{found:?}"
        );
    }
}

#[test]
fn a_file_of_ten_megabytes_is_refused_by_its_size_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.toml"),
        GOOD.to_owned() + &"# more\n".repeat(10 << 20 >> 3),
    )
    .unwrap();
    let before = contents(folder.path());
    for arguments in [
        &["check", "a.toml"][..],
        &["run", "a.toml", "--out", "out"],
        &["submit", "a.toml", "--kafka", "127.0.0.1:1"],
    ] {
        let output = wellspring(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = stderr(&output);
        assert!(
            said.contains("a screen file holds at most 1048576"),
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(contents(folder.path()), before);
}
