//! The names of the warnings, by which each can be let pass.
//!
//! A closed set: a warning without a name does not compile, and one of another name cannot be let pass by mistake.
//! Must not know: when one is due.

/// Names the warnings, each with its word.
macro_rules! lints {
    ($($(#[$doc:meta])* $name:ident $word:literal;)*) => {
        /// What works and is dangerous, or does nothing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Lint {
            $($(#[$doc])* $name,)*
        }

        impl Lint {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, as `larder check --allow` takes it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

lints! {
    /// `authorization = "share"`
    SharedCredentials "shared-credentials";
    /// `cookies = "ignore"`
    IgnoredCookies "ignored-cookies";
    /// `set_cookie = "keep"`
    KeptCookies "kept-cookies";
    /// `deception_guard = false`
    NoDeceptionGuard "no-deception-guard";
    /// POST in `methods`
    CachedPost "cached-post";
    /// `ttl.override` where what users are answered is shared.
    OverriddenPrivate "overridden-private";
    /// `ttl.default` or `ttl.override` beyond `ttl.max`
    TtlBeyondMax "ttl-beyond-max";
    /// A stale window within another.
    StaleNever "stale-never";
    /// A stale window that is longer than Redis keeps anything.
    BeyondRedis "beyond-redis";
    /// `methods` of which none brings anything to be stored.
    NeverStores "never-stores";
    /// `*` in `key.ignore_query`
    MergedQueries "merged-queries";
    /// An `admin_token` that is short.
    WeakToken "weak-token";
    /// Trusted proxies that are much of the internet.
    WideTrust "wide-trust";
    /// A PROXY listener that anybody reaches.
    OpenProxyProtocol "open-proxy-protocol";
    /// `redis_secret_file` without `redis`
    UnusedSecret "unused-secret";
    /// A file with secrets that others may open.
    ExposedSecret "exposed-secret";
    /// All of `drain` is `lame_duck`.
    NoDrain "no-drain";
    /// `cache.memory` beyond what the process may have.
    MemoryBeyondLimit "memory-beyond-limit";
    /// `[otlp]` without an `endpoint`
    NoEndpoint "no-endpoint";
    /// `[otlp]` beside `log.trace = "off"`
    NoTraces "no-traces";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_one_of_its_own_and_of_plain_letters() {
        for (nth, lint) in Lint::ALL.iter().enumerate() {
            let name = lint.as_str();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
            assert!(Lint::ALL.iter().skip(nth + 1).all(|other| other.as_str() != name), "{name}");
        }
    }
}
