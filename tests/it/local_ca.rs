//! `vouchsafe ca init`, what a stolen key of such a CA is worth, and who may have it.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Command, Output, Stdio},
};

use certs_dev::Bundle;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use time::{Duration, OffsetDateTime};

use crate::support::{
    command::{vouchsafe, vouchsafe_as_user},
    dir,
    exec::is_root,
    gallery,
    local_ca::LocalCa,
    proxy::Proxy,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_for_the_owner_alone_and_the_root_has_no_key() {
    let ca = LocalCa::new(&[".cloud.example"]);
    let modes = ["", "ca.pem", "issuer.pem", "issuer.key"].map(|name| mode(&ca.file(name)));
    assert_eq!(modes, [0o700, 0o644, 0o600, 0o600]);
    assert_eq!(fs::read_dir(ca.path()).unwrap().count(), 3);
    let shown = Command::new("openssl").args(["x509", "-noout", "-text", "-in", &ca.root()]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for part in [
        "Public Key Algorithm: id-ecPublicKey",
        "CA:TRUE, pathlen:1",
        "X509v3 Name Constraints: critical",
        "DNS:.cloud.example",
        "IP:255.255.255.255/255.255.255.255",
        "IP:0:0:0:0:0:0:0:0/FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF:FFFF",
        ", only for .cloud.example, made 20",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let again = vouchsafe(&["ca", "init", &ca.path(), "--permit", "a.example"]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("issuer.key` exists: a CA is never overwritten"), "{again:?}");
}

#[test]
fn of_two_processes_one_makes_the_ca() {
    let scratch = dir();
    let path = scratch.path().join("ca").display().to_string();
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vouchsafe"));
        command.args(["ca", "init", &path, "--permit", "a.example"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let codes: Vec<_> = children.into_iter().map(|mut child| child.wait().unwrap().code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    let bundle = gallery::bundle(Bundle::Root);
    let flags = ["--ca-bundle", &bundle, "--forward=127.0.0.1:0", "--allow=a.example", "--local-ca", &path];
    let said = vouchsafe(&[&["config", "check"], &flags[..]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn what_a_ca_permits_is_said_or_follows_from_the_settings() {
    let init = |flags: &[&str]| {
        let scratch = dir();
        let path = scratch.path().join("ca").display().to_string();
        vouchsafe(&[&["ca", "init", &path], flags].concat())
    };
    for (flags, expected) in [
        (&["--permit", "a.example,.b.example", "--permit", "192.0.2.7"][..], "for a.example, .b.example, 192.0.2.7\n"),
        (
            &["--allow", "a.example:9292,*.b.example,10.0.0.0/8", "--allow", "a.example"],
            "for a.example, .b.example, 10.0.0.0/8\n",
        ),
        (
            &["--route", "tls://127.0.0.1:1=https://a.example:9292,127.0.0.1:2=https://b.example"],
            "for a.example, 127.0.0.1\n",
        ),
        (&["--permit-anything"], "for ANY NAME\n"),
    ] {
        let said = init(flags);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.starts_with(&format!("made a CA that may sign {expected}")), "{said:?}");
        assert_eq!(said.err.contains("impersonate every server"), flags == ["--permit-anything"], "{said:?}");
    }
    for (flags, expected) in [
        (&[][..], "there is nothing that the CA may sign for\n  hint: set --permit NAME"),
        (&["--permit", "*"], "--permit-anything makes one all the same"),
        (&["--allow", "*"], "--allow `*`: a CA for every name"),
        (&["--permit", "https://a.example"], "--permit `https://a.example`: "),
        (
            &["--permit", "::ffff:192.0.2.0/120"],
            "--permit `::ffff:192.0.2.0/120`: an IPv4-mapped network matches nothing\n  hint: write `192.0.2.0/24`",
        ),
    ] {
        let said = init(flags);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains(expected), "{said:?}");
    }
}

#[test]
fn a_ca_that_others_could_have_read_or_changed_is_not_used() {
    let bundle = gallery::bundle(Bundle::Root);
    let check = |ca: &LocalCa| {
        let flags = ["--ca-bundle", &bundle, "--forward=127.0.0.1:0", "--allow=a.example", &ca.flag()];
        vouchsafe(&[&["config", "check"], &flags[..]].concat())
    };
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let ca = LocalCa::new(&["a.example"]);
    assert_eq!(check(&ca).code, Some(0));
    for (file, bad, words) in [
        ("issuer.key", 0o640, "has mode 0640: other users may read or change it\n  hint: `chmod 600 "),
        ("issuer.key", 0o604, "has mode 0604"),
        ("ca.pem", 0o666, "has mode 0666: other users may change it\n  hint: `chmod 644 "),
        ("issuer.pem", 0o664, "has mode 0664"),
        ("", 0o770, "has mode 0770: other users may change what is in it\n  hint: `chmod 700 "),
    ] {
        let before = mode(&ca.file(file));
        set(&ca.file(file), bad);
        let said = check(&ca);
        assert!(said.code == Some(2) && said.err.contains(words), "{said:?}");
        set(&ca.file(file), before);
    }
    let other = LocalCa::new(&["b.example"]);
    for (file, words) in [
        ("ca.pem", "ca.pem`: it permits other names than issuer.pem"),
        ("issuer.key", "issuer.key`: it is not the key of the certificate in issuer.pem"),
    ] {
        let before = fs::read(ca.file(file)).unwrap();
        fs::copy(other.file(file), ca.file(file)).unwrap();
        let said = check(&ca);
        assert!(said.code == Some(2) && said.err.contains(words), "{said:?}");
        fs::write(ca.file(file), before).unwrap();
    }
    let before = fs::read(ca.file("ca.pem")).unwrap();
    fs::write(ca.file("ca.pem"), [before.clone(), fs::read(other.file("ca.pem")).unwrap()].concat()).unwrap();
    let said = check(&ca);
    assert!(said.code == Some(2) && said.err.contains("ca.pem`: more than one certificate in it"), "{said:?}");
    fs::write(ca.file("ca.pem"), before).unwrap();
    let twin = LocalCa::new(&["a.example"]);
    fs::copy(twin.file("ca.pem"), ca.file("ca.pem")).unwrap();
    let said = check(&ca);
    assert!(said.code == Some(2) && said.err.contains("it was not signed by the root in ca.pem"), "{said:?}");
    fs::remove_file(ca.file("issuer.key")).unwrap();
    assert!(check(&ca).err.contains("issuer.key`: No such file"));
}

#[test]
fn a_local_ca_that_is_not_there_or_cannot_be_read_is_named_with_a_remedy() {
    let (bundle, scratch) = (gallery::bundle(Bundle::Root), dir());
    let ca = LocalCa::new(&["a.example"]);
    let (path, root, key) = (ca.path(), ca.root(), ca.file("issuer.key"));
    let check = |as_user: bool, path: &str| {
        let flags = ["--forward=127.0.0.1:0", "--allow=a.example", "--ca-bundle", &bundle, "--local-ca", path];
        let words = [&["config", "check"], &flags[..]].concat();
        if as_user { vouchsafe_as_user(&words) } else { vouchsafe(&words) }
    };
    let expect = |as_user: bool, path: &str, words: &str| {
        let said = check(as_user, path);
        assert!(said.code == Some(2) && said.err.contains(&format!("error: --local-ca{words}")), "{words}: {said:?}");
    };
    let empty = scratch.path().display().to_string();
    let make = |path: &str| format!("\n  hint: make a CA with `vouchsafe ca init {path} --permit NAME`");
    expect(false, "/no/such", &format!(" `/no/such`: there is no such directory{}", make("/no/such")));
    expect(false, &empty, &format!(" `{empty}`: there is no CA in it{}", make(&empty)));
    let is_file = "is a file, not a directory";
    expect(
        false,
        &root,
        &format!(": `{root}` {is_file}\n  hint: a local CA is the directory that `vouchsafe ca init` made"),
    );
    let below = format!("{root}/ca");
    expect(false, &below, &format!(" `{below}`: Not a directory (os error 20)\n  hint: `{root}` {is_file}"));
    let said = vouchsafe(&["ca", "init", &root, "--permit", "a.example"]);
    assert!(said.code == Some(1) && said.err.contains(is_file), "{said:?}");

    // Closed above it, and then readable by its owner only.
    let closed = Path::new(&path).parent().unwrap();
    let words = format!(
        " `{path}`: Permission denied (os error 13)\n  hint: let the user that this runs as search the directory `{}`",
        closed.display()
    );
    fs::set_permissions(closed, fs::Permissions::from_mode(0o000)).unwrap();
    expect(true, &path, &words);
    fs::set_permissions(closed, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    let said = check(true, &path);
    let (_, hint) =
        said.err.split_once("Permission denied (os error 13)\n  hint: this process runs as user ").expect("one");
    assert!(hint.contains(", who has to own the CA: `chown -R ") && hint.contains(&format!(" {path}`")), "{said:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    if is_root() {
        for file in [path.clone(), key.display().to_string(), root.clone()] {
            chown(&file, Some(12345), None).unwrap();
            expect(
                false,
                &path,
                &format!(": `{file}` belongs to user 12345, and this process runs as user 0\n  hint: `chown 0 {file}`"),
            );
            chown(&file, Some(0), None).unwrap();
        }
    }
    assert_eq!(check(false, &path).code, Some(0));
    let restore =
        "\n  hint: `vouchsafe ca init` wrote it: restore it from a copy, or make a new CA in another directory";
    fs::remove_file(&key).unwrap();
    expect(false, &path, &format!(" `{}`: No such file or directory (os error 2){restore}", key.display()));
    fs::create_dir(&key).unwrap();
    expect(false, &path, &format!(" `{}`: Is a directory (os error 21){restore}", key.display()));
}

#[test]
fn settings_of_a_local_ca_that_cannot_apply_are_reported() {
    let (bundle, ca) = (gallery::bundle(Bundle::Root), LocalCa::new(&["a.example"]));
    let flag = ca.flag();
    for (flags, code, words) in [
        (&["--route=tls://127.0.0.1:0=https://a.example"][..], 2, "clients that speak TLS need a certificate"),
        (&["--route=127.0.0.1:0=https://a.example", &flag], 0, "--local-ca has no effect: no listener serves TLS"),
        (&["--route=tls://127.0.0.1:0=https://a.example", &flag], 0, ""),
        (&["--route=tls://unix:/tmp/a=https://a.example", &flag], 2, "TLS is served at TCP listeners only"),
        (
            &["--forward=127.0.0.1:0", "--allow=a", "--local-ca=/no/such"],
            2,
            "make a CA with `vouchsafe ca init /no/such",
        ),
    ] {
        let said = vouchsafe(&[&["config", "check", "--ca-bundle", &bundle], flags].concat());
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.err.contains(words), "{said:?}");
    }
}

#[test]
fn our_own_root_in_a_bundle_is_an_error_wherever_it_is_read() {
    let ca = LocalCa::new(&["a.example"]);
    let scratch = dir();
    let mixed = scratch.path().join("mixed.pem").display().to_string();
    let gallery = fs::read_to_string(gallery::bundle(Bundle::Root)).unwrap();
    for file in ["ca.pem", "issuer.pem"] {
        fs::write(&mixed, gallery.clone() + &fs::read_to_string(ca.file(file)).unwrap()).unwrap();
        let flags = ["--ca-bundle", &mixed, "--forward=127.0.0.1:0", "--allow=a.example", &ca.flag()];
        for command in [&["config", "check"][..], &["check", "a.example"]] {
            let said = vouchsafe(&[command, &flags].concat());
            assert_eq!(said.code, Some(2), "{said:?}");
            assert!(said.err.contains("the local CA is in it, by which this proxy would trust its own"), "{said:?}");
        }
        let said = vouchsafe(&["bundle", &mixed]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.contains("local_ca"), "{said:?}");
    }
    // Another proxy's is none of ours.
    let other = LocalCa::new(&["b.example"]);
    let flags = ["--ca-bundle", &mixed, "--forward=127.0.0.1:0", "--allow=a.example", &other.flag()];
    assert_eq!(vouchsafe(&[&["config", "check"], &flags[..]].concat()).code, Some(0));
}

#[test]
fn the_start_names_the_ca_and_a_ca_for_everything_is_loud() {
    let bundle = gallery::bundle(Bundle::Root);
    let ca = LocalCa::new(&[".cloud.example"]);
    let proxy = Proxy::start(&["--ca-bundle", &bundle, "--forward=127.0.0.1:0", "--allow=a.example", &ca.flag()]);
    let line = proxy.wait_for_log("the start line", |event| event["message"] == "local CA");
    assert_eq!(line["permits"], ".cloud.example");
    assert_eq!(line["sha256"].as_str().unwrap().len(), 64);
    let scratch = dir();
    let any = scratch.path().join("ca").display().to_string();
    assert_eq!(vouchsafe(&["ca", "init", &any, "--permit-anything"]).code, Some(0));
    let proxy =
        Proxy::start(&["--ca-bundle", &bundle, "--forward=127.0.0.1:0", "--allow=a.example", "--local-ca", &any]);
    proxy.wait_for_line("the warning", |line| line.contains("may sign for ANY NAME").then_some(()));
}

/// A certificate that a thief of the issuer's key signs, with its key; the files are `NAME.pem` (with the issuer),
/// `NAME.leaf` and `NAME.key`.
fn steal(ca: &LocalCa, to: &Path, name: &str, subject: Option<&str>, names: &[&str]) {
    let read = |file: &str| fs::read_to_string(ca.file(file)).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&read("issuer.pem"), KeyPair::from_pem(&read("issuer.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let (kind, text) = subject.map_or((DnType::OrganizationName, "thief"), |name| (DnType::CommonName, name));
    params.distinguished_name.push(kind, text);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - Duration::hours(1), now + Duration::hours(23));
    let name_of = |name: &&str| match name.parse::<IpAddr>() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName((*name).try_into().unwrap()),
    };
    params.subject_alt_names = names.iter().map(name_of).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap().pem();
    let write = |kind: &str, text: String| fs::write(to.join(format!("{name}.{kind}")), text).unwrap();
    write("pem", leaf.clone() + &read("issuer.pem"));
    write("leaf", leaf);
    write("key", key.serialize_pem());
}

/// Whether each verifier accepts each of these certificates for its name, as lines `NAME true`.
struct Verifiers<'a> {
    directory: &'a Path,
    root: String,
    issuer: String,
}

impl Verifiers<'_> {
    fn path(&self, file: &str) -> String {
        self.directory.join(file).display().to_string()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program).args(arguments).current_dir(self.directory).output().expect(program)
    }

    fn openssl(&self, certificate: &str, host: &str) -> bool {
        let what = if host.parse::<IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
        let (leaf, trusted) = (self.path(&format!("{certificate}.leaf")), ["-CAfile", &self.root]);
        let strict = ["verify", "-x509_strict", "-purpose", "sslserver", what, host, "-untrusted", &self.issuer];
        self.run("openssl", &[&strict[..], &trusted, &[&leaf]].concat()).status.success()
    }

    fn gnutls(&self, certificate: &str, host: &str) -> bool {
        let arguments = ["--verify", "--load-ca-certificate", &self.root, "--verify-hostname", host, "--infile"];
        self.run("certtool", &[&arguments[..], &[&self.path(&format!("{certificate}.pem"))]].concat()).status.success()
    }

    fn vouchsafe(&self, certificate: &str, host: &str) -> bool {
        let chain = self.path(&format!("{certificate}.pem"));
        vouchsafe(&["verify", "--ca-bundle", &self.root, "--name", host, &chain]).code == Some(0)
    }

    fn python(&self, certificate: &str, host: &str) -> bool {
        const SOURCE: &str = r"
import ssl, sys
root, chain, key, host = sys.argv[1:]
server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=root)
client.verify_flags |= ssl.VERIFY_X509_STRICT
server.load_cert_chain(chain, key)
up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
for _ in range(8):
    for end in ends:
        try: end.do_handshake()
        except ssl.SSLWantReadError: pass
        except ssl.SSLCertVerificationError as error: print(error); sys.exit(1)
";
        let files = ["pem", "key"].map(|kind| self.path(&format!("{certificate}.{kind}")));
        self.run("python3", &["-c", SOURCE, &self.root, &files[0], &files[1], host]).status.success()
    }

    fn go(&self, certificate: &str, host: &str) -> bool {
        const SOURCE: &str = r#"
            package main
            import ("crypto/x509"; "encoding/pem"; "fmt"; "os")
            func read(path string) *x509.Certificate {
                bytes, _ := os.ReadFile(path)
                block, _ := pem.Decode(bytes)
                certificate, err := x509.ParseCertificate(block.Bytes)
                if err != nil { panic(err) }
                return certificate
            }
            func main() {
                roots, issuers := x509.NewCertPool(), x509.NewCertPool()
                roots.AddCert(read(os.Args[1])); issuers.AddCert(read(os.Args[2]))
                options := x509.VerifyOptions{Roots: roots, Intermediates: issuers, DNSName: os.Args[4]}
                if _, err := read(os.Args[3]).Verify(options); err != nil { fmt.Println(err); os.Exit(1) }
            }
        "#;
        let program = self.path("verify-go");
        if !Path::new(&program).exists() {
            fs::write(self.path("main.go"), SOURCE).unwrap();
            let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
            let mut build = Command::new("go");
            build.args(["build", "-o", "verify-go", "main.go"]).current_dir(self.directory);
            build.env("GOCACHE", cache).env("GO111MODULE", "off").env("GOFLAGS", "");
            assert!(build.status().expect("go").success());
        }
        self.run(&program, &[&self.root, &self.issuer, &self.path(&format!("{certificate}.leaf")), host])
            .status
            .success()
    }

    /// All paths at once, since its start takes long.
    fn java(&self, cases: &[(&str, &str, bool)]) -> Vec<bool> {
        const SOURCE: &str = r#"
import java.io.*; import java.security.*; import java.security.cert.*; import java.util.*;
public class Verify {
    static X509Certificate[] read(String path) throws Exception {
        return CertificateFactory.getInstance("X.509").generateCertificates(new FileInputStream(path)).toArray(new X509Certificate[0]);
    }
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        store.setCertificateEntry("root", read(arguments[0])[0]);
        for (int at = 1; at < arguments.length; at++) {
            PKIXParameters path = new PKIXParameters(store);
            path.setRevocationEnabled(false);
            boolean accepted = true;
            try {
                X509Certificate[] chain = read(arguments[at]);
                CertPath certificates = CertificateFactory.getInstance("X.509").generateCertPath(Arrays.asList(chain));
                CertPathValidator.getInstance("PKIX").validate(certificates, path);
            } catch (GeneralSecurityException error) { accepted = false; }
            System.out.println(accepted);
        }
    }
}
"#;
        fs::write(self.path("Verify.java"), SOURCE).unwrap();
        let files = cases.iter().map(|(name, ..)| self.path(&format!("{name}.pem")));
        let arguments: Vec<_> = ["Verify.java".to_owned(), self.root.clone()].into_iter().chain(files).collect();
        let output = self.run("java", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(out.lines().count(), cases.len(), "{}", String::from_utf8_lossy(&output.stderr));
        out.lines().map(|line| line == "true").collect()
    }
}

/// What a thief of issuer.key can sign, and what no verifier takes from it.
#[test]
fn a_stolen_key_is_of_no_use_for_names_that_were_not_permitted() {
    for (permits, cases) in [
        (
            &[".cloud.example", "glance.example", "192.0.2.0/24"][..],
            &[
                ("suffix", "a.cloud.example", true),
                ("name", "glance.example", true),
                ("address", "192.0.2.7", true),
                ("evil", "evil.example", false),
                ("lookalike", "cloud.example.evil.example", false),
                ("glued", "evilcloud.example", false),
                ("address4", "198.51.100.1", false),
                ("loopback4", "127.0.0.1", false),
                ("address6", "2001:db8::1", false),
                ("loopback6", "::1", false),
            ][..],
        ),
        // Nothing but an address is permitted: no name is.
        (
            &["2001:db8::/32"],
            &[("address6", "2001:db8::7", true), ("evil", "evil.example", false), ("zero", "0.0.0.0", false)],
        ),
    ] {
        let (ca, scratch) = (LocalCa::new(permits), dir());
        let issuer = ca.file("issuer.pem").display().to_string();
        let verifiers = Verifiers { directory: scratch.path(), root: ca.root(), issuer };
        for (name, host, _) in cases {
            steal(&ca, scratch.path(), name, None, &[host]);
        }
        let of_java = verifiers.java(cases);
        for (place, (name, host, expected)) in cases.iter().enumerate() {
            let seen = [
                ("openssl", verifiers.openssl(name, host)),
                ("gnutls", verifiers.gnutls(name, host)),
                ("python", verifiers.python(name, host)),
                ("go", verifiers.go(name, host)),
                ("vouchsafe", verifiers.vouchsafe(name, host)),
                ("java", of_java[place]),
            ];
            for (verifier, accepts) in seen {
                assert_eq!(accepts, *expected, "{verifier}: {host} by a CA for {permits:?}");
            }
        }
        // One name outside spoils all of them.
        steal(&ca, scratch.path(), "mixed", None, &[cases[0].1, "evil.example"]);
        assert!(!verifiers.openssl("mixed", cases[0].1) && !verifiers.go("mixed", cases[0].1));
        assert!(!verifiers.gnutls("mixed", cases[0].1) && !verifiers.vouchsafe("mixed", cases[0].1));
    }
}
