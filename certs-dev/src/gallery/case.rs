//! The cases: what each is called, what it is about, and what shall come of it.

use std::str::FromStr;

use crate::error::Error;

/// What shall come of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// The certificate is good.
    Accept,
    /// The certificate is refused, with this code.
    Refuse(&'static str),
}

impl Expected {
    /// `accept`, or the code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Refuse(code) => code,
        }
    }
}

/// What a client trusts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bundle {
    /// The root and the intermediate, as DevStack installs them.
    DevStack,
    /// The root, an expired root, and the self-signed certificates that are trusted as they are.
    Plus,
    /// The root alone.
    Root,
}

impl Bundle {
    /// Every bundle.
    pub const ALL: &[Self] = &[Self::DevStack, Self::Plus, Self::Root];

    /// The name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::DevStack => "bundle-devstack.pem",
            Self::Plus => "bundle-plus.pem",
            Self::Root => "bundle-root.pem",
        }
    }
}

/// Fills in the cases from one table, so that a row cannot be forgotten anywhere.
macro_rules! cases {
    ($($case:ident, $id:literal, $bundle:ident, $expected:expr, $about:literal;)*) => {
        /// One server certificate, and one thing that is right or wrong with it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Case {
            $(#[doc = $about] $case,)*
        }

        impl Case {
            /// Every case, the good ones first.
            pub const ALL: &[Self] = &[$(Self::$case),*];

            /// Its stable name.
            pub fn id(self) -> &'static str {
                match self { $(Self::$case => $id,)* }
            }

            /// One plain sentence about it.
            pub fn about(self) -> &'static str {
                match self { $(Self::$case => $about,)* }
            }

            /// What shall come of it with its [`Case::bundle`] (and for `revoked`, the lists).
            pub fn expected(self) -> Expected {
                match self { $(Self::$case => $expected,)* }
            }

            /// What its client trusts.
            pub fn bundle(self) -> Bundle {
                match self { $(Self::$case => Bundle::$bundle,)* }
            }

            fn own_name(self) -> &'static str {
                match self { $(Self::$case => concat!($id, ".gallery.test"),)* }
            }
        }
    };
}

use Expected::{Accept, Refuse};

