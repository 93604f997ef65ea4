//! Which trace a request is of (W3C Trace Context), and its id.
//!
//! Knows the form of `traceparent`, and which `X-Request-Id` may stand in a log. What may come of them is made of
//! bits that somebody else has drawn.
//! Must not know: logs, spans, who sends what to whom.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// `traceparent` (W3C Trace Context §3.2)
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate` (W3C Trace Context §3.3)
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `X-Request-Id`, which no standard knows.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of an `X-Request-Id`; longer ones are none.
const LONGEST: usize = 128;

/// A `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    parent: u64,
    flags: u8,
}

/// What a request is called to the origin and in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Its trace, with this process's own part as the parent.
    pub trace: Option<TraceParent>,
    /// Its caller's part in that trace, where it has come with one.
    pub caller: Option<u64>,
    /// Its id.
    pub request: Option<HeaderValue>,
}

/// What is done about traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracing {
    /// What comes passes as it is.
    Off,
    /// What comes is taken up.
    #[default]
    Accept,
    /// The same, and what does not come is made; so many of these traces are said to be sampled.
    Make(Share),
}

/// A part of all traces, chosen by their ids: every process with the same share chooses the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// W3C Trace Context, level 2: the bits of an id that are random at least.
    const OF: u64 = 1 << 56;
    /// All of them.
    pub const ALL: Self = Self(Self::OF);

    /// `some` of so many.
    pub fn new(some: u32, of: u32) -> Self {
        let part = u128::from(Self::OF) * u128::from(some) / u128::from(of.max(1));
        Self(u64::try_from(part).unwrap_or(Self::OF).min(Self::OF))
    }

    /// Whether a trace is among them.
    fn takes(self, trace: u128) -> bool {
        let random = u64::try_from(trace & u128::from(Self::OF - 1)).unwrap_or_default();
        random >= Self::OF - self.0
    }
}

/// §3.2.2.5: the trace may be recorded; level 2: its id is random.
const SAMPLED: u8 = 0b01;
const RANDOM: u8 = 0b10;

impl TraceParent {
    /// Reads the one line of a field: §3.2.2. Of a later version what is known of this one counts (§4).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(5, '-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let more = parts.next();
        let is_hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let fits = is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
        // §3.2.2.1: "Version ff is invalid"; this version has nothing behind its flags.
        if !fits || version == "ff" || (version == "00" && more.is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok()?;
        let parent = u64::from_str_radix(parent, 16).ok()?;
        // §3.2.2.3, §3.2.2.4: all zeros are invalid.
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace != 0 && parent != 0).then_some(Self { trace, parent, flags })
    }

    /// The trace, in hexadecimal.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The trace.
    pub const fn trace(&self) -> u128 {
        self.trace
    }

    /// The part of it.
    pub const fn span(&self) -> u64 {
        self.parent
    }

    /// Its flags, those that are known.
    pub const fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether who has begun it records it.
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The part of it, in hexadecimal.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.parent)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, self.flags)
    }
}

impl Ids {
    /// Those of a request with these fields; `drawn` gives random bits, and is asked only where some are needed.
    pub fn of(headers: &HeaderMap, mode: Tracing, mut drawn: impl FnMut() -> u128) -> Self {
        if mode == Tracing::Off {
            return Self::default();
        }
        let came = only(headers, &TRACEPARENT).and_then(|value| TraceParent::parse(value.as_bytes()));
        let makes = if let Tracing::Make(share) = mode { Some(share) } else { None };
        // Zero is no id; one bit more or less is nothing to chance.
        let own = |drawn: u128| u64::try_from(drawn >> 64).unwrap_or(1).max(1);
        let trace = match came {
            // §3.2.2.5: of the flags, those that are known.
            Some(came) => {
                Some(TraceParent { parent: own(drawn()), flags: came.flags & (SAMPLED | RANDOM), ..came })
            }
            // Who has traces made wants them kept, and origins ask their parent.
            None => makes.map(|share| {
                let trace = drawn().max(1);
                let flags = if share.takes(trace) { SAMPLED | RANDOM } else { RANDOM };
                TraceParent { trace, parent: own(drawn()), flags }
            }),
        };
        let request = only(headers, &X_REQUEST_ID).filter(|id| is_sane(id.as_bytes())).cloned();
        let request =
            request.or_else(|| makes.and_then(|_| HeaderValue::from_str(&format!("{:032x}", drawn())).ok()));
        Self { trace, caller: came.map(|came| came.parent), request }
    }

