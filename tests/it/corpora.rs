//! What others know about certificates: the public corpora, as in `tests/corpora`.

use std::{path::Path, process::Command};

/// All of x509-limbo's own, BoringSSL's and NIST's; BetterTLS repeats itself, and has every 20th here. The
/// machine runs all.
const CASES: usize = 192 + 95 + 246 + 9_572 / 20;

#[test]
fn the_public_corpora_agree() {
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora/run");
    let done = Command::new(run).args([env!("CARGO_BIN_EXE_vouchsafe"), "--every", "20"]).output().expect("python3");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains(&format!("\ntotal: {CASES} passed, 0 failed; ")), "{said}");
}
