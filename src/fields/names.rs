//! Names of fields that say something by themselves, in one table.
//!
//! Knows how each begins, and what it is for. Must not know: what follows from it.

use super::claims::Claim;

/// What a name says by its beginning: each row of [`NAMES`] that it is, or begins with.
pub(super) fn by_beginning(name: &str, found: &mut impl FnMut(Says)) {
    let begins = beginning(name);
    let from = NAMES.partition_point(|(row, _)| beginning(row) < begins);
    let rows = NAMES.get(from..).unwrap_or_default();
    for (row, says) in rows.iter().take_while(|(row, _)| beginning(row) == begins) {
        let is_it = match row.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == *row,
        };
        if is_it {
            found(*says);
        }
    }
}

/// The first three letters as one number; none has fewer.
fn beginning(name: &str) -> u32 {
    match name.as_bytes() {
        [a, b, c, ..] => u32::from_be_bytes([0, *a, *b, *c]),
        _ => 0,
    }
}

/// What a row says of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// What it claims.
    Claims(Claim),
    /// Who the user is: what proxies that have logged one in call that.
    Identity,
    /// Scripts choose by it.
    Chooses,
    /// The same, with `X-` before it, too: whose data is meant, where one API serves many.
    Whose,
}

const CLIENT: Says = Says::Claims(Claim::Client);
const METHOD: Says = Says::Claims(Claim::Method);
const WAY: Says = Says::Claims(Claim::Way);
const HINT: Says = Says::Claims(Claim::Hint);

