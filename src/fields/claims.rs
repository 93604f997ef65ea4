//! Fields in which a client says what its request should be taken for: which way it came, which host
//! or path it means, which method it is.
//!
//! Origins and their frameworks believe them, and write them into answers that are stored for all; none
//! of them is in the request line, and so in a key. Beside them stand the fields that say who the user is, and
//! those by which scripts choose another representation than a page's. Knows their names. Must not know: who may
//! say what.

use std::borrow::Cow;

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

/// What a field of this name claims; `name` is in lower case.
pub fn claim(name: &str) -> Option<Claim> {
    // Most fields of most requests are told from these at a glance.
    let second = name.as_bytes().get(1).copied();
    let may_be = match name.as_bytes().first()? {
        b'x' | b'_' => true,
        b'f' => matches!(second, Some(b'a' | b'o' | b'r')),
        b'a' => second == Some(b'k'),
        b'c' => matches!(second, Some(b'f' | b'l')),
        b'h' => name.len() > 4,
        b'u' => name.len() == 3,
        b't' => second == Some(b'r'),
        b'm' => second == Some(b'e'),
        b'b' | b'd' | b'p' | b'r' | b's' => true,
        _ => false,
    };
    if !may_be {
        return None;
    }
    let name = dashed(name);
    let name = name.as_ref();
    if matches!(name, "x-forwarded-for" | "x-forwarded-proto" | "x-real-ip") {
        return Some(Claim::Client);
    }
    if OVERRIDES.contains(&name) || name.ends_with("method-override") {
        return Some(Claim::Method);
    }
    if name.starts_with("x-forward") || name.contains("forwarded-") || WAYS.contains(&name) {
        return Some(Claim::Way);
    }
    let starts = HINTS.iter().any(|prefix| name.starts_with(prefix));
    (starts || OTHERS.contains(&name) || names_another(name)).then_some(Claim::Hint)
}

/// Whether a field of this name says who the user is, or proves it, as `Authorization` does: keys of APIs, and
/// what proxies that log users in tell those behind them. `name` is in lower case.
pub fn is_credential(name: &str) -> bool {
    let name = dashed(name);
    let name = name.as_ref();
    if proves(name) {
        return true;
    }
    let listed = matches!(name.as_bytes().first(), Some(b'x' | b'a' | b'c' | b's' | b'p' | b'w'));
    listed && (CREDENTIALS.contains(&name) || IDENTITIES.iter().any(|prefix| name.starts_with(prefix)))
}

