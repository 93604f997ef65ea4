//! How what is kept in the shared tier is written there: in the clear, or sealed with a secret.
//!
//! Knows the secrets and what is made of them; that a sealed value is bound to its place (the key that it is
//! kept under) as one in the clear is, and that without a secret nobody can read it, or write one that is
//! taken. Nonces are handed in: 24 bytes by chance, of which as many can be drawn as anybody likes
//! (XChaCha20-Poly1305). The first secret seals; the others are still read, so that it can be replaced
//! while the tier is in use. The last names the keys: names must be the same for all who share the tier.
//! Must not know: where secrets come from, or what a record holds.
//!
//! ```text
//! sealed    magic "LRDS" | version u16 = 1 | number of the secret, 4 bytes | nonce, 24 bytes
//!           | XChaCha20-Poly1305 of the record; also authenticated: the first 10 bytes and the place
//! mark      number "." in hex, 16 bytes of HMAC-SHA256 over the place, a 0 and the number
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Damaged;
use super::mark;

const MAGIC: &[u8; 4] = b"LRDS";
const VERSION: u16 = 1;
/// Magic, version, and the number of the secret.
const NAMED: usize = 4 + 2 + 4;
const NONCE: usize = 24;
const TAG: usize = 16;
/// Bytes that a sealed record has more than one in the clear.
pub const SEALED: usize = NAMED + NONCE + TAG;
/// The most secrets that are read at a time.
pub const MOST_SECRETS: usize = 4;

/// 24 bytes by chance, never used twice.
pub type Nonce = [u8; NONCE];

/// 32 bytes that nobody else knows. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// From 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// A key for one purpose. Whoever knows it learns nothing of the others, or of the secret.
    fn derive(&self, purpose: &str) -> [u8; 32] {
        hmac(&self.0, &[b"larder ", purpose.as_bytes()])
    }
}

/// How the shared tier is written and read.
#[derive(Clone, Debug, Default)]
pub struct Seal {
    keys: Option<Arc<Keys>>,
    namespace: Namespace,
}

/// What the names of all keys begin with.
#[derive(Clone, Debug)]
struct Namespace(Arc<str>);

impl Default for Namespace {
    fn default() -> Self {
        Self("larder".into())
    }
}

struct Keys {
    first: Key,
    others: Vec<Key>,
    names: [u8; 32],
}

struct Key {
    number: [u8; 4],
    records: XChaCha20Poly1305,
    marks: [u8; 32],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.others.len() + 1)
    }
}

impl Key {
    fn of(secret: &Secret) -> Self {
        let [a, b, c, d, ..] = secret.derive("number");
        Self {
            number: [a, b, c, d],
            records: XChaCha20Poly1305::new(&secret.derive("records").into()),
            marks: secret.derive("marks"),
        }
    }
}

impl Seal {
    /// With these secrets; none of them: in the clear.
    pub fn new(secrets: &[Secret]) -> Self {
        let (Some((first, others)), Some(last)) = (secrets.split_first(), secrets.last()) else {
            return Self::default();
        };
        let keys = Keys {
            first: Key::of(first),
            others: others.iter().map(Key::of).collect(),
            names: last.derive("names"),
        };
        Self { keys: Some(Arc::new(keys)), ..Self::default() }
    }

    /// The same for keys that begin with this.
    pub fn in_namespace(self, namespace: &str) -> Self {
        Self { namespace: Namespace(namespace.into()), ..self }
    }

    /// What the names of all keys begin with.
    pub fn namespace(&self) -> &str {
        &self.namespace.0
    }

