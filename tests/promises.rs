//! The README names a test for each promise. A name that no file has is a promise that nothing holds.

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
        let sources: Vec<String> = std::iter::once(file.into())
            .chain(["layer", "contrast"].map(|part| format!("{folder}/{part}.rs")))
            .filter_map(|path| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).ok())
            .collect();
        let named = format!("fn {test}(");
        assert!(sources.iter().any(|source| source.contains(&named)), "{file}: {test}");
    }
}
