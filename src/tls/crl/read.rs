//! Reads a list from DER (RFC 5280 section 5.1): once, in full, and with nothing passed over. What is not understood
//! makes the list refused, since it may be a revocation.

use std::{collections::BTreeMap, sync::OnceLock};

use time::OffsetDateTime;
use x509_parser::{asn1_rs::Any, extensions::GeneralName, prelude::FromDer, time::ASN1Time, x509::X509Name};

use super::{Covered, CrlError, EXPECTED, List, PointName, Revocation, Scope};
use crate::text::escape;

/// Why a list is refused.
pub(super) struct Refused {
    /// The issuer, if the bytes are a list at all.
    issuer: Option<String>,
    flaw: Flaw,
}

impl Refused {
    pub(super) fn of_file(self, file: &str) -> CrlError {
        let why = self.flaw.as_str();
        match self.issuer {
            None => CrlError::Unreadable(format!("`{file}`: not a revocation list: {why}{EXPECTED}")),
            Some(issuer) => {
                CrlError::Unusable(format!("`{file}`: the revocation list of `{issuer}` cannot be used: {why}"))
            }
        }
    }
}

/// What is wrong with a list.
#[derive(Clone, Copy)]
enum Flaw {
    AttributeCertificates,
    CriticalExtension,
    Delta,
    DistributionPoint,
    Indirect,
    Malformed,
    NoNextUpdate,
    SignatureAlgorithms,
    SomeReasons,
    TrailingData,
    TwiceTheSameExtension,
    Version,
    Version1Extensions,
}

impl Flaw {
    const fn as_str(self) -> &'static str {
        match self {
            Self::AttributeCertificates => "it is for attribute certificates only",
            Self::CriticalExtension => "it has a critical extension that is not understood",
            Self::Delta => "it is a delta list; give the complete one",
            Self::DistributionPoint => "its issuing distribution point is not understood",
            Self::Indirect => "it is an indirect list, which speaks for other issuers",
            Self::Malformed => "it is not well-formed DER",
            Self::NoNextUpdate => "it has no nextUpdate, so nobody can tell when it is out of date",
            Self::SignatureAlgorithms => "it names two signature algorithms that differ",
            Self::SomeReasons => "it is for some reasons of revocation only",
            Self::TrailingData => "there is more data after its end",
            Self::TwiceTheSameExtension => "an extension occurs twice",
            Self::Version => "its version is neither 1 nor 2",
            Self::Version1Extensions => "it has extensions and no version; version 1 has none",
        }
    }
}

impl List {
    /// Reads a list.
    pub(super) fn read(der: &[u8]) -> Result<Self, Refused> {
        let mut issuer = None;
        read(der, &mut issuer).map_err(|flaw| Refused { issuer, flaw })
    }
}

/// CertificateList. `named` becomes the issuer's name as soon as the bytes are known to be a list.
fn read(der: &[u8], named: &mut Option<String>) -> Result<List, Flaw> {
    let mut outer = Elements(der);
    let mut whole = Elements(outer.expect(SEQUENCE)?.contents);
    let signed = whole.expect(SEQUENCE)?;
    let mut list = Elements(signed.contents);

    let version = list.take(INTEGER)?.map(|version| version.contents);
    let algorithm = list.expect(SEQUENCE)?;
    let issuer = list.expect(SEQUENCE)?;
    let (_, issuer_name) = X509Name::from_der(issuer.whole).map_err(|_| Flaw::Malformed)?;
    let issuer_name = escape(&issuer_name.to_string());
    let this_update = list.time()?.ok_or(Flaw::Malformed)?;
    *named = Some(issuer_name.clone());

    if !matches!(version, None | Some([1])) {
        return Err(Flaw::Version);
    }
    let next_update = list.time()?.ok_or(Flaw::NoNextUpdate)?;
    let entries = list.take(SEQUENCE)?.map(|entries| entries.contents).unwrap_or_default();
    let (revoked, with_extensions) = read_entries(entries)?;
    let extensions = list.take(EXTENSIONS)?;
    list.end()?;
    if version.is_none() && (with_extensions || extensions.is_some()) {
        return Err(Flaw::Version1Extensions);
    }
    let Extensions { authority_key, scope } =
        extensions.map(|tagged| read_extensions(tagged.contents)).transpose()?.unwrap_or_default();

    if whole.expect(SEQUENCE)?.whole != algorithm.whole {
        return Err(Flaw::SignatureAlgorithms);
    }
    let signature = whole.expect(BIT_STRING)?;
    whole.end()?;
    outer.end().map_err(|_| Flaw::TrailingData)?;
    let Some((0, signature)) = signature.contents.split_first() else { return Err(Flaw::Malformed) };
    Ok(List {
        signed: signed.whole.to_vec(),
        signature: signature.to_vec(),
        algorithm: algorithm.contents.to_vec(),
        issuer: issuer.whole.to_vec(),
        issuer_name,
        authority_key,
        scope,
        this_update,
        next_update,
        revoked,
        signed_by: OnceLock::new(),
        not_signed_by: OnceLock::new(),
    })
}

