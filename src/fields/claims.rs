//! Fields in which a client says what its request should be taken for: which way it came, which host
//! or path it means, which method it is.
//!
//! Origins and their frameworks believe them, and write them into answers that are stored for all; none
//! of them is in the request line, and so in a key. Beside them stand the fields that say who the user is, and
//! those by which scripts choose another representation than a page's. Knows their names. Must not know: who may
//! say what.

use std::borrow::Cow;

use super::names::{Says, by_beginning};

/// What a field claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Who the client is and by which scheme it came: `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Real-IP`.
    Client,
    /// Another host, port, path or client than the request's, in a field that proxies use among
    /// themselves: `X-Forwarded-Host`, `Forwarded`, `X-Original-URL`.
    Way,
    /// The same in one of the many spellings of single frameworks, or what looks like it: `X-Host`.
    Hint,
    /// Another method than the request's.
    Method,
}

/// What the name of a field says of the field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What it claims.
    pub claim: Option<Claim>,
    /// It says who the user is, or proves it, as `Authorization` does: keys of APIs, and what proxies that log users
    /// in tell those behind them.
    pub credential: bool,
    /// Scripts, frameworks and browsers choose by it what of a resource they want: a fragment in place of the page,
    /// data in place of HTML, another version. Who answers by it has to say so by `Vary`, and many do not.
    ///
    /// Not here is what every browser sends with every request, or with every request to whoever has asked for it
    /// once (`Accept*`, `User-Agent`, `Sec-Fetch-*`, client hints by `Accept-CH`): nothing would be cached any more.
    pub chooses: bool,
}

/// All that a name says, in one pass, since each field of each request is asked; `name` is in lower case.
pub fn told(name: &str) -> Told {
    let name = dashed(name);
    let name = name.as_ref();
    let mut told = by_last_word(name);
    by_beginning(name, &mut |says| match says {
        Says::Claims(claim) => told.claim = strongest(told.claim, claim),
        Says::Identity => told.credential = true,
        Says::Chooses | Says::Whose => told.chooses = true,
    });
    if let Some(bare) = name.strip_prefix("x-") {
        by_beginning(bare, &mut |says| told.chooses |= says == Says::Whose);
    }
    told
}

/// What a field of this name claims; `name` is in lower case.
pub fn claim(name: &str) -> Option<Claim> {
    told(name).claim
}

/// Whether a field of this name says who the user is: [`Told::credential`]. `name` is in lower case.
pub fn is_credential(name: &str) -> bool {
    told(name).credential
}

/// Whether a field of this name may prove something of its sender, whatever it is: a key, a token, a signature.
/// More than [`is_credential`] knows, since it costs nothing to take one field too many for a secret where the
/// question is only whether a request may be repeated behind its sender's back. `name` is in lower case.
pub fn may_be_secret(name: &str) -> bool {
    let name = dashed(name);
    told(&name).credential
        || name.split('-').any(|word| Word::of(word).is_some_and(Word::is_secret))
        || ["token", "secret", "passw", "auth", "apikey", "session"].iter().any(|part| name.contains(part))
}

/// Of two claims, the one that is believed by more.
fn strongest(one: Option<Claim>, other: Claim) -> Option<Claim> {
    let rank = |claim| match claim {
        Claim::Client => 0,
        Claim::Method => 1,
        Claim::Way => 2,
        Claim::Hint => 3,
    };
    one.filter(|one| rank(*one) <= rank(other)).or(Some(other))
}

/// What a name says by its last word, whatever stands before: `X-Vault-Token`, `DD-API-KEY`, `DPoP`,
/// `X-Custom-Scheme`, `X-GitHub-Api-Version`.
fn by_last_word(name: &str) -> Told {
    // Not by `rsplit_once`, whose search takes longer to begin than a name has bytes.
    let dash = name.bytes().rposition(|byte| byte == b'-').and_then(|at| name.split_at_checked(at));
    let (others, last) =
        dash.and_then(|(others, last)| Some((others, last.strip_prefix('-')?))).unwrap_or(("", name));
    let is_nobodys_standard = name.starts_with("x-");
    let mut told = Told::default();
    match Word::of(last) {
        // A token against forged requests does not say who the user is.
        Some(Word::Proof) => told.credential = !others.contains("csrf") && !others.contains("xsrf"),
        Some(Word::Auth) => told.credential = others.starts_with('x'),
        Some(Word::Id) => told.credential = others.ends_with("session"),
        Some(Word::Key) => told.credential = others.split('-').any(|word| KEYS.contains(&word)),
        Some(Word::Another) => told.claim = is_nobodys_standard.then_some(Claim::Hint),
        Some(Word::Override) if others.ends_with("method") => told.claim = Some(Claim::Method),
        Some(Word::Override) => told.claim = is_nobodys_standard.then_some(Claim::Hint),
        Some(Word::Version) => told.chooses = others.ends_with("api"),
        Some(Word::Secret) | None => {}
    }
    // A glance by one letter, which few names have.
    if name.bytes().any(|b| b == b'w') && name.contains("forwarded-") {
        told.claim = strongest(told.claim, Claim::Way);
    }
    told
}