cases! {
    Good, "good", Root, Accept,
        "a sound certificate for one DNS name";
    GoodIp, "good-ip", Root, Accept,
        "a sound certificate for the addresses 127.0.0.1 and ::1";
    GoodWildcard, "good-wildcard", Root, Accept,
        "a wildcard that stands for one label";
    GoodEcdsaP384, "good-ecdsa-p384", Root, Accept,
        "a key on the curve P-384";
    GoodRsa2048, "good-rsa2048", Root, Accept,
        "an RSA key with 2048 bits";
    RootSent, "root-sent", Root, Accept,
        "the server sends the root too, which is needless but harmless";
    SelfSignedInBundleCa, "self-signed-in-bundle-ca", Plus, Accept,
        "self-signed with CA:TRUE, as `openssl req -x509` makes it, and in the bundle";
    SelfSignedInBundleLeaf, "self-signed-in-bundle-leaf", Plus, Accept,
        "self-signed with CA:FALSE, and in the bundle";

    Expired, "expired", Root, Refuse("expired"),
        "the server certificate ended ten days ago";
    ExpiredIntermediate, "expired-intermediate", Root, Refuse("expired"),
        "the intermediate ended ten days ago, the server certificate is current";
    NotYetValid, "not-yet-valid", Root, Refuse("not_yet_valid"),
        "the server certificate begins in ten days";
    WrongName, "wrong-name", Root, Refuse("name_mismatch"),
        "the certificate is for another DNS name";
    WildcardTwoLabels, "wildcard-two-labels", Root, Refuse("name_mismatch"),
        "a wildcard would have to stand for two labels";
    WildcardPartial, "wildcard-partial", Root, Refuse("name_mismatch"),
        "a wildcard stands for a part of a label";
    CnOnly, "cn-only", Root, Refuse("no_san"),
        "the name stands in the common name alone, there is no SAN";
    WrongIp, "wrong-ip", Root, Refuse("ip_san_missing"),
        "the certificate is for another address";
    NoIpSan, "no-ip-san", Root, Refuse("ip_san_missing"),
        "reached by its address, but the certificate holds a DNS name alone";
    IpAsDns, "ip-as-dns", Root, Refuse("ip_san_missing"),
        "the address stands in the SAN as if it were a DNS name";
    MissingIntermediate, "missing-intermediate", Root, Refuse("incomplete_chain"),
        "the server does not send the intermediate";
    UnknownRoot, "unknown-root", Root, Refuse("unknown_issuer"),
        "the chain leads to a root that is not in the bundle";
    SameNameOtherKey, "same-name-other-key", Root, Refuse("issuer_key_mismatch"),
        "the issuer has the name of the root in the bundle, but another key";
    SelfSignedUnknownCa, "self-signed-unknown-ca", Root, Refuse("self_signed_not_in_bundle"),
        "self-signed with CA:TRUE, and not in the bundle";
    SelfSignedUnknownLeaf, "self-signed-unknown-leaf", Root, Refuse("self_signed_not_in_bundle"),
        "self-signed with CA:FALSE, and not in the bundle";
    SelfSignedLookalike, "self-signed-lookalike", Plus, Refuse("self_signed_not_in_bundle"),
        "self-signed, with the names of one in the bundle, but another key";
    SelfSignedInBundleWrongName, "self-signed-in-bundle-wrong-name", Plus, Refuse("name_mismatch"),
        "self-signed and in the bundle, but for another name";
    SelfSignedInBundleExpired, "self-signed-in-bundle-expired", Plus, Refuse("expired"),
        "self-signed and in the bundle, but ended ten days ago";
    WrongPurpose, "wrong-purpose", Root, Refuse("wrong_purpose"),
        "the certificate is for clients alone";
    NameConstraint, "name-constraint", Root, Refuse("name_constraint"),
        "the intermediate may issue for another domain only";
    IssuerNotCa, "issuer-not-ca", Root, Refuse("issuer_not_ca"),
        "the issuer is no authority (CA:FALSE)";
    IssuerMayNotSign, "issuer-may-not-sign", Root, Refuse("issuer_may_not_sign"),
        "the issuer's key usage does not let it sign certificates";
    PathLength, "path-length", Root, Refuse("path_length"),
        "an authority stands below one that may have none below it";
    CaAsServer, "ca-as-server", Root, Refuse("ca_as_server"),
        "an authority's certificate (CA:TRUE) is used for a server";
    WeakRsa, "weak-rsa", Root, Refuse("weak_key"),
        "the server's RSA key has 1024 bits";
    Sha1Signature, "sha1-signature", Root, Refuse("weak_signature"),
        "the certificate is signed with SHA-1";
    BadSignature, "bad-signature", Root, Refuse("bad_signature"),
        "one bit of the certificate's signature is wrong";
    Revoked, "revoked", Root, Refuse("revoked"),
        "the certificate is revoked, which only the revocation list tells";
    ExpiredRoot, "expired-root", Plus, Refuse("root_expired"),
        "the root in the bundle ended ten days ago";
    CriticalExtension, "critical-extension", Root, Refuse("critical_extension"),
        "a critical extension that nobody knows";
    Malformed, "malformed", Root, Refuse("malformed_certificate"),
        "the certificate is cut in half";
    Version1, "version-1", Root, Refuse("cert_version"),
        "an X.509 certificate of version 1";
}

impl Case {
    /// The name or address that its client asks for, on 127.0.0.1.
    pub fn name(self) -> &'static str {
        match self {
            _ if self.is_ip() => "127.0.0.1",
            // It can only be mistaken for the other under the other's name.
            Self::SelfSignedLookalike => Self::SelfSignedInBundleCa.own_name(),
            _ => self.own_name(),
        }
    }

    /// Whether it is asked for by address.
    pub fn is_ip(self) -> bool {
        matches!(self, Self::GoodIp | Self::WrongIp | Self::NoIpSan | Self::IpAsDns)
    }

    /// Whether the verdict needs [`Gallery::crl_pem`](super::Gallery::crl_pem); without, it is good.
    pub fn needs_crl(self) -> bool {
        self == Self::Revoked
    }

    /// Whether its own certificate stands in [`Bundle::Plus`].
    pub(super) fn stands_in_bundle(self) -> bool {
        matches!(
            self,
            Self::SelfSignedInBundleCa
                | Self::SelfSignedInBundleLeaf
                | Self::SelfSignedInBundleWrongName
                | Self::SelfSignedInBundleExpired
        )
    }
}

impl FromStr for Case {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().copied().find(|case| case.id() == id);
        found.ok_or_else(|| Error::UnknownCase(id.to_owned()))
    }
}
