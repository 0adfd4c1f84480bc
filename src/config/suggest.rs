//! Suggestions for misspelt words.

/// The candidate that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let similarity = |candidate: &str| strsim::jaro_winkler(word, candidate);
    let best = candidates.into_iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) >= ENOUGH).then_some(best)
}

/// Words that are less similar than this are not each other's misspelling.
const ENOUGH: f64 = 0.82;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelling_is_recognized_and_another_word_is_not() {
        for (word, candidates, expected) in [
            ("ca_bundel", &["ca_bundle", "crl"][..], Some("ca_bundle")),
            ("rout", &["route", "crl"], Some("route")),
            ("glance-a.exmaple", &["glance-a.example", "glance-b.example"], Some("glance-a.example")),
            ("expird", &["expired", "crl_expired"], Some("expired")),
            ("listen", &["max_listener_connections", "route"], None),
            ("keystone.example", &["glance-a.cloud"], None),
            ("x", &[], None),
        ] {
            assert_eq!(nearest(word, candidates.iter().copied()), expected, "{word}");
        }
    }
}
