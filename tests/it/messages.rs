//! What people read: the log as text, word for word where the words are ours.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use certs_dev::{Bundle, Case};

use crate::support::{
    gallery::{self, Front},
    origin::{Seen, exchange},
    proxy::without_ambient,
};

/// The text log of a proxy with these flags that is asked once, and what the client was told.
pub async fn read_log(flags: &[String]) -> (String, Seen) {
    let mut command = Command::new("timeout");
    without_ambient(&mut command);
    let mut child = command
        .args(["--foreground", "60", env!("CARGO_BIN_EXE_vouchsafe"), "run", "--log-format", "text", "--threads", "1"])
        .args(flags)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let (mut address, mut text) = (None, String::new());
    loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it was ready:\n{text}");
        text.push_str(&line);
        if let Some((_, rest)) = line.split_once("listening address=") {
            address = rest.split(' ').next().map(|text| text.parse().unwrap());
        }
        if line.contains(" INFO ready") {
            break;
        }
    }
    let seen = exchange(address.unwrap(), b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    (text, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reads_as_what_why_and_what_to_do() {
    let front = Front::start(Case::WrongName).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root)];
    flags.extend(front.route());
    let (text, seen) = read_log(&flags).await;
    let (_, id) = seen.text().split_once("(event ").map(|(a, b)| (a.to_owned(), b[..16].to_owned())).unwrap();
    let upstream = front.authority();
    let bundle = gallery::bundle(Bundle::Root);
    let expected = format!(
        " WARN refused code=name_mismatch upstream={upstream} asked_for=dns:wrong-name.gallery.test client=127.0.0.1 \
         event={id} \"the certificate is valid for `elsewhere.gallery.test`, not for `wrong-name.gallery.test`\" \
         certificate_is_for=dns:elsewhere.gallery.test bundle=\"--ca-bundle `{bundle}` (1 CA)\" \
         hint=\"reach it by a name it has (`verify_name` where only the address differs), or have it reissued with \
         `DNS:wrong-name.gallery.test`; an attack looks like this, too\" help=docs/failures.md#name_mismatch\n"
    );
    assert!(text.contains(&expected), "{text}\n--- lacks ---\n{expected}");
}