/// revokedCertificates, and whether any entry has extensions.
fn read_entries(entries: &[u8]) -> Result<(BTreeMap<Vec<u8>, Revocation>, bool), Flaw> {
    let mut revoked = BTreeMap::new();
    let mut with_extensions = false;
    let mut entries = Elements(entries);
    while !entries.is_at_end() {
        let mut entry = Elements(entries.expect(SEQUENCE)?.contents);
        let serial = entry.expect(INTEGER)?.contents;
        let date = entry.time()?.ok_or(Flaw::Malformed)?;
        let extensions = entry.take(SEQUENCE)?.map(|extensions| extensions.contents).unwrap_or_default();
        entry.end()?;
        with_extensions |= !extensions.is_empty();
        if serial.is_empty() {
            return Err(Flaw::Malformed);
        }
        revoked.insert(serial.to_vec(), Revocation { date, reason: read_entry_extensions(extensions)? });
    }
    Ok((revoked, with_extensions))
}

/// The reason of an entry. CAs encode the absence of extensions as an empty sequence, too.
fn read_entry_extensions(extensions: &[u8]) -> Result<Option<&'static str>, Flaw> {
    let mut reason = None;
    each_extension(extensions, |extension| {
        match extension.of_certificates {
            Some(REASON_CODE) => {
                let mut value = Elements(extension.value);
                let code = value.expect(ENUMERATED)?.contents;
                value.end()?;
                reason = reason_in_words(code);
            }
            Some(INVALIDITY_DATE) => {}
            Some(CERTIFICATE_ISSUER) => return Err(Flaw::Indirect),
            _ if extension.critical => return Err(Flaw::CriticalExtension),
            _ => {}
        }
        Ok(())
    })?;
    Ok(reason)
}

fn reason_in_words(code: &[u8]) -> Option<&'static str> {
    Some(match code {
        [1] => "key compromised",
        [2] => "CA compromised",
        [3] => "affiliation changed",
        [4] => "superseded",
        [5] => "no longer in use",
        [6] => "on hold",
        [9] => "privilege withdrawn",
        [10] => "attribute authority compromised",
        _ => return None,
    })
}

#[derive(Default)]
struct Extensions {
    authority_key: Option<Vec<u8>>,
    scope: Scope,
}

