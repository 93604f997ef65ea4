//! The thing that is kept: a response, its key, and the bytes it becomes for the shared tier.
//!
//! Pure: no sockets, no files, no clock, no runtime. What the origin said and when is stored, never
//! a computed expiry: the route's policy is applied when a response is read.

mod codec;
mod copies;
mod cut;
mod damaged;
mod fields;
mod glob;
mod group;
mod key;
mod mark;
mod parts;
mod response;
mod said;
mod scope;
mod seal;
mod standing;

pub use codec::{
    MOST_NAMES, Record, decode, decode_rule, decode_unasked, decode_url, encode_names, encode_response,
    encode_rule,
};
pub use copies::{Copies, Copy, Form};
pub use cut::{Cut, is_not_modified, resolve};
pub use damaged::Damaged;
pub use fields::StoredFields;
pub use glob::Glob;
pub use group::Group;
pub use key::{CacheKey, DotSegments, KeyPolicy, Slashes};
pub use mark::LONGEST_MARK;
pub use parts::{Content, MOST_PIECES, Parts};
pub use response::{Received, SERVER_TIMING, StoredResponse, says_length};
pub use scope::{LONGEST_NAME, LONGEST_URL, Position, Prefix, Purge, Scope, Unfit};
pub use seal::{MOST_SECRETS, Nonce, SEALED, Seal, Secret, from_hex};
pub use standing::{Born, Standing, TagPolicy, Verdict, route_hash, tag_hash};

#[cfg(test)]
pub(crate) use response::samples;
