//! Names as people and messages write them: one canonical form that reads back as itself, or a sentence.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;

use vouchsafe::{
    message::authority::{Authority, AuthorityError, Host},
    text::escape,
    tls::identity::ReferenceId,
};
use vouchsafe_fuzz::is_plain;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    if let Some(host) = read::<Host>(&text) {
        reads_back(&host.to_string(), &host);
        reads_back(&host.in_authority(), &host);
        if let Host::Name(name) = &host {
            let name = name.as_str();
            assert!(name.len() <= 253 && name.is_ascii() && *name == *name.to_ascii_lowercase());
        }
        match ReferenceId::of(&host) {
            Ok(reference) => {
                reads_back(&reference.value(), &host);
                assert_eq!(reference.server_name().to_str(), reference.value());
                is_plain(&reference.to_string());
            }
            Err(name) => assert_eq!(name, host.to_string()),
        }
    }
    if let Some(authority) = read::<Authority>(&text) {
        assert_ne!(authority.port, Some(0));
        reads_back(&authority.to_string(), &authority);
        reads_back(&authority.host.to_string(), &authority.host);
    }
    let safe = escape(&text);
    is_plain(&safe);
    // 300 bytes, what the last character became, and `…`; what is shorter is not cut, nor escaped again.
    assert!(safe.len() <= 300 + "\\u{10ffff}".len() + '…'.len_utf8(), "{safe}");
    assert!(safe.len() >= 300 || escape(&safe) == safe, "{safe}");
});

fn read<T: std::str::FromStr<Err = AuthorityError>>(text: &str) -> Option<T> {
    text.parse().map_err(|error: AuthorityError| is_plain(&error.to_string())).ok()
}

fn reads_back<T: std::str::FromStr<Err = AuthorityError> + Debug + PartialEq>(text: &str, same: &T) {
    assert_eq!(text.parse::<T>().as_ref(), Ok(same), "{text}");
}
