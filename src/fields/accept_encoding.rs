//! `Accept-Encoding` (RFC 9110 §12.5.3).
//!
//! Knows which content codings a request accepts, and how much it likes each: q-values, the star,
//! `identity`, absence and emptiness. Reads the field where it stands; nothing is allocated.
//! Must not know: responses, or what anybody can encode.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::accept::qvalue;
use super::content_coding::{Coding, canonical};
use super::list;

/// How much something is liked (§12.4.2), in thousandths: 1000 = most, 0 = not acceptable.
pub type Weight = u16;

/// The weight of what is listed without one.
const FULL: Weight = 1000;

/// What a request says about content codings.
#[derive(Clone, Copy, Debug)]
pub struct AcceptEncoding<'a>(&'a HeaderMap);

impl<'a> AcceptEncoding<'a> {
    /// Of a request with these fields.
    pub fn of(headers: &'a HeaderMap) -> Self {
        Self(headers)
    }

    /// Whether the request says nothing about codings: then "any content coding is considered
    /// acceptable" (§12.5.3), though who says nothing often reads none.
    pub fn is_absent(&self) -> bool {
        !self.0.contains_key(ACCEPT_ENCODING)
    }

    /// The codings it names, old names of a coding as the new one, each with its weight; `identity`
    /// and `*` among them. A member with a malformed weight says nothing.
    pub fn members(&self) -> impl Iterator<Item = (&'a [u8], Weight)> + use<'a> {
        list::all(self.0, &ACCEPT_ENCODING).filter_map(member)
    }

    /// How much this coding is liked; 0 = not acceptable. "If the representation's content coding
    /// is one of the content codings listed […], then it is acceptable unless it is accompanied by
    /// a qvalue of 0."
    pub fn weight(&self, coding: &[u8]) -> Weight {
        if self.is_absent() {
            return FULL;
        }
        self.listed(canonical(coding)).or_else(|| self.listed(b"*")).unwrap_or(0)
    }

    /// Whether content without coding is acceptable: "by default unless specifically excluded by
    /// the Accept-Encoding header field stating either "identity;q=0" or "*;q=0" without a more
    /// specific entry for "identity"".
    pub fn accepts_identity(&self) -> bool {
        self.listed(b"identity").or_else(|| self.listed(b"*")).is_none_or(|weight| weight > 0)
    }

    /// The coding of those offered that the request likes best, of equals the first; none where it
    /// accepts none, likes `identity` better, or does not speak of codings at all.
    pub fn best(&self, offered: &[Coding]) -> Option<Coding> {
        if self.is_absent() {
            return None;
        }
        let weighed = offered.iter().map(|coding| (*coding, self.weight(coding.as_str().as_bytes())));
        let (best, weight) = weighed.reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        let plain = self.listed(b"identity").unwrap_or(0);
        (weight > 0 && weight >= plain).then_some(best)
    }

    /// The weight of the first member of this name.
    fn listed(&self, name: &[u8]) -> Option<Weight> {
        self.members().find(|(listed, _)| listed.eq_ignore_ascii_case(name)).map(|(_, weight)| weight)
    }
}

/// `codings [ weight ]`; parameters that are no weight are passed over.
fn member(member: &[u8]) -> Option<(&[u8], Weight)> {
    let mut parts = member.split(|&b| b == b';').map(list::trim);
    let name = canonical(parts.next()?);
    let mut weight = FULL;
    for part in parts {
        if let [b'q' | b'Q', b'=', value @ ..] = part {
            weight = qvalue(value)?;
        }
    }
    Some((name, weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn codings_are_accepted_as_the_clause_says() {
        for (clause, lines, gzip, br, identity) in [
            ("§12.5.3 1. absent", &[][..], FULL, FULL, true),
            ("§12.5.3 empty: no coding", &[""], 0, 0, true),
            ("§12.5.3 3. listed", &["gzip"], FULL, 0, true),
            ("§12.5.3 any case", &["GZIP"], FULL, 0, true),
            ("§8.4.1.3 the old name", &["x-gzip"], FULL, 0, true),
            ("§12.5.3 3. listed with 0", &["gzip;q=0, br"], 0, FULL, true),
            ("§12.5.3 *", &["*"], FULL, FULL, true),
            ("§12.5.3 * but", &["gzip;q=0, *"], 0, FULL, true),
            ("§12.5.3 2. identity;q=0", &["identity;q=0, gzip"], FULL, 0, false),
            ("§12.5.3 2. *;q=0", &["br, *;q=0"], 0, FULL, false),
            ("§12.5.3 2. a more specific entry", &["identity, *;q=0"], 0, 0, true),
            ("§12.5.3 2. a more specific entry", &["*, identity;q=0"], FULL, FULL, false),
            ("§12.4.2 weights", &["gzip;q=0.5, br;q=0.001"], 500, 1, true),
            ("§12.4.2 weights", &["gzip;q=1.000, br;q=1."], FULL, FULL, true),
            ("§12.4.2 space and case", &["gzip ; Q=0.25"], 250, 0, true),
            ("§12.4.2 zeros", &["gzip;q=0.000, br;q=0."], 0, 0, true),
            ("lines combined", &["gzip", "br;q=0.5"], FULL, 500, true),
            ("§12.4.2 malformed: as if not said", &["gzip;q=1.5, br;q=x"], 0, 0, true),
            ("§12.4.2 malformed: as if not said", &["identity;q=-1, *;q=0.1234"], 0, 0, true),
            ("the first counts", &["gzip;q=0.1, gzip;q=0.9"], 100, 0, true),
            ("other parameters say nothing", &["gzip;level=9"], FULL, 0, true),
        ] {
            let headers = headers(lines);
            let accepts = AcceptEncoding::of(&headers);
            assert_eq!(accepts.weight(b"gzip"), gzip, "{clause}: {lines:?}");
            assert_eq!(accepts.weight(b"x-gzip"), gzip, "{clause}: {lines:?}");
            assert_eq!(accepts.weight(b"br"), br, "{clause}: {lines:?}");
            assert_eq!(accepts.accepts_identity(), identity, "{clause}: {lines:?}");
        }
    }

    #[test]
    fn the_best_is_what_the_client_likes_most_then_what_we_do() {
        use Coding::{Brotli, Gzip, Zstd};
        for (clause, lines, best) in [
            ("says nothing", &[][..], None),
            ("§12.5.3 empty", &[""], None),
            ("ours, of equals", &["gzip, deflate, br, zstd"], Some(Zstd)),
            ("ours, of what is accepted", &["gzip, br"], Some(Brotli)),
            ("§12.4.2 the client's weights", &["gzip, br;q=0.9, zstd;q=0.9"], Some(Gzip)),
            ("§12.5.3 *", &["*"], Some(Zstd)),
            ("§12.5.3 * but", &["*, zstd;q=0"], Some(Brotli)),
            ("refuses all", &["*;q=0"], None),
            ("others only", &["compress, deflate"], None),
            ("identity is liked better", &["identity, gzip;q=0.5"], None),
            ("identity is liked as much", &["identity, gzip"], Some(Gzip)),
            ("identity is liked less", &["identity;q=0.5, gzip"], Some(Gzip)),
        ] {
            let headers = headers(lines);
            assert_eq!(AcceptEncoding::of(&headers).best(&[Zstd, Brotli, Gzip]), best, "{clause}: {lines:?}");
            assert_eq!(AcceptEncoding::of(&headers).best(&[]), None);
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(bytes: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(ACCEPT_ENCODING, value);
            }
            let accepts = AcceptEncoding::of(&headers);
            let best = accepts.best(&Coding::ALL);
            prop_assert!(best.is_none_or(|best| accepts.weight(best.as_str().as_bytes()) > 0));
            prop_assert!(accepts.members().all(|(_, weight)| weight <= FULL));
        }

        #[test]
        fn order_does_not_matter_where_each_is_named_once(
            weights in prop::array::uniform4(0..=1000_u16), turn in 0..4_usize,
        ) {
            let names = ["gzip", "br", "identity", "*"];
            let mut parts: Vec<_> = names
                .iter()
                .zip(weights)
                .map(|(name, weight)| format!("{name};q={}.{:03}", weight / 1000, weight % 1000))
                .collect();
            let one = headers(&[&parts.join(",")]);
            parts.rotate_left(turn);
            let other = headers(&[&parts.join(" , ")]);
            let (one, other) = (AcceptEncoding::of(&one), AcceptEncoding::of(&other));
            prop_assert_eq!(one.weight(b"gzip"), weights[0]);
            prop_assert_eq!(one.weight(b"br"), other.weight(b"br"));
            prop_assert_eq!(one.weight(b"zstd"), weights[3]);
            prop_assert_eq!(one.accepts_identity(), other.accepts_identity());
            prop_assert_eq!(one.best(&[Coding::Gzip, Coding::Brotli]), other.best(&[Coding::Gzip, Coding::Brotli]));
        }
    }
}
