//! Each class that can be reported alone, against every second defect that can occur with it: nothing passes that would
//! be refused if the reported class were mended.

use crate::{
    support::openssl::{Lab, Made, Server, Wish, text},
    upstream_settings::{End, NAME, Rows, SAN, day},
};

/// The classes, but for those about addresses and serial bounds that others stand for.
const CLASSES: [&str; 12] = [
    "crl_expired",
    "crl_invalid",
    "expired",
    "incomplete_chain",
    "issuer_key_mismatch",
    "name_mismatch",
    "no_san",
    "not_yet_valid",
    "revocation_unknown",
    "root_expired",
    "self_signed_not_in_bundle",
    "unknown_issuer",
];

/// The second defect, with the code that it is refused by; the first is none.
const DEFECTS: [(&str, &str); 12] = [
    ("alone", ""),
    ("weak key", "weak_key"),
    ("for clients", "wrong_purpose"),
    ("critical extension", "critical_extension"),
    ("wrong name", "name_mismatch"),
    ("not pinned", "pin_mismatch"),
    ("revoked", "revoked"),
    ("intermediate cannot sign", "issuer_may_not_sign"),
    ("intermediate for clients", "wrong_purpose"),
    ("intermediate expired", "expired"),
    ("root is no CA", "root_unfit"),
    ("root for clients", "root_unfit"),
];

/// Whether the two can be told apart at all.
fn go_together(class: &str, defect: &str) -> bool {
    let of_intermediate = defect.starts_with("intermediate");
    let of_root = defect.starts_with("root");
    match class {
        // Who is not there has no faults, and issues no lists.
        "incomplete_chain" | "self_signed_not_in_bundle" => !of_intermediate && !of_root && defect != "revoked",
        "issuer_key_mismatch" | "unknown_issuer" => !of_root,
        "name_mismatch" | "no_san" => defect != "wrong name",
        "expired" => defect != "intermediate expired",
        // Of these the date of one decides about the other's.
        "not_yet_valid" => defect != "intermediate expired",
        "root_expired" => true,
        "crl_expired" | "crl_invalid" | "revocation_unknown" => !of_root,
        _ => true,
    }
}

/// A server, its bundle, and further lines of its section.
struct Built {
    server: Server,
    bundle: Made,
    more: String,
}

fn build(lab: &Lab, class: &str, defect: &str) -> Built {
    let long = lab.authority("Lab Root").days(-500, 900);
    let mut root = if class == "root_expired" { long.days(-500, -5) } else { long };
    root = match defect {
        "root is no CA" => root.without("keyUsage").ext("basicConstraints", "critical,CA:FALSE"),
        "root for clients" => root.ext("extendedKeyUsage", "clientAuth"),
        _ => root,
    };
    let root = root.by_itself();
    let mut issuing = lab.authority("Lab Issuing").days(-400, 800);
    issuing = match defect {
        "intermediate cannot sign" => issuing.ext("keyUsage", "critical,digitalSignature,cRLSign"),
        "intermediate for clients" => issuing.ext("extendedKeyUsage", "clientAuth"),
        "intermediate expired" => issuing.days(-400, -20),
        _ => issuing,
    };
    let issuing = issuing.by(&root);
    let own = leaf(lab, class, defect);
    let own = if class == "self_signed_not_in_bundle" { own.by_itself() } else { own.by(&issuing) };
    let mut more = lists(lab, class, defect, (&own, &issuing, &root));
    if defect == "not pinned" {
        more.push_str(&format!("pins = \"sha256:{}\"\n", "0".repeat(64)));
    }
    let bundle = match class {
        "unknown_issuer" | "self_signed_not_in_bundle" => lab.root("Foreign Root"),
        "issuer_key_mismatch" => lab.root("Lab Root"),
        _ => root,
    };
    let above: &[&Made] = match class {
        "incomplete_chain" | "self_signed_not_in_bundle" => &[],
        _ => &[&issuing],
    };
    Built { server: lab.s_server(&own, above, &[]).ready(), bundle, more }
}

fn leaf<'a>(lab: &'a Lab, class: &str, defect: &str) -> Wish<'a> {
    let names = match (class, defect) {
        ("no_san", _) => "",
        ("name_mismatch", _) | (_, "wrong name") => "DNS:b.lab.test",
        _ => SAN,
    };
    let own = lab.server("a", names);
    let own = match class {
        "expired" => own.days(-40, -10),
        "not_yet_valid" => own.days(5, 50),
        _ => own.days(-40, 100),
    };
    match defect {
        "weak key" => own.key("rsa:1024"),
        "for clients" => own.ext("extendedKeyUsage", "clientAuth"),
        "critical extension" => own.ext("1.3.6.1.4.1.32473.1", "critical,DER:0500"),
        _ => own,
    }
}

/// The revocation lists of a class or a defect.
fn lists(lab: &Lab, class: &str, defect: &str, (own, issuing, root): (&Made, &Made, &Made)) -> String {
    if defect == "revoked" {
        lab.revoke(own, "superseded");
    }
    let mut lists = match class {
        // The list of the one CA is out of date, that of the other has the defect.
        "crl_expired" => vec![text(&lab.list(root, (-40, -10), "")), text(&lab.list(issuing, (-1, 30), ""))],
        "crl_invalid" => {
            let good = lab.openssl(&["crl", "-in", &text(&lab.list(root, (-1, 30), "")), "-outform", "DER"]);
            let mut bad = good;
            *bad.last_mut().unwrap() ^= 1;
            let name = format!("{}.crl", own.sha256());
            vec![text(&lab.write(&name, bad)), text(&lab.list(issuing, (-1, 30), ""))]
        }
        "revocation_unknown" => vec![text(&lab.list(issuing, (-1, 30), ""))],
        _ if defect == "revoked" => vec![text(&lab.list(issuing, (-1, 30), ""))],
        _ => return String::new(),
    };
    lists.iter_mut().for_each(|list| *list = format!("\"{list}\""));
    let policy = if class == "revocation_unknown" { "crl_policy = \"unknown=refuse\"\n" } else { "" };
    format!("crl = [{}]\n{policy}", lists.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_is_only_reported_hides_no_second_defect() {
    let lab = &Lab::new();
    let mut rows = Rows::of(lab, &lab.root("Unused"));
    let mut servers = Vec::new();
    for class in CLASSES {
        for (defect, code) in DEFECTS.into_iter().filter(|(defect, _)| go_together(class, defect)) {
            let Built { server, bundle, mut more } = build(lab, class, defect);
            more.push_str(&format!("ca_bundle = \"{}\"\n", text(&bundle.cert)));
            more.push_str(&format!("report_only_until = {}\nreport_only = [\"{class}\"]\n", day(9)));
            let end = if code.is_empty() { End::Bypassed(class) } else { End::Refused(code) };
            rows.asked(NAME, format!("{class}, {defect}"), server.address, &more, end);
            servers.push(server);
        }
    }
    assert!(servers.len() > 100);
    rows.judge().await;
}
