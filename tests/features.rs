//! Says which features this build has, so that `.ci/run` can tell a bare build from a full one.

/// Every feature of the crate that is on, `none` if none is.
fn enabled() -> String {
    let on: Vec<&str> = all().into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    if on.is_empty() { "none".into() } else { on.join(" ") }
}

fn all() -> [(&'static str, bool); 17] {
    [
        ("oauth2", cfg!(feature = "oauth2")),
        ("endpoint", cfg!(feature = "endpoint")),
        ("alibaba", cfg!(feature = "alibaba")),
        ("tencent", cfg!(feature = "tencent")),
        ("huawei", cfg!(feature = "huawei")),
        ("config", cfg!(feature = "config")),
        ("schema", cfg!(feature = "schema")),
        ("client", cfg!(feature = "client")),
        ("reqwest", cfg!(feature = "reqwest")),
        ("store", cfg!(feature = "store")),
        ("encryption", cfg!(feature = "encryption")),
        ("redis", cfg!(feature = "redis")),
        ("tracing", cfg!(feature = "tracing")),
        ("metrics", cfg!(feature = "metrics")),
        ("testkit", cfg!(feature = "testkit")),
        ("full", cfg!(feature = "full")),
        ("shuttle", cfg!(feature = "shuttle")),
    ]
}

#[test]
fn features() {
    // The test runner may have begun the line with the name of the test.
    println!("\nenabled features: {}", enabled());
}

/// A feature that is missing in the list above could be on in a build that calls itself bare.
#[test]
fn the_list_is_complete() {
    let declared: Vec<&str> = include_str!("../Cargo.toml")
        .lines()
        .skip_while(|line| *line != "[features]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| !name.starts_with('#') && *name != "default")
        .collect();
    assert_eq!(declared, all().map(|(name, _)| name));
}
