//! What is written to disk: the layout, the modes, and that it can be read back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use certs_dev::{Case, devstack, files};

#[test]
fn an_authority_is_laid_out_as_devstack_does_and_issues_more_servers() {
    let directory = scratch("ca");
    let ca = directory.join("ca");
    let made = run(&["ca", text(&ca), "--dns", "a.test", "--ip", "127.0.0.1"]);
    assert!(made.status.success(), "{made:?}");

    let blocks = |path: &str| fs::read_to_string(ca.join(path)).unwrap().matches("BEGIN ").count();
    assert_eq!(blocks("root-ca/cacert.pem"), 1);
    assert_eq!(blocks("int-ca/cacert.pem"), 1);
    assert_eq!(blocks("int-ca/ca-chain.pem"), 2);
    assert_eq!(blocks("ca-bundle.pem"), 2);
    assert_eq!(blocks("devstack-cert.pem"), 3);
    for key in ["root-ca/private/cacert.key", "int-ca/private/cacert.key", "devstack-cert.pem"] {
        assert_eq!(mode(&ca.join(key)), 0o600, "{key}");
    }

    let out = directory.join("more.pem");
    let issued = run(&["server", "--ca", text(&ca), "--dns", "b.test", "--out", text(&out)]);
    assert!(issued.status.success(), "{issued:?}");
    assert_eq!(mode(&out), 0o600);
    let more = files::read_identity(&out, &out).unwrap();
    assert_eq!(more.chain[1], devstack::open(&ca).unwrap().certificate_der());

    let again = run(&["ca", text(&ca), "--dns", "a.test"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not overwritten"));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_gallery_is_written_whole_and_read_back() {
    let directory = scratch("gallery");
    let made = run(&["gallery", text(&directory)]);
    assert!(made.status.success(), "{made:?}");
    let table = fs::read_to_string(directory.join("cases.tsv")).unwrap();
    assert_eq!(table.lines().next(), Some("id\tname\tbundle\texpected"));
    for (case, row) in Case::ALL.iter().zip(table.lines().skip(1)) {
        let fields: Vec<_> = row.split('\t').collect();
        assert_eq!(fields[0], case.id());
        assert!(directory.join(fields[2]).is_file(), "{row}");
        let at = |extension: &str| directory.join(format!("{}.{extension}", case.id()));
        assert_eq!(mode(&at("key")), 0o600);
        assert!(!files::read_identity(&at("pem"), &at("key")).unwrap().chain.is_empty());
    }
    assert_eq!(table.lines().count(), Case::ALL.len() + 1);
    assert!(files::read(&directory.join("gallery.crl")).unwrap().contains("BEGIN X509 CRL"));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn an_older_file_does_not_keep_its_mode_when_a_key_is_written_to_it() {
    let directory = scratch("mode");
    let path = directory.join("key.pem");
    fs::write(&path, "something older and longer").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    files::write_private(&path, "key").unwrap();
    assert_eq!((mode(&path), fs::read_to_string(&path).unwrap().as_str()), (0o600, "key"));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let wrong = run(&["serve", "no-such-case"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no case is called `no-such-case`"));

    let nameless = run(&["ca", "unused"]);
    assert_eq!(nameless.status.code(), Some(2));

    let missing = run(&["server", "--ca", "no-such-dir", "--dns", "a", "--out", "unused"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read `no-such-dir/int-ca"));
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_certs-dev")).args(arguments).output().unwrap()
}

/// A directory of this test's own, which is empty.
fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
