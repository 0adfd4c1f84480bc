//! `Via` (RFC 9110 section 7.6.3), by which loops are found.

use crate::http1::{
    Version,
    fields::{FieldName, Fields},
};

/// What this proxy calls itself in `Via`.
#[derive(Clone, Debug)]
pub struct Pseudonym {
    name: String,
    received_by_10: String,
    received_by_11: String,
}

impl Pseudonym {
    /// A name with eight hexadecimal digits, to differ from that of any other proxy.
    pub fn of(digits: u32) -> Self {
        let name = format!("vouchsafe-{digits:08x}");
        Self { received_by_10: format!("1.0 {name}"), received_by_11: format!("1.1 {name}"), name }
    }

    /// The field value for this hop, by which a message was received in this version.
    pub fn via(&self, received: Version) -> &[u8] {
        match received {
            Version::Http10 => self.received_by_10.as_bytes(),
            Version::Http11 => self.received_by_11.as_bytes(),
        }
    }

    /// Whether the message passed this proxy before: a loop.
    pub fn is_in(&self, fields: &Fields) -> bool {
        let mut words =
            fields.values(FieldName::Via).flat_map(|value| value.split(|byte| matches!(byte, b',' | b' ' | b'\t')));
        words.any(|word| word == self.name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_passed_here_before_is_a_loop() {
        let own = Pseudonym::of(0x1a2b);
        for (via, expected) in [("1.0 fred, 1.1 p.example.net", false), ("1.0 fred,1.1 vouchsafe-00001a2b (x)", true)] {
            let mut fields = Fields::default();
            fields.append(b"via", via.as_bytes());
            assert_eq!(own.is_in(&fields), expected);
        }
        assert_eq!(own.via(Version::Http10), b"1.0 vouchsafe-00001a2b");
    }
}