    /// A hash as it stands in the name of a key. Under a secret nobody can tell what it is the hash of,
    /// also not by trying.
    pub fn name(&self, hash: u128) -> u128 {
        let Some(keys) = &self.keys else { return hash };
        let [name @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            hmac(&keys.names, &[&hash.to_le_bytes()]);
        u128::from_le_bytes(name)
    }

    /// Seals a record that is to be kept under `place`.
    /// `None` where no chance is to be had for a nonce.
    pub fn close(
        &self,
        record: Vec<u8>,
        place: &str,
        nonce: impl FnOnce() -> Option<Nonce>,
    ) -> Option<Vec<u8>> {
        let Some(keys) = &self.keys else { return Some(record) };
        let nonce = nonce()?;
        let mut out = Vec::with_capacity(record.len().saturating_add(SEALED));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&keys.first.number);
        let bound = [&out[..], place.as_bytes()].concat();
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&record);
        let content = out.get_mut(NAMED + NONCE..)?;
        let tag = keys
            .first
            .records
            .encrypt_inout_detached(&XNonce::from(nonce), &bound, content.into())
            // Only for what nobody holds: 256 GiB.
            .ok()?;
        out.extend_from_slice(&tag);
        Some(out)
    }

    /// The record of what was found under `place`. In the clear there may be anything, which is for
    /// the codec to say.
    pub fn open(&self, mut bytes: Vec<u8>, place: &str) -> Result<Bytes, Damaged> {
        let sealed = bytes.starts_with(MAGIC);
        let Some(keys) = &self.keys else {
            return if sealed { Err(Damaged::Sealed) } else { Ok(Bytes::from(bytes)) };
        };
        if !sealed {
            return Err(if bytes.is_empty() { Damaged::Empty } else { Damaged::Unsealed });
        }
        let (head, rest) = bytes.split_at_mut_checked(NAMED).ok_or(Damaged::TooShort)?;
        let (version, number) = head.split_at_checked(MAGIC.len() + 2).ok_or(Damaged::TooShort)?;
        if !version.ends_with(&VERSION.to_le_bytes()) {
            return Err(Damaged::Version);
        }
        let key = keys.all().find(|key| key.number == number).ok_or(Damaged::OtherSecret)?;
        let bound = [&*head, place.as_bytes()].concat();
        let (nonce, rest) = rest.split_first_chunk_mut::<NONCE>().ok_or(Damaged::TooShort)?;
        let (content, tag) = rest.split_last_chunk_mut::<TAG>().ok_or(Damaged::TooShort)?;
        let end = NAMED + NONCE + content.len();
        key.records
            .decrypt_inout_detached(&XNonce::from(*nonce), &bound, content.into(), &Tag::from(*tag))
            .map_err(|_| Damaged::Forged)?;
        Ok(Bytes::from(bytes).slice(NAMED + NONCE..end))
    }

    /// The text of a number that is kept under `place`.
    pub fn encode_mark(&self, number: u64, place: &str) -> String {
        match &self.keys {
            None => mark::encode(number, place),
            Some(keys) => mark::text(number, &hex(&keys.first.mark(number, place))),
        }
    }

    /// The number of what was found under `place`.
    pub fn decode_mark(&self, bytes: &[u8], place: &str) -> Result<u64, Damaged> {
        let (number, checksum) = mark::split(bytes)?;
        match (&self.keys, checksum.len()) {
            (None, mark::CHECKSUM) => mark::decode(bytes, place),
            (None, MARK) => Err(Damaged::Sealed),
            (Some(_), mark::CHECKSUM) => Err(Damaged::Unsealed),
            (Some(keys), MARK) => {
                let is_of =
                    |key: &Key| is_same(hex(&key.mark(number, place)).as_bytes(), checksum.as_bytes());
                if keys.all().any(is_of) { Ok(number) } else { Err(Damaged::Forged) }
            }
            _ => Err(Damaged::Foreign),
        }
    }
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Key {
    fn mark(&self, number: u64, place: &str) -> [u8; TAG] {
        let whole = hmac(&self.marks, &[place.as_bytes(), &[0], &number.to_le_bytes()]);
        let [mark @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = whole;
        mark
    }
}

/// Hex digits of a mark's authentication.
const MARK: usize = 2 * TAG;

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // RFC 2104 §2: a key is followed by zeros up to the length of a block.
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(block, key)| *block = *key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that so many pairs of hex digits stand for.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    // `from_str_radix` takes a sign.
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// In a time that does not tell how much of it is the same.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differ = one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: &str = "larder:3:{0}:-";

    fn secret(byte: u8) -> Secret {
        Secret([byte; 32])
    }

    fn closed(seal: &Seal, record: &[u8], place: &str) -> Vec<u8> {
        seal.close(record.to_vec(), place, || Some([7; NONCE])).unwrap()
    }

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/sealed-v1.bin");

    /// Never changed.
    #[test]
    fn version_1_is_written_and_read_as_ever() {
        let seal = Seal::new(&[secret(1)]);
        assert_eq!(closed(&seal, b"a record", PLACE), GOLDEN);
        assert_eq!(seal.open(GOLDEN.to_vec(), PLACE).unwrap(), &b"a record"[..]);
        assert_eq!(seal.encode_mark(42, PLACE), GOLDEN_MARK);
        assert_eq!(seal.decode_mark(GOLDEN_MARK.as_bytes(), PLACE), Ok(42));
        assert_eq!(format!("{:032x}", seal.name(42)), GOLDEN_NAME);
    }

    const GOLDEN_MARK: &str = "42.afc7472a7be0532f5be74c4f33ced5a0";
    const GOLDEN_NAME: &str = "49397878eefb68dfdfe14a0dbbd8b09b";

    #[test]
    fn a_secret_is_64_hex_digits_and_never_shown() {
        assert!(Secret::from_hex(&"0aF9".repeat(16)).is_some());
        for text in
            ["", "00", &"0".repeat(63), &"0".repeat(65), &"+0".repeat(32), &"0g".repeat(32), &"é".repeat(32)]
        {
            assert!(Secret::from_hex(text).is_none(), "{text}");
        }
        let shown = format!("{:?} {:?}", secret(0xab), Seal::new(&[secret(0xab)]));
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }

    #[test]
    fn without_a_secret_it_is_in_the_clear() {
        let none = Seal::new(&[]);
        assert_eq!(closed(&none, b"a record", PLACE), b"a record");
        assert_eq!(none.open(b"a record".to_vec(), PLACE).unwrap(), &b"a record"[..]);
        assert_eq!((none.name(7), none.encode_mark(7, "a")), (7, mark::encode(7, "a")));
        assert_eq!(none.decode_mark(mark::encode(7, "a").as_bytes(), "a"), Ok(7));
        let seal = Seal::new(&[secret(1)]);
        assert_eq!(none.open(closed(&seal, b"a record", PLACE), PLACE), Err(Damaged::Sealed));
        assert_eq!(seal.open(b"a record".to_vec(), PLACE), Err(Damaged::Unsealed));
        assert_eq!(none.decode_mark(seal.encode_mark(7, "a").as_bytes(), "a"), Err(Damaged::Sealed));
        assert_eq!(seal.decode_mark(mark::encode(7, "a").as_bytes(), "a"), Err(Damaged::Unsealed));
    }

    #[test]
    fn nothing_of_a_record_is_to_be_seen_or_changed_or_moved() {
        let seal = Seal::new(&[secret(1)]);
        let sealed = closed(&seal, b"a record that nobody may read", PLACE);
        assert_eq!(sealed.len(), 29 + SEALED);
        assert!(
            !sealed.windows(4).any(|part| b"a record that nobody may read".windows(4).any(|w| w == part))
        );
        for at in 0..sealed.len() {
            for flip in [1, 0x80] {
                let mut changed = sealed.clone();
                changed[at] ^= flip;
                assert!(seal.open(changed, PLACE).is_err(), "byte {at}");
            }
            assert!(seal.open(sealed[..at].to_vec(), PLACE).is_err(), "cut at {at}");
        }
        assert_eq!(seal.open([&sealed[..], b"x"].concat(), PLACE), Err(Damaged::Forged));
        assert_eq!(seal.open(sealed.clone(), "elsewhere"), Err(Damaged::Forged));
        assert_eq!(Seal::new(&[secret(2)]).open(sealed, PLACE), Err(Damaged::OtherSecret));
        let mark = seal.encode_mark(7, "a");
        for (text, place) in
            [(&mark, "b"), (&mark.replace("7.", "8."), "a"), (&mark.replace("7.", "07."), "a")]
        {
            assert!(seal.decode_mark(text.as_bytes(), place).is_err(), "{text} at {place}");
        }
        assert_eq!(Seal::new(&[secret(2)]).decode_mark(mark.as_bytes(), "a"), Err(Damaged::Forged));
    }

    #[test]
    fn a_new_secret_can_be_taken_while_the_old_one_is_read() {
        let (old, new) = (secret(1), secret(2));
        let before = Seal::new(std::slice::from_ref(&old));
        let both = Seal::new(&[new.clone(), old]);
        let sealed = closed(&before, b"a record", PLACE);
        assert_eq!(both.open(sealed, PLACE).unwrap(), &b"a record"[..]);
        assert_eq!(both.decode_mark(before.encode_mark(7, "a").as_bytes(), "a"), Ok(7));
        assert_eq!(both.name(7), before.name(7), "all who share the tier find the same keys");
        assert_eq!(before.open(closed(&both, b"a record", PLACE), PLACE), Err(Damaged::OtherSecret));
        let after = Seal::new(&[new]);
        assert_eq!(after.open(closed(&both, b"a record", PLACE), PLACE).unwrap(), &b"a record"[..]);
        assert_ne!(after.name(7), before.name(7));
    }

    #[test]
    fn no_chance_no_record() {
        assert_eq!(Seal::new(&[secret(1)]).close(Vec::new(), PLACE, || None), None);
        assert_eq!(Seal::default().close(Vec::new(), PLACE, || None), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_record_comes_back_and_any_bytes_are_judged(
            record: Vec<u8>, bytes: Vec<u8>, nonce: Nonce, number: u64,
        ) {
            let seal = Seal::new(&[secret(1), secret(2)]);
            let sealed = seal.close(record.clone(), PLACE, || Some(nonce)).unwrap();
            prop_assert_eq!(seal.open(sealed, PLACE).unwrap(), record);
            prop_assert!(seal.open(bytes.clone(), PLACE).is_err());
            prop_assert!(seal.open([&MAGIC[..], &bytes].concat(), PLACE).is_err());
            prop_assert_eq!(seal.decode_mark(seal.encode_mark(number, PLACE).as_bytes(), PLACE), Ok(number));
            prop_assert!(seal.decode_mark(&bytes, PLACE).is_err());
        }
    }
}
