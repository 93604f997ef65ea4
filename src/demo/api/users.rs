//! The sample API's data: users in memory, and what a user must look like.
//!
//! Knows names, addresses and bounds.
//! Must not know: HTTP, but for the status that a refusal amounts to.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::clock::Timestamp;

/// Users that are kept at most.
const CAPACITY: usize = 10_000;
/// Bytes of a name, and of an address (RFC 5321 §4.5.3.1.3).
const NAME: usize = 200;
const EMAIL: usize = 254;

const FIRST_NAMES: [&str; 10] =
    ["Amara", "Bela", "Chen", "Dana", "Emeka", "Farid", "Greta", "Hiro", "Ines", "Jonas"];
const LAST_NAMES: [&str; 10] =
    ["Abara", "Berg", "Costa", "Demir", "Eriksen", "Fontaine", "Garcia", "Horvat", "Ivanova", "Jansen"];
/// When the sample users were created, one an hour: 2024-01-01.
const SAMPLE_START: u64 = 1_704_067_200;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct User {
    /// From 1.
    pub(super) id: u64,
    name: String,
    email: String,
    created_at: String,
}

/// A user to be created, checked by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewUser {
    name: String,
    email: String,
}

/// Why a user is not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotAnObject,
    Name,
    Email,
    EmailTaken,
    Full,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NotAnObject | Self::Name | Self::Email => StatusCode::UNPROCESSABLE_ENTITY,
            Self::EmailTaken => StatusCode::CONFLICT,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    /// The field that is wrong.
    pub(super) fn field(self) -> Option<&'static str> {
        match self {
            Self::Name => Some("name"),
            Self::Email | Self::EmailTaken => Some("email"),
            Self::NotAnObject | Self::Full => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("a user is {\"name\": ..., \"email\": ...}"),
            Self::Name => write!(f, "name must be a text of 1 to {NAME} bytes"),
            Self::Email => f.write_str("email must be an address such as ada@example.org"),
            Self::EmailTaken => f.write_str("a user with this email exists"),
            Self::Full => write!(f, "this sample keeps {CAPACITY} users and no more"),
        }
    }
}

/// What a user to be created must look like.
pub(super) fn check(value: &Value) -> Result<NewUser, Refusal> {
    let fields = value.as_object().ok_or(Refusal::NotAnObject)?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::trim);
    let name = text("name").filter(|name| (1..=NAME).contains(&name.len())).ok_or(Refusal::Name)?;
    let email = text("email").filter(|email| is_address(email)).ok_or(Refusal::Email)?;
    Ok(NewUser { name: name.to_owned(), email: email.to_ascii_lowercase() })
}

fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    text.len() <= EMAIL
        && !local.is_empty()
        && domain.split('.').count() > 1
        && domain.split('.').all(|label| !label.is_empty())
        && !domain.contains('@')
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Every user.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_id: BTreeMap<u64, User>,
    emails: HashSet<String>,
}

impl Users {
    /// A hundred made-up ones, the same at every start.
    pub(super) fn sample() -> Self {
        let mut users = Self::default();
        let names = LAST_NAMES.iter().flat_map(|last| FIRST_NAMES.iter().map(move |first| (first, last)));
        for ((first, last), hour) in names.zip(0..) {
            let email = format!("{first}.{last}@example.com").to_ascii_lowercase();
            let new = NewUser { name: format!("{first} {last}"), email };
            // They differ and are few, so none is refused; a test counts them.
            let _ = users.create(new, Timestamp::from_secs(SAMPLE_START + hour * 3600));
        }
        users
    }

    pub(super) fn get(&self, id: u64) -> Option<&User> {
        self.by_id.get(&id)
    }

    /// The first `limit` by id.
    pub(super) fn first(&self, limit: usize) -> Vec<User> {
        self.by_id.values().take(limit).cloned().collect()
    }

    pub(super) fn create(&mut self, new: NewUser, now: Timestamp) -> Result<User, Refusal> {
        if self.by_id.len() >= CAPACITY {
            return Err(Refusal::Full);
        }
        if !self.emails.insert(new.email.clone()) {
            return Err(Refusal::EmailTaken);
        }
        let id = self.by_id.last_key_value().map_or(1, |(last, _)| last + 1);
        let user = User { id, name: new.name, email: new.email, created_at: rfc3339(now) };
        self.by_id.insert(id, user.clone());
        Ok(user)
    }
}

/// `2024-01-01T00:00:00Z`
fn rfc3339(at: Timestamp) -> String {
    let (days, second) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the Gregorian calendar, from days since 1970. Counts in years that begin
/// in March, so that the leap day is the last one of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_sample_is_a_hundred_users_with_addresses_of_their_own() {
        let users = Users::sample();
        assert_eq!((users.by_id.len(), users.emails.len()), (100, 100));
        assert_eq!(users.get(1).unwrap().created_at, "2024-01-01T00:00:00Z");
        assert!(users.first(1000).iter().all(|user| is_address(&user.email)));
    }

    #[test]
    fn addresses_are_told_from_other_text() {
        for good in ["a@b.c", "ada.l+x@mail.example.org"] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("{}@b.c", "a".repeat(EMAIL));
        for bad in
            ["", "a", "@b.c", "a@", "a@b", "a@b.", "a@.c", "a@b..c", "a@b@c.d", "a b@c.d", "a@b.c\n", &long]
        {
            assert!(!is_address(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_is_created_is_trimmed_and_lower_cased() {
        let new = check(&json!({"name": " Ada ", "email": "Ada@Example.ORG", "id": 7})).unwrap();
        assert_eq!(new, NewUser { name: "Ada".to_owned(), email: "ada@example.org".to_owned() });
        assert_eq!(check(&json!({"name": "A".repeat(201), "email": "a@b.c"})), Err(Refusal::Name));
    }

    #[test]
    fn the_store_is_bounded() {
        let mut users = Users::default();
        for n in 0..CAPACITY {
            let new = NewUser { name: "A".to_owned(), email: format!("{n}@b.c") };
            users.create(new, Timestamp::default()).unwrap();
        }
        let one_more = NewUser { name: "A".to_owned(), email: "a@b.c".to_owned() };
        assert_eq!(users.create(one_more, Timestamp::default()), Err(Refusal::Full));
    }

    #[test]
    fn moments_are_written_as_rfc_3339_says() {
        let rows = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (secs, expected) in rows {
            assert_eq!(rfc3339(Timestamp::from_secs(secs)), expected);
        }
    }
}