/// What a single word in a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// As the last one: the field proves who the user is.
    Proof,
    /// The same behind `X-`.
    Auth,
    /// The same behind a session.
    Id,
    /// The same behind one of [`KEYS`]; in any case a secret.
    Key,
    /// Proves something, if not who the user is.
    Secret,
    /// As the last one behind `X-`: another host, port or path is meant.
    Another,
    /// Another method, or the same.
    Override,
    /// Another version, of an API.
    Version,
}

impl Word {
    fn of(word: &str) -> Option<Self> {
        // By length first, since most words of most names have no other of theirs here.
        Some(match (word.len(), word) {
            (2, "id") => Self::Id,
            (3, "jwt") => Self::Proof,
            (3, "key") => Self::Key,
            (3, "sid" | "otp") => Self::Secret,
            (3, "url" | "uri") => Self::Another,
            (4, "dpop") => Self::Proof,
            (4, "auth") => Self::Auth,
            (4, "keys" | "csrf" | "xsrf") => Self::Secret,
            (4, "host" | "port") => Self::Another,
            (5, "token") => Self::Proof,
            (5, "nonce") => Self::Secret,
            (5, "proto") => Self::Another,
            (6, "secret" | "passwd" | "apikey") => Self::Proof,
            (6, "ticket" | "cookie") => Self::Secret,
            (6, "scheme") => Self::Another,
            (7, "session" | "cookie2") => Self::Proof,
            (7, "version") => Self::Version,
            (8, "password" | "appcheck") => Self::Proof,
            (8, "hostname" | "protocol") => Self::Another,
            (8, "override") => Self::Override,
            (9, "authtoken" | "sessionid" | "signature" | "assertion") => Self::Proof,
            (10, "credential") => Self::Proof,
            (11, "accesstoken" | "credentials") => Self::Proof,
            (13, "authorization") => Self::Auth,
            (14, "authentication" | "authorization2") => Self::Proof,
            _ => return None,
        })
    }

    fn is_secret(self) -> bool {
        matches!(self, Self::Proof | Self::Auth | Self::Key | Self::Secret)
    }
}

/// Whose key it is, before `-Key`.
const KEYS: [&str; 14] = [
    "api",
    "app",
    "application",
    "auth",
    "access",
    "secret",
    "client",
    "consumer",
    "subscription",
    "functions",
    "license",
    "private",
    "master",
    "rapidapi",
];

/// Servers that hand fields on as variables tell no `_` or `.` from a `-`: `X_Forwarded.Host` is a writing of
/// `X-Forwarded-Host` there.
pub fn dashed(name: &str) -> Cow<'_, str> {
    let is_written_so = name.bytes().any(|b| b == b'_' || b == b'.');
    if is_written_so { Cow::Owned(name.replace(['_', '.'], "-")) } else { Cow::Borrowed(name) }
}

#[cfg(test)]
mod tests {
    use super::super::names::NAMES;
    use super::*;

    #[test]
    fn credentials_are_told_by_their_names() {
        assert!(is_credential("x_api_key") && is_credential("x-ssl-client-s-dn"));
        for name in [
            "api-key",
            "x-apikey",
            "x-session-id",
            "x-amz-security-token",
            "authenticated-user",
            "cf-access-jwt-assertion",
            "x-vault-token",
            "ocp-apim-subscription-key",
            "x-shopify-access-token",
            "dd-api-key",
            "x-rapidapi-key",
            "x-parse-session-token",
            "x-firebase-appcheck",
            "x-functions-key",
            "x-goog-api-key",
            "token",
            "session-id",
            "x-session",
            "x-auth",
            "x-jwt",
            "authentication",
            "x-authorization",
            "authorization2",
            "dpop",
            "signature",
            "x-hub-signature",
            "cookie2",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "accept",
            "cookie",
            "authorization",
            "x-request-id",
            "x-tenant",
            "content-type",
            "x-username",
            "x-csrf-token",
            "x-xsrf-token",
            "idempotency-key",
            "sec-websocket-key",
            "x-cache-key",
            "origin-auth",
        ] {
            assert!(!is_credential(name), "{name}");
        }
    }

