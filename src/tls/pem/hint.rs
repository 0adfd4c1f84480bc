//! What is wrong with a file in words, and the commands that convert it. Tests run each command with the real `openssl`.

use std::fmt;

use super::{Binary, Cause, PemError, Wanted};

impl PemError {
    /// The cause with its line, and below it a hint that names the file where there is one.
    pub fn sentence(&self, file: &str, wanted: Wanted) -> String {
        let hint = self.cause.hint(file, wanted).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("{self}{hint}")
    }
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.cause.fmt(f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for PemError {}

impl Cause {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Binary(binary) => binary.as_str(),
            Self::BinaryAndPem => "it is not PEM: there is binary data in it",
            Self::Utf16 { .. } => "it is UTF-16, not ASCII or UTF-8",
            Self::Utf32 { .. } => "it is UTF-32, not ASCII or UTF-8",
            Self::Json => "it is JSON, and the PEM text is a string in it",
            Self::EscapedLineBreaks => "the line breaks are written as `\\n`",
            Self::Base64OfPem => "the PEM text is encoded in base64 once more",
            Self::Base64OfPemInText => "a value on the line is PEM text that is encoded in base64 once more",
            Self::Base64OfBinary(_) => "it is base64 without `-----BEGIN` and `-----END` lines",
            Self::NoBoundaries => "base64 text outside of a block: the `-----BEGIN` line before it is missing",
            Self::Indented => "the `-----BEGIN` or `-----END` line is indented",
            Self::TextBeforeBoundary => "there is text before `-----BEGIN` or `-----END` on the line",
            Self::TextAfterBoundary => "there is text after the `-----END` boundary on the line",
            Self::MisspelledBoundary => {
                "it looks like a BEGIN or END line, but is not written `-----BEGIN LABEL-----` or `-----END LABEL-----`"
            }
            Self::OtherEnd => "the `-----END` line has another label than the `-----BEGIN` line",
            Self::EndWithoutBegin => "the `-----END` line has no `-----BEGIN` line",
            Self::BeginWithoutEnd => "the block that begins here has no `-----END` line",
            Self::NotBase64 => "the text of the block is not base64",
            Self::IncompleteBase64 => "the base64 text of the block that begins here is cut off or empty",
            Self::Headers => "the block that begins here has header lines, which only private keys may have",
        }
    }

    /// What makes the file readable.
    pub fn hint(self, file: &str, wanted: Wanted) -> Option<String> {
        let file = &*quoted(file);
        Some(match self {
            Self::Binary(binary) => return binary.hint(file, wanted),
            Self::Utf16 { little_endian } => {
                let from = if little_endian { "UTF-16LE" } else { "UTF-16BE" };
                format!("convert it: `iconv -f {from} -t UTF-8 {file} >{file}.pem`")
            }
            Self::Utf32 { little_endian } => {
                let from = if little_endian { "UTF-32LE" } else { "UTF-32BE" };
                format!("convert it: `iconv -f {from} -t UTF-8 {file} >{file}.pem`")
            }
            Self::Json => {
                format!("write the string to a file of its own, for example with `jq -r .KEY {file} >{file}.pem`")
            }
            Self::EscapedLineBreaks => {
                format!("write them as line breaks: `printf '%b\\n' \"$(tr -d '\"' <{file})\" >{file}.pem`")
            }
            Self::Base64OfPem => format!("decode it: `base64 -d {file} >{file}.pem`"),
            Self::Base64OfPemInText => "decode the value, and write it to a file of its own".into(),
            Self::Base64OfBinary(binary) => return binary.decoding(file, wanted),
            Self::Indented => format!("remove the white space: `sed 's/^[[:space:]]*//' {file} >{file}.pem`"),
            Self::BinaryAndPem => "keep binary files and PEM apart, and convert the former".into(),
            Self::BeginWithoutEnd | Self::IncompleteBase64 | Self::NotBase64 => {
                "get the file again; it was cut off or changed".into()
            }
            _ => return None,
        })
    }
}