    /// The same, where its trace is one that is recorded: of others nothing is made.
    pub fn recorded(headers: &HeaderMap, mode: Tracing, mut drawn: impl FnMut() -> u128) -> Option<Self> {
        let mut first = None;
        match (headers.contains_key(TRACEPARENT), mode) {
            (_, Tracing::Off) | (false, Tracing::Accept) => return None,
            (true, _) => {}
            (false, Tracing::Make(share)) => {
                let trace = drawn();
                if !share.takes(trace.max(1)) {
                    return None;
                }
                first = Some(trace);
            }
        }
        let ids = Self::of(headers, mode, || first.take().unwrap_or_else(&mut drawn));
        ids.trace.is_some_and(|trace| trace.is_sampled()).then_some(ids)
    }

    /// Writes them in place of what came.
    pub fn apply(&self, headers: &mut HeaderMap) {
        match self.trace.and_then(|trace| HeaderValue::from_str(&trace.to_string()).ok()) {
            // §3.3: `tracestate` is of the trace that came. Where that was made anew, there is none.
            Some(trace) => {
                let came = only(headers, &TRACEPARENT).and_then(|value| TraceParent::parse(value.as_bytes()));
                if came.map(|came| came.trace) != self.trace.map(|trace| trace.trace) {
                    headers.remove(TRACESTATE);
                }
                headers.insert(TRACEPARENT, trace);
            }
            // §4.3: "If traceparent cannot be parsed", `tracestate` is not to be used.
            None => {
                headers.remove(TRACEPARENT);
                headers.remove(TRACESTATE);
            }
        }
        match &self.request {
            Some(id) => _ = headers.insert(X_REQUEST_ID, id.clone()),
            None => _ = headers.remove(X_REQUEST_ID),
        }
    }
}

/// Whether a message says anything of what it is called.
pub fn is_named(headers: &HeaderMap) -> bool {
    [TRACEPARENT, TRACESTATE, X_REQUEST_ID].iter().any(|name| headers.contains_key(name))
}

/// Whether an id may stand in a log and in a head, whoever has said it.
fn is_sane(id: &[u8]) -> bool {
    let plain =
        |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'+' | b'/' | b'=');
    (1..=LONGEST).contains(&id.len()) && id.iter().all(plain)
}

