//! `vouchsafe ca init`: makes a local CA.

use std::{
    fmt,
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

use crate::tls::fingerprint::Fingerprint;

use super::{
    ISSUER_FILE, KEY_FILE, ROOT_FILE,
    files::{FileMode, ORGANIZATION},
    leaf::random_serial,
    permit::Permits,
};

/// A CA to be made.
#[derive(Clone, Debug)]
pub struct CaSpec {
    /// The host that it is made on, for people.
    pub host: String,
    /// What it may sign for.
    pub permits: Permits,
    /// The time of day.
    pub now: OffsetDateTime,
}

/// Both certificates and the issuer's key, PEM. The root's key is gone.
pub struct NewCa {
    /// The root.
    pub root: String,
    /// The root's fingerprint.
    pub sha256: Fingerprint,
    issuer: String,
    key: String,
}

impl fmt::Debug for NewCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewCa").field("root", &self.root).finish_non_exhaustive()
    }
}

/// For so long a CA is valid.
const LIFE: Duration = Duration::days(730);

/// Clocks differ: it is valid from so long ago.
const BACKDATED: Duration = Duration::hours(1);

/// RFC 5280 appendix A, ub-common-name.
const LONGEST_NAME: usize = 64;

impl CaSpec {
    /// Makes the keys and signs the certificates. The root signs one intermediate, and its key is dropped unwritten.
    fn make(&self) -> Result<NewCa, rcgen::Error> {
        let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root_params = self.params(self.common_name(), 1);
        let root = root_params.self_signed(&root_key)?;
        let issuer_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issuer_params = self.params("vouchsafe issuer".into(), 0);
        let issuer = issuer_params.signed_by(&issuer_key, &Issuer::new(root_params, root_key))?;
        let sha256 = Fingerprint::of(root.der());
        Ok(NewCa { root: root.pem(), sha256, issuer: issuer.pem(), key: issuer_key.serialize_pem() })
    }

    fn params(&self, common_name: String, path_length: u8) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = self.now - BACKDATED;
        params.not_after = self.now + LIFE;
        params.serial_number = random_serial();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        params.name_constraints = self.permits.constraints();
        params
    }

    /// Who made the root, what for, and when; for whoever finds it among the trusted ones.
    fn common_name(&self) -> String {
        let date = self.now.date();
        let what = match &self.permits {
            Permits::Anything => "for ANY NAME".to_owned(),
            Permits::Only(permits) => match permits.as_slice() {
                [one] => format!("only for {one}"),
                [first, rest @ ..] => format!("only for {first} and {} more", rest.len()),
                [] => "for nothing".to_owned(),
            },
        };
        let end = format!(", {what}, made {date}");
        let host: String =
            self.host.chars().take(LONGEST_NAME.saturating_sub("vouchsafe on ".len() + end.len())).collect();
        let name = if host.is_empty() { format!("vouchsafe, {what}") } else { format!("vouchsafe on {host}{end}") };
        name.chars().take(LONGEST_NAME).collect()
    }
}

/// Makes a CA in a directory, which is made where it does not exist. Of several processes that do so at once, one makes
/// the CA and the others fail.
///
/// # Errors
/// [`InitError`]
pub fn init(directory: &Path, spec: &CaSpec) -> Result<NewCa, InitError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| InitError::File(path, error)
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(at(directory))?,
    }
    FileMode::of(directory).and_then(|mode| mode.check_directory()).map_err(InitError::Unsafe)?;
    let new = spec.make().map_err(InitError::Sign)?;
    // Whoever makes the key makes the CA. The root comes last: with it, the CA is whole.
    let files = [(KEY_FILE, &new.key, 0o600), (ISSUER_FILE, &new.issuer, 0o600), (ROOT_FILE, &new.root, 0o644)];
    let mut made = Vec::new();
    for (name, text, mode) in files {
        let path = directory.join(name);
        let written = write_new(&path, text, mode, &mut made);
        if let Err(error) = written {
            for path in &made {
                // What failed is reported; the next attempt finds what is left.
                let _ = fs::remove_file(path);
            }
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => InitError::Exists(path),
                _ => InitError::File(path, error),
            });
        }
    }
    OpenOptions::new().read(true).open(directory).and_then(|opened| opened.sync_all()).map_err(at(directory))?;
    Ok(new)
}

/// Writes a file that did not exist, and notes that it was made.
fn write_new(path: &Path, text: &str, mode: u32, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    made.push(path.to_owned());
    // Whatever the umask takes away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Why there is no new CA.
#[derive(Debug)]
pub enum InitError {
    /// There is one already, or a part of one.
    Exists(PathBuf),
    /// A file or the directory cannot be made.
    File(PathBuf, io::Error),
    /// The cryptographic library refuses.
    Sign(rcgen::Error),
    /// Others could change what is in the directory.
    Unsafe(String),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(path) => write!(
                f,
                "`{}` exists: a CA is never overwritten\n  hint: name another directory, or remove this one if no client trusts its {ROOT_FILE} any more",
                path.display()
            ),
            Self::File(path, error) => write!(f, "`{}`: {error}", path.display()),
            Self::Sign(error) => write!(f, "the CA cannot be made: {error}"),
            Self::Unsafe(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for InitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_root_is_short_enough_for_every_reader() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let long = format!(".{}.example", "a".repeat(50));
        for (host, permits, expected) in [
            (
                "glance-host",
                &[".cloud.example"][..],
                "vouchsafe on glance-ho, only for .cloud.example, made 1970-01-01",
            ),
            ("h", &["a.example", "b.example"], "vouchsafe on h, only for a.example and 1 more, made 1970-01-01"),
            ("h", &[&long], &format!("vouchsafe, only for .{}", "a".repeat(43))),
        ] {
            let permits = Permits::Only(permits.iter().map(|text| text.parse().unwrap()).collect());
            let name = CaSpec { host: host.into(), permits, now }.common_name();
            assert_eq!(name, expected);
            assert!(name.len() <= LONGEST_NAME, "{name}");
        }
        let any = CaSpec { host: "h".into(), permits: Permits::Anything, now };
        assert_eq!(any.common_name(), "vouchsafe on h, for ANY NAME, made 1970-01-01");
    }
}
