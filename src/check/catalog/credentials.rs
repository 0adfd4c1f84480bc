//! The variables that OpenStack's clients are configured by.

use serde_json::{Value, json};

use crate::{
    config::environment::Environment,
    message::url::{self, Origin},
    text::show_value,
};

/// What a client shows to Keystone, and where.
pub(super) struct Credentials {
    pub(super) origin: Origin,
    /// The path of the request for a token.
    pub(super) path: String,
    pub(super) is_v2: bool,
    user: String,
    password: String,
    project: Option<String>,
    /// By `OS_…_ID`, else by `OS_…_NAME`, else `default`.
    user_domain: Value,
    project_domain: Value,
}

impl Credentials {
    /// Reads `OS_AUTH_URL`, `OS_USERNAME`, `OS_PASSWORD`, `OS_PROJECT_NAME` or `OS_TENANT_NAME`, and the domains.
    ///
    /// # Errors
    /// What is missing, or cannot be read; never a password.
    pub(super) fn of(environment: &Environment) -> Result<Self, String> {
        let get = |name: &str| environment.get(name).and_then(|value| value.to_str()).map(str::to_owned);
        let need = |name: &str| {
            get(name).ok_or_else(|| {
                format!("--catalog: {name} is not set\nhint: set the variables of the OpenStack client: OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME")
            })
        };
        let auth_url = need("OS_AUTH_URL")?;
        let (origin, path) = url::split(auth_url.trim()).ok_or_else(|| {
            format!("OS_AUTH_URL `{}`: an `http://` or `https://` URL is expected", show_value(&auth_url))
        })?;
        let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let version = get("OS_IDENTITY_API_VERSION");
        let is_v2 = path.ends_with("/v2.0")
            || !path.ends_with("/v3") && version.is_some_and(|version| version.starts_with('2'));
        let path = match (is_v2, path) {
            (true, path) if path.ends_with("/v2.0") => format!("{path}/tokens"),
            (true, path) => format!("{path}/v2.0/tokens"),
            (false, path) if path.ends_with("/v3") => format!("{path}/auth/tokens"),
            (false, path) => format!("{path}/v3/auth/tokens"),
        };
        let domain = |of: &str| match (get(&format!("OS_{of}_DOMAIN_ID")), get(&format!("OS_{of}_DOMAIN_NAME"))) {
            (Some(id), _) => json!({ "id": id }),
            (None, Some(name)) => json!({ "name": name }),
            (None, None) => json!({ "id": "default" }),
        };
        Ok(Self {
            origin,
            path,
            is_v2,
            user: need("OS_USERNAME")?,
            password: need("OS_PASSWORD")?,
            project: get("OS_PROJECT_NAME").or_else(|| get("OS_TENANT_NAME")),
            user_domain: domain("USER"),
            project_domain: domain("PROJECT"),
        })
    }

    /// The request's body.
    pub(super) fn body(&self) -> Value {
        let mut body = match self.is_v2 {
            true => json!({"auth": {"passwordCredentials": {"username": self.user, "password": self.password}}}),
            false => {
                let user = json!({"name": self.user, "password": self.password, "domain": self.user_domain});
                json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}})
            }
        };
        if let Some(project) = &self.project {
            match self.is_v2 {
                true => body["auth"]["tenantName"] = json!(project),
                false => body["auth"]["scope"] = json!({"project": {"name": project, "domain": self.project_domain}}),
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(more: &[(&str, &str)]) -> Result<Credentials, String> {
        let all = [("OS_USERNAME", "u"), ("OS_PASSWORD", "secret")];
        let all = all.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into()));
        Credentials::of(&all.collect())
    }

    #[test]
    fn a_token_is_asked_for_where_the_client_would() {
        for (url, version, expected) in [
            ("https://k:5000/v3", "", "/v3/auth/tokens"),
            ("https://k:5000/v3/", "2", "/v3/auth/tokens"),
            ("http://k/identity", "", "/identity/v3/auth/tokens"),
            ("http://k:5000", "3", "/v3/auth/tokens"),
            ("http://k:5000/", "2.0", "/v2.0/tokens"),
            ("http://k:5000/v2.0", "", "/v2.0/tokens"),
            ("http://k:5000/v2.0/", "3", "/v2.0/tokens"),
        ] {
            let read = credentials(&[("OS_AUTH_URL", url), ("OS_IDENTITY_API_VERSION", version)]).ok().unwrap();
            assert_eq!(read.path, expected, "{url} {version}");
        }
    }

    #[test]
    fn the_body_is_that_of_each_version() {
        let v3 = credentials(&[("OS_AUTH_URL", "http://k"), ("OS_PROJECT_NAME", "p"), ("OS_USER_DOMAIN_NAME", "D")]);
        let expected = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": "u", "password": "secret", "domain": {"name": "D"}}}},
            "scope": {"project": {"name": "p", "domain": {"id": "default"}}},
        }});
        assert_eq!(v3.ok().unwrap().body(), expected);
        let v2 = credentials(&[("OS_AUTH_URL", "http://k/v2.0"), ("OS_TENANT_NAME", "t")]);
        let expected =
            json!({"auth": {"passwordCredentials": {"username": "u", "password": "secret"}, "tenantName": "t"}});
        assert_eq!(v2.ok().unwrap().body(), expected);
    }

    #[test]
    fn what_is_missing_is_named_and_the_password_is_not() {
        for (more, expected) in [
            (&[][..], "OS_AUTH_URL is not set"),
            (&[("OS_AUTH_URL", "k:5000")], "OS_AUTH_URL `k:5000`: an `http://` or `https://` URL is expected"),
            (&[("OS_AUTH_URL", "https://u:secret@k")], "OS_AUTH_URL `https://…@k`"),
        ] {
            let why = credentials(more).err().unwrap();
            assert!(why.contains(expected) && !why.contains("secret"), "{why}");
        }
    }
}
