//! What is read, and what is refused with which line and cause.

use super::*;

/// The labels and lines of a text's blocks.
fn labels(text: &str) -> Vec<(String, usize)> {
    let blocks = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    blocks.into_iter().map(|block| (block.label, block.line)).collect()
}

fn refusal(text: impl AsRef<[u8]>) -> (Option<usize>, Cause) {
    match read(text.as_ref()) {
        Ok(blocks) => panic!("{:?}: {blocks:?}", String::from_utf8_lossy(text.as_ref())),
        Err(error) => (error.line, error.cause),
    }
}

fn block(label: &str) -> String {
    format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
}

#[test]
fn blocks_are_read_with_label_line_and_contents() {
    let text = format!("subject=CN = x\n{}\n\nmore text\n{}", block("CERTIFICATE"), block("X509 CRL"));
    assert_eq!(labels(&text), [("CERTIFICATE".to_owned(), 2), ("X509 CRL".to_owned(), 8)]);
    let blocks = read(b"-----BEGIN A-----\nTWFu\nTQ==\n-----END A-----").unwrap();
    assert_eq!(blocks[0].der, b"ManM");
    assert!(read(b"").unwrap().is_empty() && read(b"no PEM here\n").unwrap().is_empty());
}

/// RFC 7468 section 3, figure 3: no line break is needed at a boundary.
#[test]
fn boundaries_need_no_line_break() {
    let (one, two) = (block("A"), block("B"));
    let glued = format!("{}{two}", one.trim_end());
    assert_eq!(labels(&glued), [("A".to_owned(), 1), ("B".to_owned(), 3)]);
    for text in [
        format!("{}  \t{two}", one.trim_end()),
        format!("{}\u{feff}{two}", one.trim_end()),
        one.replace('\n', "") + &two.replace('\n', ""),
        one.replace('\n', " ") + &two.replace('\n', " "),
        glued.replace("AAAA\n", "AAAA"),
        glued.replace('\n', "\r\n"),
        glued.replace('\n', "\r"),
        glued.replace('\n', "  \n"),
        format!("\u{feff}{glued}"),
        format!("{one}\u{feff}{two}"),
        glued.replace("AAAA", "\nAA\n AA\n"),
    ] {
        let labels: Vec<_> = labels(&text).into_iter().map(|(label, _)| label).collect();
        assert_eq!(labels, ["A", "B"], "{text:?}");
        assert!(read(text.as_bytes()).unwrap().iter().all(|block| block.der == [0, 0, 0]));
    }
}

