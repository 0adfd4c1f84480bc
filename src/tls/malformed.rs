//! What is wrong with a certificate or revocation list that webpki cannot read, in words.

use webpki::Error;

/// Whether an error means that something is malformed, and not that it is refused.
pub fn is_malformed(error: &Error) -> bool {
    matches!(
        error,
        Error::BadDer
            | Error::BadDerTime
            | Error::ExtensionValueInvalid
            | Error::InvalidNetworkMaskConstraint
            | Error::InvalidSerialNumber
            | Error::MalformedDnsIdentifier
            | Error::MalformedExtensions
            | Error::MalformedNameConstraint
            | Error::SignatureAlgorithmMismatch
            | Error::TrailingData(_)
            | Error::UnsupportedNameType
    )
}

/// The reason in words.
pub fn malformation(error: &Error) -> String {
    let words = match error {
        Error::BadDer => "it is not well-formed DER",
        Error::BadDerTime => "a time in it is not well-formed",
        Error::ExtensionValueInvalid => "an extension is malformed, or occurs twice",
        Error::InvalidNetworkMaskConstraint => "a name constraint has an invalid network mask",
        Error::InvalidSerialNumber => "a serial number in it is not well-formed",
        Error::MalformedDnsIdentifier => "a DNS name in it is malformed",
        Error::MalformedExtensions => "its extensions are malformed",
        Error::MalformedNameConstraint => "a name constraint is malformed",
        Error::SignatureAlgorithmMismatch => "it names two signature algorithms that differ",
        Error::TrailingData(_) => "there are bytes behind the end of a part",
        Error::UnsupportedNameType => "it has a name of a kind that is not understood",
        // Anything newer: the library's words.
        error => return error.to_string(),
    };
    words.to_owned()
}
