//! URLs of http and https, and references that are resolved against them (RFC 3986 sections 4.2 and 5.2).
//!
//! No more than what links in answers need: where one leads to, and what stands behind that, byte for byte. Nothing
//! is decoded or encoded, so that a signed path still fits its signature. What another reader could take for another
//! host (userinfo, odd addresses, other characters than ASCII's) has no [`Origin`].

use super::authority::Authority;

/// Where a URL leads to (RFC 6454 section 4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether the scheme is https; else it is http.
    pub https: bool,
    /// The host, and the port where one was given.
    pub authority: Authority,
}

/// A URL that something can be resolved against: its origin, and its path and query, which begin with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Where it leads to.
    pub origin: Origin,
    /// Path and query, never empty.
    pub path: String,
}

/// An absolute URL's origin, and all that stands behind it; None for anything else.
pub fn split(url: &str) -> Option<(Origin, &str)> {
    if !url.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let (scheme, rest) = url.split_once("://")?;
    let https = match scheme {
        _ if scheme.eq_ignore_ascii_case("https") => true,
        _ if scheme.eq_ignore_ascii_case("http") => false,
        _ => return None,
    };
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // An IPv6 address without brackets, which `Authority` takes from people, is none in a URL.
    if !authority.starts_with('[') && authority.matches(':').count() > 1 {
        return None;
    }
    Some((Origin { https, authority: authority.parse().ok()? }, behind))
}

impl Url {
    /// What a reference means that was found at this URL, without its fragment; None where that is not http or https.
    pub fn resolve(&self, reference: &str) -> Option<Self> {
        if !reference.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let reference = reference.split('#').next().unwrap_or_default();
        let scheme = if self.origin.https { "https:" } else { "http:" };
        let (origin, path) = if reference.starts_with("//") {
            let url = format!("{scheme}{reference}");
            let (origin, path) = split(&url)?;
            (origin, path.to_owned())
        } else if has_scheme(reference) {
            let (origin, path) = split(reference)?;
            (origin, path.to_owned())
        } else {
            (self.origin.clone(), self.merged(reference))
        };
        Some(Self { origin, path: without_dots(&path) })
    }

    /// A relative reference without an authority on this URL's path (RFC 3986 section 5.2.3).
    fn merged(&self, reference: &str) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        match reference.bytes().next() {
            None => self.path.clone(),
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{path}{reference}"),
            Some(_) => format!("{}{reference}", &path[..path.rfind('/').map_or(0, |at| at + 1)]),
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.origin.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.origin.authority, self.path)
    }
}

/// Whether a reference begins with a scheme (RFC 3986 section 3.1): a colon in its first segment.
fn has_scheme(reference: &str) -> bool {
    reference.split(['/', '?']).next().is_some_and(|first| first.contains(':'))
}

/// Path and query without the segments `.` and `..` of the path (RFC 3986 section 5.2.4), and never empty.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let dots = matches!(segment, "." | "..");
        if segment == ".." {
            kept.pop();
        }
        if !dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Option<(bool, String, &str)> {
        split(url).map(|(origin, behind)| (origin.https, origin.authority.to_string(), behind))
    }

    #[test]
    fn absolute_urls_and_what_stands_behind_their_origin() {
        for (url, https, authority, behind) in [
            ("https://a:1/b?c#d", true, "a:1", "/b?c#d"),
            ("HTTPS://GLANCE.example./", true, "glance.example", "/"),
            ("http://a", false, "a", ""),
            ("Http://a?b", false, "a", "?b"),
            ("https://a#b/c", true, "a", "#b/c"),
            ("https://a:/b", true, "a", "/b"),
            ("https://[::1]:9292//b/../%2E", true, "[::1]:9292", "//b/../%2E"),
        ] {
            assert_eq!(origin(url), Some((https, authority.to_owned(), behind)), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_or_could_mean_two_hosts_has_no_origin() {
        for url in [
            "",
            "/a",
            "//a/",
            "a",
            "https:/a",
            "https:a",
            "ftp://a/",
            "xhttps://a/",
            "https://",
            "https:///a",
            "https://u@a/",
            "https://u:p@a/",
            "https://a:0/",
            "https://a:65536/",
            "https://127.1/",
            "https://::1/",
            "https://a\\b/",
            "https://a%2eb/",
            "https://b\u{fc}cher.example/",
            "https://a/\u{fc}",
            "https://a b/",
            "https://a/ b",
            " https://a/",
            "https://a/\t",
        ] {
            assert_eq!(split(url), None, "{url}");
        }
    }

    /// RFC 3986 sections 5.4.1 and 5.4.2; other schemes and the `g:h` that is one have no place here.
    #[test]
    fn references_are_resolved_as_the_standard_has_it() {
        let base = Url { origin: split("http://a").unwrap().0, path: "/b/c/d;p?q".into() };
        for (reference, expected) in [
            ("g:h", None),
            ("g", Some("http://a/b/c/g")),
            ("./g", Some("http://a/b/c/g")),
            ("g/", Some("http://a/b/c/g/")),
            ("/g", Some("http://a/g")),
            ("//g", Some("http://g/")),
            ("?y", Some("http://a/b/c/d;p?y")),
            ("g?y", Some("http://a/b/c/g?y")),
            ("#s", Some("http://a/b/c/d;p?q")),
            ("g#s", Some("http://a/b/c/g")),
            ("g?y#s", Some("http://a/b/c/g?y")),
            (";x", Some("http://a/b/c/;x")),
            ("g;x?y#s", Some("http://a/b/c/g;x?y")),
            ("", Some("http://a/b/c/d;p?q")),
            (".", Some("http://a/b/c/")),
            ("./", Some("http://a/b/c/")),
            ("..", Some("http://a/b/")),
            ("../", Some("http://a/b/")),
            ("../g", Some("http://a/b/g")),
            ("../..", Some("http://a/")),
            ("../../", Some("http://a/")),
            ("../../g", Some("http://a/g")),
            ("../../../g", Some("http://a/g")),
            ("../../../../g", Some("http://a/g")),
            ("/./g", Some("http://a/g")),
            ("/../g", Some("http://a/g")),
            ("g.", Some("http://a/b/c/g.")),
            (".g", Some("http://a/b/c/.g")),
            ("g..", Some("http://a/b/c/g..")),
            ("..g", Some("http://a/b/c/..g")),
            ("./../g", Some("http://a/b/g")),
            ("./g/.", Some("http://a/b/c/g/")),
            ("g/./h", Some("http://a/b/c/g/h")),
            ("g/../h", Some("http://a/b/c/h")),
            ("g;x=1/./y", Some("http://a/b/c/g;x=1/y")),
            ("g;x=1/../y", Some("http://a/b/c/y")),
            ("g?y/./x", Some("http://a/b/c/g?y/./x")),
            ("g?y/../x", Some("http://a/b/c/g?y/../x")),
            ("g#s/../x", Some("http://a/b/c/g")),
            // A strict parser's answer: the scheme alone makes it absolute, and there is no authority.
            ("http:g", None),
            ("https://h:1", Some("https://h:1/")),
            ("https://h?x", Some("https://h/?x")),
            ("/%2e/%2E%2e//x", Some("http://a/%2e/%2E%2e//x")),
            ("https://u@h/", None),
            ("//u@h/", None),
            ("a b", None),
            ("\u{fc}", None),
        ] {
            let resolved = base.resolve(reference).map(|url| url.to_string());
            assert_eq!(resolved.as_deref(), expected, "{reference}");
        }
    }
}
