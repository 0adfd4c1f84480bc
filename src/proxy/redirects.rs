//! Answers that lead elsewhere: their links are written so that the client stays on this proxy.

use std::cell::LazyCell;

use http::HeaderMap;

use crate::{
    message::{
        authority::{Authority, Host},
        links, url,
    },
    route::place::Place,
};

use super::{Generation, HostPolicy, Proxy, Service, Way};

impl Proxy {
    /// Writes the links of an answer so that they lead the client here.
    pub(super) fn keep_here(&self, fields: &mut HeaderMap, way: &Way<'_>, asked: Option<&Authority>) {
        if !way.generation.settings.rewrite_redirects {
            return;
        }
        let place = LazyCell::new(|| self.place(way, asked, &way.generation));
        links::rewrite(fields, |reference| {
            let (origin, behind) = url::split(reference)?;
            let local = place.as_ref()?.local(&origin)?;
            Some(format!("http://{local}{behind}"))
        });
    }

    /// Where the client stands.
    fn place<'a>(&self, way: &Way<'_>, asked: Option<&Authority>, generation: &'a Generation) -> Option<Place<'a>> {
        let bound = self.connector.own();
        let fixed = generation.services.iter().zip(bound).filter_map(|(service, bound)| match service {
            Service::Fixed(upstream) => Some((&**upstream, *bound)),
            Service::Forward => None,
        });
        let own = match generation.services.get(way.entry.place)? {
            Service::Fixed(upstream) => Some(&**upstream),
            Service::Forward => None,
        };
        let listener = bound.get(way.entry.place).filter(|bound| !bound.ip().is_unspecified());
        let listener = || listener.map(|bound| Authority { host: Host::Ip(bound.ip()), port: Some(bound.port()) });
        Some(Place {
            routes: &generation.routes,
            own,
            fixed: fixed.collect(),
            client: asked.cloned().or_else(listener),
            shown: generation.settings.host == HostPolicy::Client && asked.is_some(),
        })
    }
}