#[test]
fn whatever_resembles_a_block_is_read_or_refused_with_its_line() {
    use Cause::*;
    let good = block("CERTIFICATE");
    let with = |from: &str, to: &str| format!("{good}{}", good.replacen(from, to, 1));
    for (text, line, cause) in [
        (with("-----BEGIN", "----BEGIN"), 4, MisspelledBoundary),
        (with("-----BEGIN", "------BEGIN"), 4, MisspelledBoundary),
        (with("-----BEGIN ", "-----BEGIN"), 4, MisspelledBoundary),
        (with("-----BEGIN ", "----- BEGIN "), 4, MisspelledBoundary),
        (with("-----BEGIN ", "-----Begin "), 4, MisspelledBoundary),
        (with("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE----"), 4, MisspelledBoundary),
        (with("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE------"), 4, MisspelledBoundary),
        (with("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE"), 4, MisspelledBoundary),
        (with("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE -----"), 4, MisspelledBoundary),
        (with("BEGIN CERTIFICATE", "BEGIN certificate"), 4, MisspelledBoundary),
        (with("BEGIN CERTIFICATE", "BEGIN MIIsecret"), 4, MisspelledBoundary),
        (with("-----BEGIN", "—BEGIN"), 4, MisspelledBoundary),
        (with("-----BEGIN", "\u{2013}\u{2013}-BEGIN"), 4, MisspelledBoundary),
        (with("-----BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE"), 4, MisspelledBoundary),
        (with("-----BEGIN CERTIFICATE-----", "---- BEGIN SSH2 PUBLIC KEY ----"), 4, MisspelledBoundary),
        (with("-----BEGIN", "x ----BEGIN"), 4, MisspelledBoundary),
        (with("-----BEGIN", " -----BEGIN"), 4, Indented),
        (with("-----BEGIN", "\t-----BEGIN"), 4, Indented),
        (with("-----BEGIN", "# -----BEGIN"), 4, TextBeforeBoundary),
        (with("-----BEGIN", "\"-----BEGIN"), 4, TextBeforeBoundary),
        (with("-----BEGIN", "> -----BEGIN"), 4, TextBeforeBoundary),
        (with("-----BEGIN CERTIFICATE-----\n", ""), 5, EndWithoutBegin),
        (with("-----BEGIN CERTIFICATE-----\nAAAA\n", " "), 4, Indented),
        (with("-----END CERTIFICATE-----\n", ""), 4, BeginWithoutEnd),
        (with("-----END CERTIFICATE-----\n", "") + &good, 4, BeginWithoutEnd),
        (with("AAAA\n", "AAAA-----BEGIN CERTIFICATE-----\n"), 4, BeginWithoutEnd),
        (with("END CERTIFICATE", "END X509 CRL"), 6, OtherEnd),
        (with("-----END", "----END"), 6, MisspelledBoundary),
        (with("-----END", "—END"), 6, MisspelledBoundary),
        (with("END CERTIFICATE-----", "END CERTIFICATE----"), 6, MisspelledBoundary),
        (with("END CERTIFICATE-----", "END CERTIFICATE------"), 6, MisspelledBoundary),
        (with("END CERTIFICATE-----\n", "END CERTIFICATE---------BEGIN CERTIFICATE-----\n"), 6, MisspelledBoundary),
        (with("END CERTIFICATE-----\n", "END CERTIFICATE-----BEGIN CERTIFICATE-----\n"), 6, MisspelledBoundary),
        (with("END CERTIFICATE-----", "END CERTIFICATE----- # mine"), 6, TextAfterBoundary),
        (with("END CERTIFICATE-----", "END CERTIFICATE-----\","), 6, TextAfterBoundary),
        (with("AAAA", "AA*A"), 5, NotBase64),
        (with("AAAA", "AAA=A"), 5, NotBase64),
        (with("AAAA", "AAAA\nAA.A"), 6, NotBase64),
        (with("AAAA", "> AAAA"), 5, NotBase64),
        (with("AAAA", "AAA"), 4, IncompleteBase64),
        (with("AAAA", "AAAAA"), 4, IncompleteBase64),
        (with("AAAA", "A==="), 4, IncompleteBase64),
        (with("AAAA", ""), 4, IncompleteBase64),
        (with("AAAA", "Version: 1\n\nAAAA"), 4, Headers),
        (format!("{good}MIIB{}\n", "A".repeat(60)), 4, NoBoundaries),
        (good.replace('\n', "\\n"), 1, EscapedLineBreaks),
        (format!("{good}{}", good.replace('\n', "\\r\\n")), 4, EscapedLineBreaks),
        (format!("{{\n  \"ca\": \"{}\"\n}}\n", good.replace('\n', "\\n")), 2, Json),
        (format!("\n\nca.crt: {}\n", BASE64.encode(good.as_bytes())), 3, Base64OfPemInText),
    ] {
        assert_eq!(refusal(&text), (Some(line), cause), "{text:?}");
    }
}

#[test]
fn prose_is_no_block() {
    for text in [
        "end of file\n",
        "The end certificate is issued by the intermediate.\n",
        "# End-entity certificate\n",
        "# Beginning of the list of CAs - do not edit\n",
        "=====BEGIN=====\n",
        "friend key --\n",
        "Not Before: Nov 1 2026, the end: never\n",
        "-------------------\n",
    ] {
        assert!(labels(&format!("{text}{}", block("A"))).len() == 1, "{text}");
    }
}