impl Binary {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Certificate | Self::Other => "it is DER, not PEM",
            Self::Crl => "it is a revocation list in DER",
            Self::Request => "it is a certificate request in DER, not a certificate",
            Self::PrivateKey => "it is a private key in DER, not PEM",
            Self::Pkcs7 => "it is PKCS #7 in DER, not PEM",
            Self::Pkcs12 => "it is PKCS #12, not PEM",
            Self::JavaKeyStore => "it is a Java key store, not PEM",
            Self::Unknown => "it is a binary file, not PEM",
        }
    }

    /// `file` is quoted.
    fn hint(self, file: &str, wanted: Wanted) -> Option<String> {
        match (self, wanted) {
            (Self::Certificate, Wanted::Crls) => {
                Some("this is a certificate; CAs to trust are given with --ca-bundle".into())
            }
            (Self::Crl, Wanted::Certificates) => Some("lists are given with --crl".into()),
            _ => {
                let (what, command) = self.conversion(wanted)?;
                Some(format!("{what}: `{command} -in {file} -out {file}.pem`"))
            }
        }
    }

    /// The same for a file that is encoded in base64. `file` is quoted.
    fn decoding(self, file: &str, wanted: Wanted) -> Option<String> {
        let (_, command) = self.conversion(wanted)?;
        Some(format!("decode and convert it: `base64 -d {file} | {command} -out {file}.pem`"))
    }

    /// The command that converts it to PEM, without input and output, and what that does.
    const fn conversion(self, wanted: Wanted) -> Option<(&'static str, &'static str)> {
        Some(match (self, wanted) {
            (Self::Certificate | Self::Other, Wanted::Certificates | Wanted::ClientIdentity) => {
                ("convert it", "openssl x509 -inform DER")
            }
            (Self::Pkcs7, _) => ("take the certificates out", "openssl pkcs7 -inform DER -print_certs"),
            (Self::Pkcs12, Wanted::Certificates) => ("take the certificates out", "openssl pkcs12 -nokeys"),
            (Self::Pkcs12, Wanted::ClientIdentity) => ("take certificate and key out", "openssl pkcs12 -nodes"),
            (Self::PrivateKey, Wanted::ClientIdentity) => ("convert it", "openssl pkey -inform DER"),
            (Self::Crl, Wanted::Crls) => ("convert it", "openssl crl -inform DER"),
            _ => return None,
        })
    }
}

/// How to make CERTIFICATE blocks of a block that holds certificates in another form.
pub fn remedy(label: &str, file: &str) -> Option<String> {
    let file = quoted(file);
    Some(match label {
        "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => {
            format!("write it as plain certificates: `openssl storeutl -certs -out {file}.pem {file}`")
        }
        "PKCS7" | "PKCS #7 SIGNED DATA" => {
            format!("take the certificates out: `openssl pkcs7 -print_certs -in {file} -out {file}.pem`")
        }
        "CMS" => format!(
            "take the certificates out: `openssl cms -cmsout -inform PEM -in {file} -outform DER | openssl pkcs7 -inform DER -print_certs -out {file}.pem`"
        ),
        _ => return None,
    })
}

/// How to take the certificates out of PKCS #7 under the label of a certificate.
pub fn relabelled(file: &str) -> String {
    let file = quoted(file);
    format!(
        "take the certificates out: `sed 's/ CERTIFICATE-/ PKCS7-/' {file} | openssl pkcs7 -print_certs -out {file}.pem`"
    )
}

/// A file name as an argument of a POSIX shell.
pub fn quoted(file: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if !file.is_empty() && !file.starts_with('-') && file.chars().all(plain) {
        return file.to_owned();
    }
    let file = if file.starts_with('-') { format!("./{file}") } else { file.to_owned() };
    format!("'{}'", file.replace('\'', r"'\''"))
}
