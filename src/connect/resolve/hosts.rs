//! The hosts file: an address and its names in each line (hosts(5)).

use std::{fs, net::IpAddr, path::Path};

/// The addresses that the file has for a name, IPv4 first; none where there is no such file.
pub(super) fn addresses(file: &Path, name: &str) -> Vec<IpAddr> {
    parse(&fs::read(file).unwrap_or_default(), name)
}

/// Works on bytes, so that an odd one spoils its own word and no other.
fn parse(file: &[u8], name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in file.split(|byte| *byte == b'\n') {
        let entry = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(address) = words.next() else { continue };
        if !words.any(|word| word.strip_suffix(b".").unwrap_or(word).eq_ignore_ascii_case(name.as_bytes())) {
            continue;
        }
        if let Some(address) = parse_address(address)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

fn parse_address(word: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(word).ok()?.trim_start_matches('\u{feff}').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_whatever_else_is_in_the_file() {
        let file = b"\xef\xbb\xbf192.0.2.1 first\n\
            # comment with an odd byte \xff\n\
            \t2001:db8::1\tGlance.Example  alias # caf\xe9\r\n\
            192.0.2.7 odd\xff glance.example.\n\
            192.0.2.7 glance.example\n\
            192.0.2.300 alias\n\
            192.0.2.8\n\
            #192.0.2.9 glance.example\n\
            192.0.2.10 last";
        for (name, expected) in [
            ("first", &["192.0.2.1"][..]),
            ("glance.example", &["192.0.2.7", "2001:db8::1"]),
            ("GLANCE.example", &["192.0.2.7", "2001:db8::1"]),
            ("alias", &["2001:db8::1"]),
            ("last", &["192.0.2.10"]),
            ("example", &[]),
            ("192.0.2.8", &[]),
        ] {
            let found: Vec<_> = parse(file, name).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
