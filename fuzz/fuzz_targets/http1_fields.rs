//! The field lines of a head, read and changed: the same as a list of lines that is kept along with them. The first byte
//! says whose head it is and how many changes follow, one in each byte; then comes the head.

#![no_main]

use libfuzzer_sys::fuzz_target;

use vouchsafe::http1::{
    fields::{Field, FieldName, FieldNames, Fields},
    head::{HeadLimits, HeadScan, RequestHead, ResponseHead},
};

const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024, fields: 100 };

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let Some((changes, head)) = rest.split_at_checked(usize::from(first & 0x0f)) else { return };
    let (mut fields, mut lines) = if first & 0x80 == 0 {
        let read = RequestHead::read(head, &mut HeadScan::default(), LIMITS, &mut Vec::new());
        let Ok(Some((read, size))) = read else { return };
        (read.fields, lines(&head[..size], false))
    } else {
        let read = ResponseHead::read(head, &mut HeadScan::default(), LIMITS, true);
        let Ok(Some((read, size))) = read else { return };
        let (fields, mut lines) = (read.fields, lines(&head[..size], true));
        merge_lengths(&mut lines);
        (fields, lines)
    };
    is_same(&fields, &lines);
    for change in changes {
        alter(*change, &mut fields, &mut lines);
        is_same(&fields, &lines);
    }
});