/// Whether its name says of a field that it proves something, by its last word: `X-Vault-Token`, `DD-API-KEY`,
/// `X-Parse-Session-Token`, `DPoP`. A token against forged requests does not say who the user is.
fn proves(name: &str) -> bool {
    let (others, last) = name.rsplit_once('-').unwrap_or(("", name));
    match last {
        "token" | "accesstoken" | "authtoken" | "jwt" | "dpop" | "session" | "sessionid" | "secret"
        | "password" | "passwd" | "signature" | "assertion" | "appcheck" | "apikey" | "credential"
        | "credentials" | "cookie2" | "authentication" | "authorization2" => {
            !others.contains("csrf") && !others.contains("xsrf")
        }
        "auth" | "authorization" => others.starts_with("x"),
        "id" => others.ends_with("session"),
        "key" => others.split('-').any(|word| KEYS.contains(&word)),
        _ => false,
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

/// Whether a field of this name may prove something of its sender, whatever it is: a key, a token, a signature.
/// More than [`is_credential`] knows, since it costs nothing to take one field too many for a secret where the
/// question is only whether a request may be repeated behind its sender's back. `name` is in lower case.
pub fn may_be_secret(name: &str) -> bool {
    let words = |mut word: std::str::Split<'_, [char; 2]>| word.any(|word| SECRETS.contains(&word));
    is_credential(name)
        || words(name.split(['-', '_']))
        || ["token", "secret", "passw", "auth", "apikey", "session"].iter().any(|part| name.contains(part))
}

const SECRETS: [&str; 12] = [
    "key",
    "keys",
    "jwt",
    "sid",
    "csrf",
    "xsrf",
    "nonce",
    "signature",
    "ticket",
    "otp",
    "cookie",
    "credential",
];

/// Whether scripts, frameworks and browsers choose by a field of this name what of a resource they want: a
/// fragment in place of the page, data in place of HTML, another version. Who answers by it has to say so by
/// `Vary`, and many do not. `name` is in lower case.
///
/// Not here is what every browser sends with every request, or with every request to whoever has asked for it
/// once (`Accept*`, `User-Agent`, `Sec-Fetch-*`, client hints by `Accept-CH`): nothing would be cached any more.
pub fn chooses(name: &str) -> bool {
    // Most fields of most requests are told from these by a letter and two or three comparisons.
    let Some(first) = name.as_bytes().first() else { return false };
    let name = dashed(name);
    let name = name.as_ref();
    // Whose data is meant, where one API serves many: as private as what a user may see.
    let bare = name.strip_prefix("x-").unwrap_or(name);
    if matches!(bare.as_bytes().first(), Some(b't' | b'a' | b'o' | b'w' | b'c')) && WHOSE.contains(&bare) {
        return true;
    }
    let begins = |prefix: &str| name.starts_with(prefix);
    let chooses = match first {
        // Next.js; htmx; Turbo, and what IIS makes of RFC 4918 (Translate); Datastar; JSF; Unpoly; Wicket.
        b'r' => name == "rsc",
        b'n' => begins("next-"),
        b'h' => begins("hx-"),
        b't' => begins("turbo-") || name == "translate",
        b'd' => name == "datastar-request",
        b'f' => name == "faces-request",
        b'u' => name == "unpoly-version",
        b'w' => begins("wicket-ajax"),
        // Who only fetches ahead is at times answered otherwise, or not at all. RFC 7240 (Prefer).
        b'p' => name == "purpose" || name == "prefer",
        // `Save-Data` is sent by few browsers, with all their requests: what these bring costs little to leave out.
        b's' => name == "sec-purpose" || name == "save-data" || name == "service-worker-navigation-preload",
        // RFC 3229 (A-IM), 7089 (Accept-Datetime); versions and profiles of APIs; AMP.
        b'a' => match name.strip_prefix("accept-") {
            Some(rest) => matches!(rest, "datetime" | "profile" | "version"),
            None => name == "a-im" || name == "amp-cache-transform",
        },
        b'x' => {
            name == "x-version" || X_CHOICES.contains(&name) || X_FAMILIES.iter().any(|prefix| begins(prefix))
        }
        _ => false,
    };
    chooses || name.ends_with("api-version")
}

const WHOSE: [&str; 14] = [
    "tenant",
    "tenant-id",
    "tenantid",
    "account",
    "account-id",
    "org",
    "org-id",
    "organization",
    "organization-id",
    "workspace",
    "workspace-id",
    "customer-id",
    "company-id",
    "client-id",
];

const X_CHOICES: [&str; 5] = ["x-requested-with", "x-barba", "x-microsoftajax", "x-purpose", "x-moz"];

/// By families, since each framework adds one now and then: Next.js, Inertia, pjax, Unpoly, Livewire, Alpine AJAX,
/// SPF, October, intercooler.
const X_FAMILIES: [&str; 9] =
    ["x-nextjs-", "x-inertia", "x-pjax", "x-up-", "x-livewire", "x-alpine-", "x-spf-", "x-october-", "x-ic-"];

const CREDENTIALS: [&str; 17] = [
    "api-key",
    "apikey",
    "x-apikey",
    "x-api-key",
    "x-api-token",
    "x-auth-token",
    "x-access-token",
    "x-session-id",
    "x-session-token",
    "x-user-token",
    "x-id-token",
    "x-jwt-assertion",
    "x-amz-security-token",
    "private-token",
    "authenticated-user",
    "cf-access-jwt-assertion",
    "x-goog-iap-jwt-assertion",
];

const IDENTITIES: [&str; 10] = [
    "cf-access-authenticated-",
    "ssl-client-",
    "wl-proxy-client-",
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-client-cert",
    "x-goog-authenticated-",
    "x-ms-client-principal",
    "x-ssl-client-",
    "x-webauth-",
];

/// Servers that hand fields on as variables tell no `_` or `.` from a `-`: `X_Forwarded.Host` is a writing of
/// `X-Forwarded-Host` there.
pub fn dashed(name: &str) -> Cow<'_, str> {
    if name.contains(['_', '.']) { Cow::Owned(name.replace(['_', '.'], "-")) } else { Cow::Borrowed(name) }
}

const OVERRIDES: [&str; 3] = ["x-http-method", "x-method", "-method"];

const WAYS: [&str; 20] = [
    "forwarded",
    "forwarded-for",
    "forwarded-host",
    "client-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
    "cf-connecting-ip",
    "cf-visitor",
    "fastly-client-ip",
    // Who a proxy in front has found the client to be.
    "remote-user",
    "x-remote-user",
    "x-authenticated-user",
    // Steps that a framework has taken already.
    "x-middleware-subrequest",
    "x-custom-ip-authorization",
];

const HINTS: [&str; 21] = [
    "akamai-origin-",
    // Where a proxy in front has found the client to be, and on what device.
    "cf-ip",
    "cloudfront-is-",
    "cloudfront-viewer-",
    "x-appengine-",
    "x-geo-",
    "front-end-",
    "proxy-",
    "x-accel-",
    "x-amz-website-",
    "x-azure-client",
    "x-backend-",
    "x-envoy-",
    "x-http-",
    "x-invoke-",
    "x-middleware-",
    "x-original-",
    "x-proxy-",
    "x-rewrite-",
    "x-sendfile",
    "x-up-devcap-",
];

const OTHERS: [&str; 29] = [
    "scheme",
    "x-country-code",
    "x-destination",
    "base-url",
    "http-host",
    "host-override",
    "request-uri",
    "script-name",
    "path-info",
    "redirect-url",
    "url",
    "uri",
    "fastly-ssl",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-proxyuser-ip",
    "x-script-name",
    "x-arr-ssl",
    "x-ssl",
    "x-wap-profile",
    "x-https",
    "destination",
    "http-url",
    "redirect",
    "surrogate-capability",
    "x-matched-path",
    "x-now-route-matches",
    "x-user-id",
];

/// `X-Host`, `X-Server-Name`, `X-Custom-Scheme`: by the last word of what is nobody's standard.
fn names_another(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("x-") else { return false };
    let last = rest.rsplit('-').next().unwrap_or(rest);
    matches!(
        last,
        "host" | "hostname" | "scheme" | "proto" | "protocol" | "port" | "url" | "uri" | "override"
    ) || rest == "server-name"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_by_their_names() {
        let all = CREDENTIALS.iter().chain(&IDENTITIES);
        assert!(all.clone().all(|name| is_credential(name)), "the first letter is among those looked for");
        assert!(is_credential("x_api_key") && is_credential("x-ssl-client-s-dn"));
        for name in [
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
        assert!(X_CHOICES.iter().chain(&X_FAMILIES).all(|name| chooses(name)));
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
            assert!(chooses(name), "{name}");
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
            assert!(!chooses(name), "{name}: every request of some browsers has it");
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
        for name in WAYS.iter().chain(&OTHERS) {
            assert!(claim(name).is_some(), "{name}");
        }
        for name in ["x-http-method", "x-method", "_method", "method-override", "x-http-method-override"] {
            assert_eq!(claim(name), Some(Claim::Method), "{name}");
        }
        for prefix in HINTS {
            assert!(claim(&format!("{prefix}a")).is_some(), "{prefix}");
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
            assert_eq!(claim(name), *want, "{name}");
        }
    }
}