/// The names, in order of their first three letters; what begins with one is meant where it ends with `*`. By
/// families where there are any, since each framework adds one now and then.
pub(super) static NAMES: [(&str, Says); 140] = [
    ("-method", METHOD),
    // RFC 3229.
    ("a-im", Says::Chooses),
    // RFC 7089.
    ("accept-datetime", Says::Chooses),
    ("accept-profile", Says::Chooses),
    ("accept-version", Says::Chooses),
    // Whose data is meant, where one API serves many: as private as what a user may see.
    ("account", Says::Whose),
    ("account-id", Says::Whose),
    ("akamai-origin-*", HINT),
    // AMP.
    ("amp-cache-transform", Says::Chooses),
    ("authenticated-user", Says::Identity),
    ("base-url", HINT),
    ("cf-access-authenticated-*", Says::Identity),
    ("cf-connecting-ip", WAY),
    // Where a proxy in front has found the client to be, and on what device: these and more.
    ("cf-ip*", HINT),
    ("cf-visitor", WAY),
    ("client-id", Says::Whose),
    ("client-ip", WAY),
    ("cloudfront-is-*", HINT),
    ("cloudfront-viewer-*", HINT),
    ("company-id", Says::Whose),
    ("customer-id", Says::Whose),
    // Datastar.
    ("datastar-request", Says::Chooses),
    ("destination", HINT),
    // JSF.
    ("faces-request", Says::Chooses),
    ("fastly-client-ip", WAY),
    ("fastly-ssl", HINT),
    ("forwarded", WAY),
    ("forwarded-for", WAY),
    ("forwarded-host", WAY),
    ("front-end-*", HINT),
    ("host-override", HINT),
    ("http-host", HINT),
    ("http-url", HINT),
    // htmx.
    ("hx-*", Says::Chooses),
    // Next.js.
    ("next-*", Says::Chooses),
    ("org", Says::Whose),
    ("org-id", Says::Whose),
    ("organization", Says::Whose),
    ("organization-id", Says::Whose),
    ("path-info", HINT),
    // RFC 7240.
    ("prefer", Says::Chooses),
    ("proxy-*", HINT),
    // Who only fetches ahead is at times answered otherwise, or not at all.
    ("purpose", Says::Chooses),
    ("redirect", HINT),
    ("redirect-url", HINT),
    // Who a proxy in front has found the client to be.
    ("remote-user", WAY),
    ("request-uri", HINT),
    // Next.js.
    ("rsc", Says::Chooses),
    // Sent by few browsers, with all their requests: what these bring costs little to leave out.
    ("save-data", Says::Chooses),
    ("scheme", HINT),
    ("script-name", HINT),
    ("sec-purpose", Says::Chooses),
    ("service-worker-navigation-preload", Says::Chooses),
    ("ssl-client-*", Says::Identity),
    ("surrogate-capability", HINT),
    ("tenant", Says::Whose),
    ("tenant-id", Says::Whose),
    ("tenantid", Says::Whose),
    // What IIS makes of RFC 4918.
    ("translate", Says::Chooses),
    ("true-client-ip", WAY),
    // Turbo.
    ("turbo-*", Says::Chooses),
    // Unpoly.
    ("unpoly-version", Says::Chooses),
    ("uri", HINT),
    ("url", HINT),
    // Wicket.
    ("wicket-ajax*", Says::Chooses),
    ("wl-proxy-client-*", Says::Identity),
    ("workspace", Says::Whose),
    ("workspace-id", Says::Whose),
    ("x-accel-*", HINT),
    // Alpine AJAX.
    ("x-alpine-*", Says::Chooses),
    ("x-amz-website-*", HINT),
    ("x-amzn-oidc-*", Says::Identity),
    ("x-appengine-*", HINT),
    ("x-arr-ssl", HINT),
    ("x-auth-request-*", Says::Identity),
    ("x-authenticated-user", WAY),
    ("x-azure-client*", HINT),
    ("x-backend-*", HINT),
    ("x-barba", Says::Chooses),
    ("x-client-cert*", Says::Identity),
    ("x-client-ip", WAY),
    ("x-cluster-client-ip", WAY),
    ("x-country-code", HINT),
    ("x-custom-ip-authorization", WAY),
    ("x-destination", HINT),
    ("x-envoy-*", HINT),
    ("x-forward*", WAY),
    ("x-forwarded-for", CLIENT),
    ("x-forwarded-proto", CLIENT),
    ("x-geo-*", HINT),
    ("x-goog-authenticated-*", Says::Identity),
    ("x-http-*", HINT),
    ("x-http-method", METHOD),
    ("x-https", HINT),
    // Intercooler.
    ("x-ic-*", Says::Chooses),
    // Inertia.
    ("x-inertia*", Says::Chooses),
    ("x-invoke-*", HINT),
    // Livewire.
    ("x-livewire*", Says::Chooses),
    ("x-matched-path", HINT),
    ("x-method", METHOD),
    ("x-microsoftajax", Says::Chooses),
    ("x-middleware-*", HINT),
    // Steps that a framework has taken already.
    ("x-middleware-subrequest", WAY),
    ("x-moz", Says::Chooses),
    ("x-ms-client-principal*", Says::Identity),
    // Next.js.
    ("x-nextjs-*", Says::Chooses),
    ("x-now-route-matches", HINT),
    // October.
    ("x-october-*", Says::Chooses),
    ("x-original-*", HINT),
    ("x-original-forwarded-for", WAY),
    ("x-original-host", WAY),
    ("x-original-uri", WAY),
    ("x-original-url", WAY),
    ("x-originating-ip", HINT),
    ("x-override-method", METHOD),
    // pjax.
    ("x-pjax*", Says::Chooses),
    ("x-proxy-*", HINT),
    ("x-proxyuser-ip", HINT),
    ("x-purpose", Says::Chooses),
    ("x-real-ip", CLIENT),
    ("x-remote-addr", HINT),
    ("x-remote-ip", HINT),
    ("x-remote-user", WAY),
    ("x-requested-with", Says::Chooses),
    ("x-rewrite-*", HINT),
    ("x-rewrite-url", WAY),
    ("x-script-name", HINT),
    ("x-sendfile*", HINT),
    ("x-server-name", HINT),
    // SPF.
    ("x-spf-*", Says::Chooses),
    ("x-ssl", HINT),
    ("x-ssl-client-*", Says::Identity),
    ("x-tunnel-method", METHOD),
    // Unpoly.
    ("x-up-*", Says::Chooses),
    ("x-up-devcap-*", HINT),
    ("x-user-id", HINT),
    ("x-version", Says::Chooses),
    ("x-vhost", HINT),
    ("x-wap-profile", HINT),
    ("x-webauth-*", Says::Identity),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_no_name_is_too_short_for_it() {
        assert!(NAMES.is_sorted_by_key(|(row, _)| beginning(row)));
        assert!(NAMES.iter().all(|(row, _)| row.trim_end_matches('*').len() >= 3));
    }
}