/// A line as it is written, and what it says.
#[derive(Clone, Debug)]
struct Line {
    raw: Vec<u8>,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Line {
    fn new(name: &[u8], value: &[u8]) -> Self {
        Self { raw: [name, b": ", value, b"\r\n"].concat(), name: name.to_vec(), value: value.to_vec() }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Another reading of a head that is accepted.
fn lines(head: &[u8], may_fold: bool) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut parts = head.split_inclusive(|byte| *byte == b'\n').skip_while(|part| part.trim_ascii().is_empty());
    parts.next();
    for part in parts {
        if part == b"\n" || part == b"\r\n" {
            break;
        }
        let value = |text: &[u8]| text.trim_ascii().to_vec();
        if part.starts_with(b" ") || part.starts_with(b"\t") {
            assert!(may_fold);
            let line = lines.last_mut().expect("a first line");
            let joined = [&*line.value, &*value(part)].join(&b' ').trim_ascii().to_vec();
            *line = Line::new(&line.name, &joined);
            continue;
        }
        let colon = part.iter().position(|byte| *byte == b':').expect("a colon");
        let mut line = Line::new(&part[..colon], &value(&part[colon + 1..]));
        if part.ends_with(b"\r\n") {
            line.raw = part.to_vec();
        }
        lines.push(line);
    }
    lines
}

/// Equal Content-Lengths of a response become one.
fn merge_lengths(lines: &mut Vec<Line>) {
    let lengths: Vec<_> = lines.iter().filter(|line| line.is("content-length")).cloned().collect();
    let Some(first) = lengths.first() else { return };
    if lengths.len() > 1 || first.value.contains(&b',') {
        let value = first.value.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        set(lines, "Content-Length", value);
    }
}

fn set(lines: &mut Vec<Line>, name: &str, value: &[u8]) {
    match lines.iter().position(|line| line.is(name)) {
        Some(at) => {
            lines[at] = Line::new(&lines[at].name, value);
            let mut index = 0;
            lines.retain(|line| {
                index += 1;
                index - 1 == at || !line.is(name)
            });
        }
        None => lines.insert(0, Line::new(name.as_bytes(), value)),
    }
}

fn alter(change: u8, fields: &mut Fields, lines: &mut Vec<Line>) {
    let arm = usize::from(change >> 3);
    match change & 7 {
        0 => {
            fields.remove(FieldNames::of(&[FieldName::Connection, FieldName::Te, FieldName::Via]));
            lines.retain(|line| !["connection", "te", "via"].iter().any(|name| line.is(name)));
        }
        1 => {
            fields.retain(|field| field.value.len() % 32 != arm);
            lines.retain(|line| line.value.len() % 32 != arm);
        }
        2 => {
            fields.append(b"X-Added", &vec![b'a'; arm]);
            lines.push(Line::new(b"X-Added", &vec![b'a'; arm]));
        }
        3 => {
            fields.set(FieldName::Host, b"Host", b"a:1");
            set(lines, "Host", b"a:1");
        }
        4 => {
            let longer = |name: &[u8], value: &[u8]| (name.len() % 32 == arm).then(|| [value, b"/b"].concat());
            let names = FieldNames::of(&[FieldName::Other, FieldName::Via, FieldName::Te, FieldName::Link]);
            fields.map_values(names, |field| longer(field.raw_name, field.value));
            for line in lines.iter_mut().filter(|line| names.contains(known(&line.name))) {
                if let Some(value) = longer(&line.name, &line.value) {
                    *line = Line::new(&line.name, &value);
                }
            }
        }
        // A value that would end its line is not written.
        5 => fields.map_values(FieldNames::of(&[FieldName::Other]), |field| Some([field.value, b"\r\nX: y"].concat())),
        6 => {
            fields.map_names(<[u8]>::make_ascii_uppercase);
            for line in lines {
                line.name.make_ascii_uppercase();
                let end = line.name.len();
                line.raw[..end].make_ascii_uppercase();
            }
        }
        _ => {}
    }
}

fn is_same(fields: &Fields, lines: &[Line]) {
    let mut written = b"before".to_vec();
    fields.write_to(&mut written);
    let expected = lines.iter().fold(b"before".to_vec(), |text, line| [text, line.raw.clone()].concat());
    assert_eq!(written.escape_ascii().to_string(), expected.escape_ascii().to_string());
    assert_eq!((fields.len(), fields.is_empty()), (lines.len(), lines.is_empty()));
    for (Field { name, raw_name, value }, line) in fields.iter().zip(lines) {
        assert_eq!((raw_name, value), (&*line.name, &*line.value));
        assert_eq!(name, known(raw_name), "{}", raw_name.escape_ascii());
    }
    for name in [FieldName::Connection, FieldName::Host, FieldName::Te, FieldName::Other] {
        let values: Vec<_> = lines.iter().filter(|line| known(&line.name) == name).map(|line| &*line.value).collect();
        assert_eq!(fields.values(name).collect::<Vec<_>>(), values);
        assert_eq!((fields.get(name), fields.contains(name)), (values.first().copied(), !values.is_empty()));
        let text = String::from_utf8_lossy(&values.join(&b',')).to_ascii_lowercase();
        let has = text.split(',').any(|member| member.split(';').next().unwrap_or_default().trim_ascii() == "close");
        assert_eq!(fields.has_token(name, "close"), has);
    }
}

/// Another way to recognize a name.
fn known(name: &[u8]) -> FieldName {
    const NAMES: [(&str, FieldName); 32] = [
        ("authorization", FieldName::Authorization),
        ("connection", FieldName::Connection),
        ("content-length", FieldName::ContentLength),
        ("content_length", FieldName::FramingLookalike),
        ("content-location", FieldName::ContentLocation),
        ("destination", FieldName::Destination),
        ("expect", FieldName::Expect),
        ("host", FieldName::Host),
        ("http2-settings", FieldName::Http2Settings),
        ("keep-alive", FieldName::KeepAlive),
        ("link", FieldName::Link),
        ("location", FieldName::Location),
        ("max-forwards", FieldName::MaxForwards),
        ("x-cdn-management-url", FieldName::ManagementUrl),
        ("x-server-management-url", FieldName::ManagementUrl),
        ("origin", FieldName::Origin),
        ("proxy-authenticate", FieldName::ProxyAuthenticate),
        ("proxy-authorization", FieldName::ProxyAuthorization),
        ("proxy-connection", FieldName::ProxyConnection),
        ("referer", FieldName::Referer),
        ("refresh", FieldName::Refresh),
        ("x-openstack-request-id", FieldName::RequestId),
        ("sec-fetch-site", FieldName::SecFetchSite),
        ("set-cookie", FieldName::SetCookie),
        ("x-storage-url", FieldName::StorageUrl),
        ("te", FieldName::Te),
        ("trailer", FieldName::Trailer),
        ("transfer-encoding", FieldName::TransferEncoding),
        ("transfer_encoding", FieldName::FramingLookalike),
        ("upgrade", FieldName::Upgrade),
        ("via", FieldName::Via),
        ("www-authenticate", FieldName::WwwAuthenticate),
    ];
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    NAMES.iter().find(|(known, _)| *known == name).map_or(FieldName::Other, |(_, found)| *found)
}
