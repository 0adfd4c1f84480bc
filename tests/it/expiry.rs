//! What expires soon is told in time.

use std::{net::SocketAddr, path::PathBuf};

use certs_dev::{
    Authority, Identity, LeafSpec, Server,
    pki::{CaSpec, Validity},
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::support::{self, command::vouchsafe};

/// A CA, and a directory for the files of a test.
struct Lab {
    now: OffsetDateTime,
    root: Authority,
    directory: TempDir,
}

impl Lab {
    fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        Self { now, root: Authority::root("Lab Root", now).unwrap(), directory: support::dir() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn bundle(&self) -> PathBuf {
        self.file("ca.pem", &self.root.certificate_pem())
    }

    /// A server's certificate that expires after so long.
    fn identity(&self, name: &str, left: Duration) -> Identity {
        let validity = Validity { not_before: self.now - Duration::days(60), not_after: self.now + left };
        self.root.issue(&LeafSpec { validity, ..LeafSpec::new(name, self.now).dns(name) }).unwrap()
    }
}

async fn serve(identity: &Identity) -> SocketAddr {
    let server = Server::bind(([127, 0, 0, 1], 0).into(), identity, "a server").await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.run());
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn check_fails_in_its_own_way_if_trust_ends_soon() {
    let lab = Lab::new();
    let server = serve(&lab.identity("server.test", Duration::days(10))).await;
    let bundle = lab.bundle().display().to_string();
    let to = format!("--connect-to=server.test={server}");
    let check = |more: &[&str], url: &str| {
        let all = ["check", "--ca-bundle", &bundle, &to];
        vouchsafe(&all.iter().chain(more).copied().chain([url]).collect::<Vec<_>>())
    };
    for (within, code) in [("9d", 0), ("11d", 3), ("2years", 3)] {
        for json in [&[][..], &["--json"]] {
            let said = check(&[&["--expires-within", within], json].concat(), "server.test");
            assert_eq!(said.code, Some(code), "{said:?}");
            let told = said.err.contains("error: --expires-within: server.test:443: `CN=server.test` expires on ");
            assert_eq!(told, code == 3, "{said:?}");
        }
    }
    assert_eq!(check(&[], "server.test").code, Some(0));
    assert_eq!(check(&["--expires-within", "11d"], "127.0.0.1:1").code, Some(1), "what is wrong now goes first");
    let said = check(&["--expires-within", "soon"], "server.test");
    assert!(said.code == Some(2) && said.err.contains("hint: write it as in `14d`"), "{said:?}");
}

#[test]
fn bundle_fails_in_its_own_way_if_a_certificate_expires_soon() {
    let lab = Lab::new();
    let spec = CaSpec { validity: Validity::days(lab.now, -10, 100), ..CaSpec::root("Old Root", lab.now) };
    let old = Authority::self_signed(&spec).unwrap().certificate_pem();
    let path = lab.file("ca.pem", &(lab.root.certificate_pem() + &old));
    let bundle = |within: &str| vouchsafe(&["bundle", "--expires-within", within, path.to_str().unwrap()]);
    assert_eq!(bundle("99d").code, Some(0));
    let said = bundle("101d");
    assert!(said.code == Some(3) && said.err.contains("`CN=Old Root` expires in 99 days"), "{said:?}");
    let at = (lab.now + Duration::days(200)).date().to_string();
    let said = vouchsafe(&["bundle", "--expires-within", "99d", "--at", &at, path.to_str().unwrap()]);
    assert_eq!(said.code, Some(1), "an error goes first: {said:?}");
}
