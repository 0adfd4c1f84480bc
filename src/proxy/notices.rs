//! What is logged once about JSON documents: endpoints of catalogs that are not served here, which explains why a tool
//! goes past the proxy after its first request; and documents that could not be looked into.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// As many of one class are logged by one generation of settings.
const MOST: usize = 256;

/// What was logged by one generation of settings, at all listeners and by all threads.
#[derive(Debug, Default)]
pub struct DocumentNotices(Mutex<HashSet<(usize, &'static str, String)>>);

impl DocumentNotices {
    /// Whether this is to be logged now: that something of this class was met at this listener.
    pub(super) fn is_new(&self, listener: usize, class: &'static str, about: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let notice = (listener, class, about.to_owned());
        !known.contains(&notice)
            && known.iter().filter(|(_, of, _)| *of == class).count() < MOST
            && known.insert(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notice_is_new_once_at_each_listener_and_not_without_end() {
        let notices = DocumentNotices::default();
        let met = [(0, "a", "x"), (0, "a", "x"), (1, "a", "x"), (0, "b", "x"), (0, "a", "y")];
        let new: Vec<bool> =
            met.iter().map(|(listener, class, about)| notices.is_new(*listener, class, about)).collect();
        assert_eq!(new, [true, false, true, true, true]);
        for number in 0..MOST {
            notices.is_new(0, "a", &number.to_string());
        }
        assert!(!notices.is_new(0, "a", "another") && !notices.is_new(0, "a", "x"));
        assert!(notices.is_new(0, "b", "another"));
    }
}