#[test]
fn other_encodings_of_the_whole_file_are_named() {
    let good = block("CERTIFICATE");
    let utf_16 = |bytes: fn(u16) -> [u8; 2], text: &str| text.encode_utf16().flat_map(bytes).collect::<Vec<_>>();
    for mark in ["", "\u{feff}"] {
        let text = format!("{mark}{good}");
        for (bytes, little_endian) in [(u16::to_le_bytes as fn(u16) -> [u8; 2], true), (u16::to_be_bytes, false)] {
            assert_eq!(refusal(utf_16(bytes, &text)), (None, Cause::Utf16 { little_endian }));
        }
    }
    assert_eq!(refusal(BASE64.encode(format!("text{good}").as_bytes())), (None, Cause::Base64OfPem));
    let pkcs12 = BASE64.encode(b"\x30\x82\x01\x00\x02\x01\x03\x30");
    assert_eq!(refusal(format!("{pkcs12}\n")), (None, Cause::Base64OfBinary(Binary::Pkcs12)));
    assert_eq!(refusal(format!("{good}\0")), (Some(4), Cause::BinaryAndPem));
    assert_eq!(refusal([&[0x30, 0x82, 0, 1][..], good.as_bytes()].concat()), (None, Cause::BinaryAndPem));
    for (bytes, binary) in [
        (&b"\x30\x82\x01\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"[..], Binary::Pkcs7),
        (b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02", Binary::Pkcs7),
        (b"\x30\x82\x01\x00\x02\x01\x03\x30", Binary::Pkcs12),
        (b"\x30\x82\x01\x00\x02\x01\x00\x30", Binary::PrivateKey),
        (b"\x30\x05\x02\x01\x01\x04\x00", Binary::PrivateKey),
        (b"\x30\x82\x01\x00", Binary::Other),
        (b"\xfe\xed\xfe\xed\x00\x00\x00\x02", Binary::JavaKeyStore),
        (b"\x7fELF\0", Binary::Unknown),
    ] {
        assert_eq!(refusal(bytes), (None, Cause::Binary(binary)));
    }
}

#[test]
fn encrypted_keys_are_known_by_their_headers() {
    let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert!(read(text.as_bytes()).unwrap()[0].encrypted);
    assert!(!read(block("RSA PRIVATE KEY").as_bytes()).unwrap()[0].encrypted);
}

#[test]
fn errors_and_debug_forms_repeat_nothing_of_a_key() {
    let secret = "MIIsecretMIIsecretMIIsecretMIIsecretMIIsecretMIIsecretMIIsecret";
    let key = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
    for text in [
        key.replace('\n', ""),
        key.replace("-----\n", ""),
        key.replace("-----BEGIN", "----BEGIN"),
        key.replace("-----END", "----END"),
        key.replace("END PRIVATE", "END EC PRIVATE"),
        key.replace("secret", "*secret"),
        key.replace('\n', "\\n"),
        key.replace("-----BEGIN PRIVATE KEY-----\n", ""),
        key,
    ] {
        let said = format!("{:?}", read(text.as_bytes()));
        let sentence = read(text.as_bytes()).err().map(|error| error.sentence("k.pem", Wanted::ClientIdentity));
        assert!(!said.contains("secret") && !sentence.unwrap_or_default().contains("secret"), "{text}: {said}");
    }
}

#[test]
fn file_names_in_hints_are_quoted_for_a_shell() {
    for (file, expected) in [
        ("/etc/ca.pem", "/etc/ca.pem"),
        ("my ca.p12", "'my ca.p12'"),
        ("it's", r"'it'\''s'"),
        ("-x", "'./-x'"),
        ("a;b", "'a;b'"),
    ] {
        assert_eq!(quoted(file), expected);
    }
}
