//! Frames of HTTP/2, whole and damaged, in whatever pieces they come.

use larder::wire::Frames;

use super::dice::Dice;

/// A connection read at leisure: the number of the head that is on its way at its end.
fn plainly(bytes: &[u8]) -> Option<u64> {
    let (mut rest, mut begun, mut open) = (bytes.get(24..)?, 0, false);
    while rest.len() >= 4 {
        let kind = rest[3];
        if kind == 1 && !open {
            (begun, open) = (begun + 1, true);
        }
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let Some(next) = rest.get(9 + length..) else { break };
        if open && (kind == 1 || kind == 9) && rest[4] & 4 != 0 {
            open = false;
        }
        rest = next;
    }
    open.then_some(begun)
}

pub fn heads(dice: &mut Dice) {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for _ in 0..dice.below(8) {
        let length = *dice.pick(&[0_u8, 0, 1, 5, 9, 10, 40, 255]);
        let kind = *dice.pick(&[0_u8, 1, 1, 1, 9, 9, 9, 4, 6, 255]);
        bytes.extend([0, 0, length, kind, *dice.pick(&[0_u8, 1, 4, 5, 255]), 0, 0, 0, 1]);
        // What looks like another frame's beginning.
        bytes.extend((0..length).map(|at| [0, 0, 1, 1, 4][usize::from(at) % 5]));
    }
    bytes.truncate(bytes.len() - dice.below(20).min(bytes.len()));
    let mut frames = Frames::default();
    let came = bytes.clone();
    let mut rest = &mut bytes[..];
    let mut seen = 0;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at_mut((1 + dice.below(30)).min(rest.len()));
        frames.watch(piece);
        seen += piece.len();
        assert_eq!(frames.head(), plainly(&came[..seen]), "{:?}", &came[..seen]);
        rest = behind;
    }
}