fn read_extensions(tagged: &[u8]) -> Result<Extensions, Flaw> {
    let mut found = Extensions::default();
    let mut tagged = Elements(tagged);
    let extensions = tagged.expect(SEQUENCE)?.contents;
    tagged.end()?;
    each_extension(extensions, |extension| {
        match extension.of_certificates {
            Some(CRL_NUMBER) => {}
            Some(DELTA_CRL_INDICATOR) => return Err(Flaw::Delta),
            Some(ISSUING_DISTRIBUTION_POINT) => found.scope = read_scope(extension.value)?,
            Some(AUTHORITY_KEY_IDENTIFIER) => found.authority_key = key_identifier(extension.value),
            _ if extension.critical => return Err(Flaw::CriticalExtension),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

struct Extension<'a> {
    /// The last arc, if the identifier is below id-ce (2.5.29).
    of_certificates: Option<u8>,
    critical: bool,
    value: &'a [u8],
}

fn each_extension<'a>(
    extensions: &'a [u8],
    mut read: impl FnMut(Extension<'a>) -> Result<(), Flaw>,
) -> Result<(), Flaw> {
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut extensions = Elements(extensions);
    while !extensions.is_at_end() {
        let mut extension = Elements(extensions.expect(SEQUENCE)?.contents);
        let identifier = extension.expect(OBJECT_IDENTIFIER)?.contents;
        let critical = extension.take(BOOLEAN)?.map(|critical| boolean(critical.contents)).transpose()?;
        let value = extension.expect(OCTET_STRING)?.contents;
        extension.end()?;
        if seen.contains(&identifier) {
            return Err(Flaw::TwiceTheSameExtension);
        }
        seen.push(identifier);
        let of_certificates = if let [0x55, 0x1d, arc] = identifier { Some(*arc) } else { None };
        read(Extension { of_certificates, critical: critical == Some(true), value })?;
    }
    Ok(())
}

/// The keyIdentifier of an authorityKeyIdentifier.
fn key_identifier(value: &[u8]) -> Option<Vec<u8>> {
    let identifier = Elements(value).expect(SEQUENCE).ok()?;
    let key = Elements(identifier.contents).take(0x80).ok()??;
    Some(key.contents.to_vec())
}

/// IssuingDistributionPoint (section 5.2.5): a distribution point without a name is the issuer's only one.
fn read_scope(value: &[u8]) -> Result<Scope, Flaw> {
    let not_understood = |_| Flaw::DistributionPoint;
    let mut outer = Elements(value);
    let mut point = Elements(outer.expect(SEQUENCE).map_err(not_understood)?.contents);
    outer.end().map_err(not_understood)?;
    // An issuer must not issue an empty one.
    if point.is_at_end() {
        return Err(Flaw::DistributionPoint);
    }
    let flag = |point: &mut Elements<'_>, tag: u8| {
        let flag = point.take(tag).map_err(not_understood)?;
        flag.map_or(Ok(false), |flag| boolean(flag.contents).map_err(not_understood))
    };
    let names = point.take(0xa0).map_err(not_understood)?;
    let names = names.map(|name| read_names(name.contents).ok_or(Flaw::DistributionPoint)).transpose()?;
    let end_entities = flag(&mut point, 0x81)?;
    let authorities = flag(&mut point, 0x82)?;
    if point.take(0x83).map_err(not_understood)?.is_some() {
        return Err(Flaw::SomeReasons);
    }
    if flag(&mut point, 0x84)? {
        return Err(Flaw::Indirect);
    }
    if flag(&mut point, 0x85)? {
        return Err(Flaw::AttributeCertificates);
    }
    point.end().map_err(not_understood)?;
    let kind = match (end_entities, authorities) {
        (false, false) => Covered::All,
        (true, false) => Covered::EndEntities,
        (false, true) => Covered::Authorities,
        (true, true) => Covered::Nothing,
    };
    Ok(Scope { kind, names: names.unwrap_or_default() })
}

/// The names of a distribution point; `None` if one is not understood, or if they are relative to the issuer.
fn read_names(name: &[u8]) -> Option<Vec<PointName>> {
    let mut name = Elements(name);
    let full_name = name.take(0xa0).ok()??;
    name.end().ok()?;
    let mut rest = full_name.contents;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (behind, name) = GeneralName::from_der(rest).ok()?;
        if matches!(name, GeneralName::Invalid(..)) {
            return None;
        }
        names.push(PointName::of(&name));
        rest = behind;
    }
    if names.is_empty() { None } else { Some(names) }
}

fn boolean(contents: &[u8]) -> Result<bool, Flaw> {
    match contents {
        [0xff] => Ok(true),
        // The default should be left out.
        [0] => Ok(false),
        _ => Err(Flaw::Malformed),
    }
}

/// Elements of DER, one after the other. All tags here have one octet.
struct Elements<'a>(&'a [u8]);

struct Element<'a> {
    contents: &'a [u8],
    /// With tag and length.
    whole: &'a [u8],
}

impl<'a> Elements<'a> {
    fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    fn end(&self) -> Result<(), Flaw> {
        if self.is_at_end() { Ok(()) } else { Err(Flaw::Malformed) }
    }

    /// The next element, if it has this tag.
    fn take(&mut self, tag: u8) -> Result<Option<Element<'a>>, Flaw> {
        if self.0.first() != Some(&tag) {
            return Ok(None);
        }
        let all = self.0;
        let (rest, any) = Any::from_der(all).map_err(|_| Flaw::Malformed)?;
        self.0 = rest;
        Ok(Some(Element { contents: any.data, whole: &all[..all.len() - rest.len()] }))
    }

    fn expect(&mut self, tag: u8) -> Result<Element<'a>, Flaw> {
        self.take(tag)?.ok_or(Flaw::Malformed)
    }

    /// The next element, if it is a time.
    fn time(&mut self) -> Result<Option<OffsetDateTime>, Flaw> {
        let time = match self.take(UTC_TIME)? {
            Some(time) => Some(time),
            None => self.take(GENERALIZED_TIME)?,
        };
        let Some(time) = time else { return Ok(None) };
        let (_, time) = ASN1Time::from_der(time.whole).map_err(|_| Flaw::Malformed)?;
        Ok(Some(time.to_datetime()))
    }
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// crlExtensions \[0\] EXPLICIT.
const EXTENSIONS: u8 = 0xa0;

/// Arcs below id-ce (2.5.29).
const CRL_NUMBER: u8 = 20;
const REASON_CODE: u8 = 21;
const INVALIDITY_DATE: u8 = 24;
const DELTA_CRL_INDICATOR: u8 = 27;
const ISSUING_DISTRIBUTION_POINT: u8 = 28;
const CERTIFICATE_ISSUER: u8 = 29;
const AUTHORITY_KEY_IDENTIFIER: u8 = 35;
