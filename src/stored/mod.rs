//! The thing we keep. (Smallest faithful version, for compiling `config` only.)

use http::HeaderName;

/// What a cache key is made of besides the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Query arguments that are not part of the key.
    pub ignore_query: Vec<Glob>,
    /// Request fields that are part of the key.
    pub headers: Vec<HeaderName>,
    /// Cookies that are part of the key.
    pub cookies: Vec<String>,
    /// Whether the credentials are part of the key.
    pub per_credential: bool,
}

/// A pattern in which only `*` is special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// From its text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
