//! The dashboard: one page and what it is made of, all in the binary, and the figures that it shows.
//!
//! Knows what the page is told each second (`event`), who is told (`streams`), and what could be tuned (`tune`). The
//! page and its parts hold nothing of anybody's and are given to whoever reaches the listener, since a browser cannot
//! send a token before there is a page that asks for it; all figures want the token.
//! Must not know: how anything is counted.

mod event;
mod streams;
mod tune;

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use xxhash_rust::xxh3::xxh3_64;

use super::api::Answer;

pub(super) use event::{event, of_route};
pub(super) use streams::{Events, Seat, Streams};

/// A part of the page.
struct Asset {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 7] = [
    Asset { path: "/", kind: "text/html; charset=utf-8", content: include_str!("page/index.html") },
    Asset { path: "/dashboard/icon.svg", kind: "image/svg+xml", content: include_str!("page/icon.svg") },
    Asset {
        path: "/dashboard/app.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("page/app.js"),
    },
    Asset {
        path: "/dashboard/parts.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("page/parts.js"),
    },
    Asset {
        path: "/dashboard/style.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("page/style.css"),
    },
    Asset {
        path: "/dashboard/uplot.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("page/vendor/uPlot.iife.min.js"),
    },
    Asset {
        path: "/dashboard/uplot.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("page/vendor/uPlot.min.css"),
    },
];

/// What each of them may do in a browser: load from here, talk to here, and be shown in nobody's frame.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      object-src 'none'";

/// By their content, so that a newer Larder's are fetched anew and the same ones are not.
static TAGS: LazyLock<[HeaderValue; ASSETS.len()]> = LazyLock::new(|| {
    ASSETS.each_ref().map(|asset| {
        let tag = format!("\"{:016x}\"", xxh3_64(asset.content.as_bytes()));
        HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
    })
});

/// Whether there is such a part.
pub(super) fn has(path: &str) -> bool {
    ASSETS.iter().any(|asset| asset.path == path)
}

/// Whether who asks for `/` would rather see a page than a list.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts.into_iter().any(|value| value.contains("text/html"))
}

/// A part of the page; `None` where there is none at this path.
pub(super) fn asset(path: &str, headers: &HeaderMap) -> Option<Answer> {
    let (asset, tag) = ASSETS.iter().zip(TAGS.iter()).find(|(asset, _)| asset.path == path)?;
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).any(|known| known.trim() == tag);
    let mut answer = Response::new(Either::Left(Full::new(match known {
        true => Bytes::new(),
        false => Bytes::from_static(asset.content.as_bytes()),
    })));
    if known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(header::ETAG, tag.clone());
    fields.insert(header::VARY, HeaderValue::from_static("Accept"));
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    fields.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_the_page_and_a_program_the_list() {
        let accepts = |value: &'static str| {
            is_wanted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]))
        };
        assert!(accepts("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!accepts("*/*") && !accepts("application/json") && !is_wanted(&HeaderMap::new()));
    }

    /// The policy forbids what would stand in the page itself, and other places.
    #[test]
    fn the_page_has_no_script_style_or_handler_of_its_own_and_leads_nowhere_else() {
        let page = ASSETS[0].content;
        for (tag, rest) in page.split('<').skip(1).filter_map(|tag| tag.split_once('>')) {
            let name = tag.split_whitespace().next().unwrap_or_default();
            assert!(name != "style" && (name != "script" || rest.trim().is_empty()), "<{tag}>{rest}");
            for attribute in tag.split_whitespace().skip(1) {
                assert!(!attribute.starts_with("on") && !attribute.starts_with("style="), "<{tag}>");
                let leads = attribute.split_once('=').filter(|(name, _)| *name == "src" || *name == "href");
                let to = leads.map_or("", |(_, to)| to.trim_matches(['"', '/']));
                assert!(to.is_empty() || to.starts_with('#') || has(&format!("/{to}")), "<{tag}>");
            }
        }
        for asset in ASSETS.iter().filter(|asset| !asset.path.contains("uplot")) {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "srcdoc"]
            {
                assert!(!asset.content.contains(forbidden), "{}: {forbidden}", asset.path);
            }
        }
    }
}