    #[test]
    fn fields_that_choose_are_told_by_their_names() {
        for name in [
            "rsc",
            "next-router-state-tree",
            "hx-request",
            "hx_boosted",
            "turbo-frame",
            "translate",
            "datastar-request",
            "faces-request",
            "unpoly-version",
            "wicket-ajax-baseurl",
            "purpose",
            "prefer",
            "sec-purpose",
            "save-data",
            "service-worker-navigation-preload",
            "a-im",
            "accept-datetime",
            "accept-profile",
            "accept-version",
            "amp-cache-transform",
            "x-version",
            "x-tenant-id",
            "tenant-id",
            "x-org-id",
            "x-github-api-version",
            "api-version",
        ] {
            assert!(told(name).chooses, "{name}");
        }
        for name in [
            "accept",
            "accept-language",
            "accept-encoding",
            "user-agent",
            "referer",
            "origin",
            "sec-fetch-dest",
            "sec-ch-ua",
            "sec-ch-ua-platform",
            "sec-ch-dpr",
            "dpr",
            "viewport-width",
            "upgrade-insecure-requests",
            "priority",
            "dnt",
            "x-request-id",
            "traceparent",
            "x-turbo-request-id",
        ] {
            assert!(!told(name).chooses, "{name}: every request of some browsers has it");
        }
    }

    #[test]
    fn whatever_may_be_a_secret_is_taken_for_one() {
        for name in [
            "authorization",
            "cookie",
            "x-api-key",
            "x_api_key",
            "ocp-apim-subscription-key",
            "x-csrf-token",
            "x-vault-token",
            "x-wp-nonce",
            "x-hub-signature",
            "x-shopify-accesstoken",
            "x-auth-request-email",
        ] {
            assert!(may_be_secret(name), "{name}");
        }
        for name in ["accept", "user-agent", "x-requested-with", "x-forwarded-host", "x-evil", "keyboard"] {
            assert!(!may_be_secret(name), "{name}");
        }
    }

    #[test]
    fn every_listed_name_is_found() {
        for (row, says) in NAMES.iter().copied() {
            let name = row.replace('*', "a");
            let found = told(&name);
            match says {
                Says::Claims(_) => assert!(found.claim.is_some(), "{row}"),
                Says::Identity => assert!(found.credential, "{row}"),
                Says::Chooses => assert!(found.chooses, "{row}"),
                Says::Whose => assert!(found.chooses && told(&format!("x-{name}")).chooses, "{row}"),
            }
        }
        for name in [
            "x-http-method",
            "x-method",
            "_method",
            "method-override",
            "x-http-method-override",
            "x-override-method",
            "x-tunnel-method",
        ] {
            assert_eq!(claim(name), Some(Claim::Method), "{name}");
        }
    }

    #[test]
    fn claims_are_told_by_their_names() {
        let rows: &[(&str, Option<Claim>)] = &[
            ("x-forwarded-for", Some(Claim::Client)),
            ("x_forwarded_for", Some(Claim::Client)),
            ("x-forwarded-proto", Some(Claim::Client)),
            ("x-real-ip", Some(Claim::Client)),
            ("x-forwarded-host", Some(Claim::Way)),
            ("x-forwarded_host", Some(Claim::Way)),
            ("x-forwarded-scheme", Some(Claim::Way)),
            ("x-forwarded-port", Some(Claim::Way)),
            ("x-forwarded-prefix", Some(Claim::Way)),
            ("x-forwarded-server", Some(Claim::Way)),
            ("x-forwarded", Some(Claim::Way)),
            ("forwarded", Some(Claim::Way)),
            ("x-host", Some(Claim::Hint)),
            ("x-original-host", Some(Claim::Way)),
            ("x-original-url", Some(Claim::Way)),
            ("x-rewrite-url", Some(Claim::Way)),
            ("x-http-host-override", Some(Claim::Hint)),
            ("x-host-override", Some(Claim::Hint)),
            ("x-http-destinationurl", Some(Claim::Hint)),
            ("x-scheme", Some(Claim::Hint)),
            ("true-client-ip", Some(Claim::Way)),
            ("x-server-name", Some(Claim::Hint)),
            ("x-http-method-override", Some(Claim::Method)),
            ("x_http_method_override", Some(Claim::Method)),
            ("x-method-override", Some(Claim::Method)),
            ("x-http-method", Some(Claim::Method)),
            ("host", None),
            ("accept", None),
            ("cookie", None),
            ("content-type", None),
            ("user-agent", None),
            ("traceparent", None),
            ("x-request-id", None),
            ("x-requested-with", None),
            ("x-api-key", None),
            ("x-tenant", None),
            ("forwarded-proto", Some(Claim::Way)),
            ("cloudfront-forwarded-proto", Some(Claim::Way)),
            ("cf-visitor", Some(Claim::Way)),
            ("x.forwarded.host", Some(Claim::Way)),
            ("x-support", None),
        ];
        for (name, want) in rows {
            assert_eq!((claim(name), told(name).claim), (*want, *want), "{name}");
        }
    }
}
