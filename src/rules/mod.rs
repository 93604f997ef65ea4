//! RFC 9111 as total functions.
//!
//! One file per chapter: facts (parsed once), storing (§3), guarding (what is stored no more than it need
//! be), selecting (§4.1), freshness (§4.2),
//! reuse (§4, §4.2.4, RFC 5861), validation (§4.3), invalidation (§4.4). Nothing here reads a
//! clock or does I/O: time is an argument.
//!
//! Two permits make forgetting a check a compile error: only [`storing::judge`] makes a
//! [`Storable`], only `reuse` makes a [`Reusable`].
//! Must not know: where responses are kept, how they are fetched, who is told.

mod facts;
mod freshness;
mod graphql;
mod guarding;
mod invalidation;
mod policy;
mod reasons;
pub mod reuse;
mod selecting;
pub mod storing;
#[cfg(test)]
mod testing;
mod understood;
mod validation;
mod verifying;

pub use facts::{Expires, RequestFacts, ResponseFacts, Said, is_safe};
pub use freshness::{Lifetime, LifetimeSource, OriginFailure, current_age, lifetime, usable_for};
pub use graphql::only_reads;
pub use guarding::{Exchanged, guard};
pub use invalidation::{invalidates, names_itself, targets};
pub use policy::{
    Authorization, ClientCacheControl, Cookies, Heuristic, Methods, Normalize, Policy, RangeFetch, SetCookie,
    Ttl,
};
pub use reasons::{MustAsk, NotStored};
pub use reuse::{Reusable, Reuse, after_validation, on_error, ttl};
pub use selecting::{SelectingFields, selecting_fields};
pub use storing::{Storable, stored_fields};
pub use validation::{
    ClientCondition, client_condition, confirms, for_who_asked, freshen, if_range_holds, keep_to_the_stored,
    not_modified_fields, origin_conditions, our_if_range, same_representation, same_strong_validator,
    speaks_of, strip_conditions,
};
pub use verifying::{Compared, Finding, finding};