/// The value of a field that stands on one line.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_by_its_version_and_zeros_are_refused() {
        let rows = [
            ("§3.2.2", GOOD.to_owned(), true),
            ("§3.2.2.1 version ff", GOOD.replacen("00", "ff", 1), false),
            ("§4 a later version", GOOD.replacen("00", "01", 1), true),
            ("§4 a later version with more", format!("{}-what", GOOD.replacen("00", "cc", 1)), true),
            (
                "§4 a later version with more, undivided",
                format!("{}what", GOOD.replacen("00", "cc", 1)),
                false,
            ),
            ("§3.2.2.2 version 00 with more", format!("{GOOD}-00"), false),
            (
                "§3.2.2.3 trace-id of zeros",
                GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
                false,
            ),
            ("§3.2.2.4 parent-id of zeros", GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)), false),
            ("§3.2.2.3 upper case", GOOD.to_uppercase(), false),
            ("§3.2.2.3 short", GOOD.replace("4bf9", "4bf"), false),
            ("§3.2.2.3 a sign", GOOD.replace("4bf9", "+bf9"), false),
            ("nothing", String::new(), false),
        ];
        for (clause, text, good) in rows {
            assert_eq!(TraceParent::parse(text.as_bytes()).is_some(), good, "{clause}: {text}");
        }
        assert_eq!(TraceParent::parse(GOOD.as_bytes()).unwrap().to_string(), GOOD);
    }

    /// What the origin gets of these fields.
    fn sent(mode: Tracing, came: &[(&'static str, &'static str)]) -> (HeaderMap, u32) {
        let mut headers = HeaderMap::new();
        for (name, value) in came {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let mut draws = 0;
        let ids = Ids::of(&headers, mode, || {
            draws += 1;
            u128::from(draws) << 64 | 7
        });
        ids.apply(&mut headers);
        (headers, draws)
    }

    #[test]
    fn what_comes_is_taken_up_and_the_rest_made_only_where_that_is_asked_for() {
        let state = ("tracestate", "a=b");
        let (headers, draws) =
            sent(Tracing::Accept, &[("traceparent", GOOD), state, ("x-request-id", "r-1")]);
        assert_eq!(headers["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01");
        assert_eq!(
            (&headers["tracestate"], &headers["x-request-id"], draws),
            (&"a=b".parse().unwrap(), &"r-1".parse().unwrap(), 1)
        );
        for bad in ["00-0-0-00", ""] {
            let (headers, draws) =
                sent(Tracing::Accept, &[("traceparent", bad), state, ("x-request-id", "a b")]);
            assert!(headers.is_empty() && draws == 0, "{headers:?}");
            let (headers, _) =
                sent(Tracing::Make(Share::ALL), &[("traceparent", bad), state, ("x-request-id", "a b")]);
            assert!(TraceParent::parse(headers["traceparent"].as_bytes()).is_some());
            assert!(!headers.contains_key("tracestate"), "of no trace that is known");
            assert_eq!(headers["x-request-id"].len(), 32);
        }
        let (headers, _) = sent(Tracing::Accept, &[("traceparent", GOOD), ("traceparent", GOOD), state]);
        assert!(headers.is_empty(), "§3.2: one line, not two");
        let (headers, draws) = sent(Tracing::Accept, &[]);
        assert!(headers.is_empty() && draws == 0, "nothing is drawn where nothing is made");
    }

    #[test]
    fn a_share_of_the_traces_that_are_begun_is_sampled_and_what_comes_is_left_as_it_is() {
        let share = |some, of| Tracing::Make(Share::new(some, of));
        // The top of an id counts for nothing, and its end for all: half of the traces end above the middle.
        let (low, high) = (u128::MAX << 55, u128::MAX);
        for (mode, trace, flags) in [
            (share(1, 1), low, "03"),
            (share(1, 2), low | (1 << 55), "03"),
            (share(1, 2), high >> 1 << 56, "02"),
            (share(1, 1000), high, "03"),
            (share(1, 1000), high ^ (1 << 55), "02"),
            (share(0, 1), high, "02"),
            (share(1, 0), high, "03"),
        ] {
            let ids = Ids::of(&HeaderMap::new(), mode, || trace);
            assert!(ids.trace.unwrap().to_string().ends_with(flags), "{mode:?} {trace:x}");
            assert_eq!((ids.caller, ids.trace.unwrap().is_sampled()), (None, flags == "03"));
        }
        for flags in ["00", "01"] {
            let came = format!("{}-{flags}", GOOD.trim_end_matches("-01"));
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, HeaderValue::from_str(&came).unwrap());
            let ids = Ids::of(&headers, share(1, 2), || 1);
            assert_eq!(ids.trace.unwrap().is_sampled(), flags == "01");
            assert_eq!(ids.caller, Some(0x00f0_67aa_0ba9_02b7));
        }
    }

    #[test]
    fn an_id_is_short_and_of_harmless_bytes() {
        let long = "x".repeat(LONGEST + 1);
        for (id, sane) in
            [("0af7-B.1:2_+/=", true), ("", false), ("a b", false), ("a\"b", false), (&long, false)]
        {
            assert_eq!(is_sane(id.as_bytes()), sane, "{id}");
        }
    }

    #[test]
    fn of_a_trace_that_is_not_recorded_nothing_is_made() {
        let half = Share::new(1, 2);
        let (taken, left) = (u128::from(Share::OF - 1), 1_u128);
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            if !value.is_empty() {
                headers.insert(TRACEPARENT, HeaderValue::from_str(value).unwrap());
            }
            headers
        };
        for (came, mode, drawn, is_recorded) in [
            ("", Tracing::Off, taken, false),
            ("", Tracing::Accept, taken, false),
            ("", Tracing::Make(half), taken, true),
            ("", Tracing::Make(half), left, false),
            (GOOD, Tracing::Off, taken, false),
            (GOOD, Tracing::Accept, left, true),
            (GOOD, Tracing::Make(half), left, true),
            (&GOOD.replace("-01", "-00"), Tracing::Accept, taken, false),
            ("nonsense", Tracing::Accept, taken, false),
            ("nonsense", Tracing::Make(half), taken, true),
            ("nonsense", Tracing::Make(half), left, false),
        ] {
            let (headers, all) = (with(came), Ids::of(&with(came), mode, || drawn));
            let recorded = Ids::recorded(&headers, mode, || drawn);
            assert_eq!(recorded, is_recorded.then_some(all), "{came} {mode:?} {drawn}");
        }
    }
}
