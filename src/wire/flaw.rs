//! What can be wrong with the bytes of a response: one word each for metrics, one sentence each for people.
//!
//! Must not know: what comes of it.

use std::fmt;

macro_rules! flaws {
    ($($(#[$doc:meta])* $ident:ident: $word:literal $sentence:literal;)*) => {
        /// Why a response, or a byte that belongs to none, ends its connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Flaw {
            $($(#[$doc])* $ident,)*
        }

        impl Flaw {
            /// Every flaw, for metrics and documentation.
            pub const ALL: &[Self] = &[$(Self::$ident),*];

            /// The word for metrics and logs.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$ident => $word,)*
                }
            }
        }

        impl fmt::Display for Flaw {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$ident => $sentence,)*
                })
            }
        }
    };
}

flaws! {
    /// A byte while no answer was due: after the end of a response, or before a request.
    Unasked: "unasked-bytes" "it sent bytes that belong to no response";
    /// Neither HTTP/1.0 nor HTTP/1.1, or no status code.
    StatusLine: "status-line" "its status line is none of HTTP/1";
    /// A name that is no token, no colon, or white space before it.
    FieldName: "field-name" "a field's name is not one, or no colon follows it";
    /// NUL or another control character.
    FieldValue: "field-value" "a field's value holds control characters";
    /// A field that goes on in the next line (RFC 9112 §5.2).
    Folded: "folded-field" "a field goes on in the next line";
    /// A line that ends without CR.
    BareLf: "bare-lf" "a line ends with a line feed alone";
    /// A CR that ends no line.
    BareCr: "bare-cr" "a carriage return ends no line";
    /// `Content-Length` is no number, or none below 2^63.
    Length: "content-length" "its Content-Length is no length";
    /// `Content-Length` twice, in lines or in a list.
    DoubledLength: "doubled-content-length" "it has more than one Content-Length";
    /// `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding: "length-and-coding" "it has both Content-Length and Transfer-Encoding";
    /// A transfer coding other than one `chunked`, or one in HTTP/1.0.
    Coding: "transfer-coding" "its Transfer-Encoding is not one chunked";
    /// Content on a status that has none.
    Contentless: "unexpected-content" "a response of its status has no content";
    /// A chunk's size, extensions or end.
    Chunk: "chunk-framing" "a chunk's size or end is not as it must be";
    /// A field in the trailer section that frames messages.
    Trailer: "trailer-framing" "its trailer section holds fields of framing";
    /// A head, trailer section or line beyond its limit.
    TooLarge: "too-large" "its head, its trailer section or a line of a chunk's size is too large";
    /// More interim responses than anybody waits for.
    Interims: "interim-flood" "it sent too many interim responses";
    /// A 101 to a request that offered no other protocol.
    UnaskedUpgrade: "unasked-upgrade" "it switched protocols unasked";
    /// A 304 to a request without conditions.
    UnaskedNotModified: "unasked-304" "it sent a 304 that nobody asked for";
    /// What else the parser refuses.
    Syntax: "other-syntax" "it is not HTTP/1";
}

impl std::error::Error for Flaw {}
