//! The README names a test for each promise. A name that no file has is a promise that nothing holds.

use std::path::Path;

#[test]
fn every_promise_names_a_test_that_exists() {
    let readme = include_str!("../README.md");
    let promises: Vec<_> = readme
        .lines()
        .filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `"))
        .filter_map(|(_, held)| held.split_once("`: `"))
        .collect();
    assert!(promises.len() >= 20, "the table of promises was not found");
    for (file, test) in promises {
        let folder = file.trim_end_matches(".rs");
        // A file's parts lie in the folder of its name.
        let parts = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        let parts = parts.into_iter().flatten().filter_map(|part| Some(part.ok()?.path()));
        let sources: Vec<String> = std::iter::once(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
            .chain(parts.filter(|part| part.extension().is_some_and(|kind| kind == "rs")))
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .collect();
        let named = format!("fn {test}(");
        assert!(sources.iter().any(|source| source.contains(&named)), "{file}: {test}");
    }
}
