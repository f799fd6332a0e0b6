//! Section B of the checklist: versions, containers, start.

use super::Site;

#[test]
fn row_15_the_version_is_told_in_every_spelling() {
    let site = Site::shared();
    let version = site.types("./cliproxy --version; echo $?");
    let lines: Vec<_> = version.ok().lines().collect();
    assert!(matches!(lines.as_slice(), [line, "0"] if line.starts_with("cliproxy ")), "{version:?}");
    for spelling in ["-version", "version"] {
        assert_eq!(site.types(&format!("./cliproxy {spelling}; echo $?")).ok(), version.out);
    }
}

#[test]
fn row_16_a_server_says_which_build_it_is() {
    let site = Site::shared();
    let head = site.types("curl -sI $B/v0/management/config").ok().to_ascii_lowercase();
    let named = head.lines().find_map(|line| line.strip_prefix("x-cpa-version: ")).expect("the header");
    let health = site.types("curl -sS $B/health | jq -r .version");
    assert_eq!(health.ok(), named);
    let told = site.types("./cliproxy --version");
    assert!(told.ok().split(' ').any(|word| word == named), "{told:?} and {named}");
}

#[test]
fn row_19_what_keeps_it_from_starting_is_one_line_that_names_the_file() {
    let site = Site::shared();
    for (line, named) in [
        ("$BIN --config $D/missing.yaml", "missing.yaml"),
        ("printf 'port: [1, 2' > $D/bad.yaml; $BIN --config $D/bad.yaml", "bad.yaml:"),
        ("$BIN --config $D/auths", "auths"),
    ] {
        let typed = site.types(&line.replace("$BIN", "timeout 20 $BIN"));
        assert!(![0, 124].contains(&typed.rc), "{typed:?}");
        let said = format!("{}{}", typed.out, typed.err);
        assert!(said.contains(named) && said.lines().count() == 1, "{typed:?}");
        assert!(!said.contains("panicked") && !said.contains("backtrace"), "{typed:?}");
    }
}

#[test]
fn row_155_a_port_that_is_in_use_ends_the_second_one() {
    let site = Site::shared();
    let begun = std::time::Instant::now();
    let typed = site.types(
        r#"mkdir -p $D/second; cp $D/config.yaml $D/second/; cd $D/second; timeout 8 $BIN --config $D/second/config.yaml > out.txt 2>&1; echo "rc=$?"; cat out.txt"#,
    );
    assert!(begun.elapsed() < std::time::Duration::from_secs(8));
    assert!(
        typed.ok().starts_with("rc=") && !typed.out.starts_with("rc=0") && !typed.out.starts_with("rc=124"),
        "{typed:?}"
    );
    let address = site.url();
    let address = address.trim_start_matches("http://");
    assert!(typed.out.contains(address) && typed.out.contains("in use"), "{typed:?}");
}
