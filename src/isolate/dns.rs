//! The name server that the tool finds at every address: it knows the names that are allowed, and no others. So a name
//! that is not allowed does not leave this host.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use hickory_net::proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType},
};

use crate::{
    connect::{error::ConnectError, resolve::Resolver},
    message::authority::Host,
    route::table::Routes,
};

/// How long the tool may keep an answer, in seconds.
const TIME_TO_LIVE: u32 = 5;

/// For how long a name is looked up; glibc asks again after 5 s.
const PATIENCE: Duration = Duration::from_secs(4);

/// More addresses of a family would not fit into a datagram without EDNS (RFC 1035 section 4.2.1), with a long name.
const MOST_ADDRESSES: usize = 12;

/// Answers questions about names.
#[derive(Debug, Default)]
pub(super) struct NameService {
    /// Addresses in place of those that a name does not have here.
    substitutes: HashMap<String, Ipv4Addr>,
}

/// What became of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It has these addresses.
    Addresses(Vec<IpAddr>),
    /// No setting allows it.
    NotAllowed,
    /// It is allowed and was not resolved: why, and whether it is known not to exist.
    Unresolved { why: String, is_absent: bool },
}

impl NameService {
    /// The addresses of a name by these settings. Nothing is borrowed while it is looked up.
    pub(super) async fn look_up(this: &RefCell<Self>, host: &Host, routes: &Routes) -> Known {
        let name = match host {
            Host::Ip(ip) => return Known::Addresses(vec![*ip]),
            Host::Name(name) if name.as_str() == "localhost" => {
                return Known::Addresses(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
            }
            Host::Name(name) => name,
        };
        if !routes.policy.could_allow(host, None) {
            return Known::NotAllowed;
        }
        match Resolver::new().lookup(&name.to_lookup(), PATIENCE).await {
            Ok(addresses) => Known::Addresses(addresses),
            // It is connected to elsewhere, so the address does not matter: the name is what is verified.
            Err(_) if routes.is_resolved_elsewhere(host) => {
                let substitutes = &mut this.borrow_mut().substitutes;
                let next = substitutes.len();
                let substitute = substitutes.entry(name.as_str().to_owned()).or_insert_with(|| substitute(next));
                Known::Addresses(vec![(*substitute).into()])
            }
            Err(error) => {
                Known::Unresolved { why: error.to_string(), is_absent: matches!(error, ConnectError::Dns { .. }) }
            }
        }
    }
}

/// The n-th address for names that have none here. They are loopback addresses: if one were dialled outside by mistake,
/// nothing would leave this host.
fn substitute(number: usize) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([127, 200, 0, 1]);
    Ipv4Addr::from_bits(FIRST + (number % 0xffff) as u32)
}

/// What a message asks.
#[derive(Debug)]
pub(super) enum Asked {
    /// For a name.
    For(Message, Query, Host),
    /// Something that is answered so.
    Other(Message),
    /// Nothing: it is no question.
    Nothing,
}

/// Reads a message.
pub(super) fn question(bytes: &[u8]) -> Asked {
    let Ok(message) = Message::from_vec(bytes) else { return Asked::Nothing };
    if message.metadata.message_type != MessageType::Query {
        return Asked::Nothing;
    }
    let other = |query: Option<&Query>, code| Asked::Other(response(&message, query, code));
    if message.metadata.op_code != OpCode::Query {
        return other(None, ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else { return other(None, ResponseCode::FormErr) };
    if query.query_class() != DNSClass::IN {
        return other(None, ResponseCode::Refused);
    }
    match query.name().to_ascii().trim_end_matches('.').parse::<Host>() {
        Ok(host) => {
            let query = query.clone();
            Asked::For(message, query, host)
        }
        Err(_) => other(Some(query), ResponseCode::NXDomain),
    }
}

/// The answer to a question.
pub(super) fn answer(message: &Message, query: &Query, known: &Known) -> Message {
    let addresses = match known {
        Known::Addresses(addresses) => addresses,
        Known::NotAllowed | Known::Unresolved { is_absent: true, .. } => {
            return response(message, Some(query), ResponseCode::NXDomain);
        }
        Known::Unresolved { is_absent: false, .. } => return response(message, Some(query), ResponseCode::ServFail),
    };
    let mut answer = response(message, Some(query), ResponseCode::NoError);
    let data = addresses.iter().filter_map(|address| match (query.query_type(), address) {
        (RecordType::A, IpAddr::V4(ip)) => Some(RData::A((*ip).into())),
        (RecordType::AAAA, IpAddr::V6(ip)) => Some(RData::AAAA((*ip).into())),
        _ => None,
    });
    let records = data.take(MOST_ADDRESSES).map(|data| Record::from_rdata(query.name().clone(), TIME_TO_LIVE, data));
    answer.add_answers(records);
    answer
}

fn response(to: &Message, query: Option<&Query>, code: ResponseCode) -> Message {
    let mut response = Message::error_msg(to.metadata.id, to.metadata.op_code, code);
    response.metadata.recursion_desired = to.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(query.cloned());
    response
}

#[cfg(test)]
mod tests {
    use hickory_net::proto::rr::Name;

    use super::*;

    fn ask(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    #[test]
    fn questions_are_answered_by_family() {
        let addresses = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let known = Known::Addresses(addresses.into());
        for (kind, expected) in [
            (RecordType::A, &["192.0.2.1", "192.0.2.2"][..]),
            (RecordType::AAAA, &["2001:db8::1"]),
            (RecordType::MX, &[]),
        ] {
            let Asked::For(message, query, host) = question(&ask("Glance-A.example.", kind)) else {
                panic!("a question")
            };
            assert_eq!(host, "glance-a.example".parse().unwrap());
            let answer = answer(&message, &query, &known);
            let answer = Message::from_vec(&answer.to_vec().unwrap()).unwrap();
            let found: Vec<_> =
                answer.answers.iter().filter_map(|record| record.data.ip_addr()).map(|ip| ip.to_string()).collect();
            assert_eq!(found, expected);
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::NoError));
            assert_eq!(answer.queries, [query]);
        }
    }

    #[test]
    fn what_is_not_known_is_told_apart() {
        let absent = Known::Unresolved { why: String::new(), is_absent: true };
        let silent = Known::Unresolved { why: String::new(), is_absent: false };
        for (known, code) in [
            (Known::NotAllowed, ResponseCode::NXDomain),
            (absent, ResponseCode::NXDomain),
            (silent, ResponseCode::ServFail),
        ] {
            let Asked::For(message, query, _) = question(&ask("a.example.", RecordType::A)) else {
                panic!("a question")
            };
            assert_eq!(answer(&message, &query, &known).metadata.response_code, code);
        }
        for bytes in [&b""[..], b"nonsense", &[0xff; 64]] {
            assert!(matches!(question(bytes), Asked::Nothing));
        }
        // A response is answered by nobody, or two servers would never stop.
        let mut response = Message::from_vec(&ask("a.example.", RecordType::A)).unwrap();
        response.metadata.message_type = MessageType::Response;
        assert!(matches!(question(&response.to_vec().unwrap()), Asked::Nothing));
    }
}
