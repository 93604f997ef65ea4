//! What the scanner of a connection's bytes must keep to.

use larder::wire::{Fault, Requests};

use super::dice::Dice;

const WORDS: [&str; 42] = [
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "Host: a.test\r\n",
    "X: y\r\n",
    "Content-Length: ",
    "content-length:",
    "Transfer-Encoding: ",
    "transfer-encoding:\t",
    "chunked\r\n",
    "chunked, ",
    "gzip, ",
    "identity",
    "0\r\n",
    "3\r\n",
    "00003\r\n",
    "7fffffffffffffff\r\n",
    "8000000000000000\r\n",
    "5, 5\r\n",
    "+5\r\n",
    "abc",
    "abc\r\n",
    "3\r\nabc\r\n",
    "1;x=y\r\nz\r\n",
    "0\r\n\r\n",
    "0\r\nA: b\r\n\r\n",
    "\r\n\r\n",
    "\r\n",
    "\r\n",
    "\r",
    "\n",
    "\n\n",
    "\0",
    "#",
    " ",
    "\t",
    ":",
    ";",
    "\u{e9}",
    "HTTP/1.1",
    "Transfer_Encoding: chunked\r\n",
    "Connection: close\r\n",
];

/// Longest head that the scanner follows here.
const LIMIT: usize = 200;

/// However the bytes come, the scanner finds the same; what it lets pass grows, and ends at a fault.
pub fn requests(dice: &mut Dice) {
    let bytes = dice.text(&WORDS, 24);
    let mut whole = Requests::new(LIMIT);
    let good = whole.watch(&bytes);
    assert!(good <= bytes.len());
    assert!(good == bytes.len() || whole.fault() == Some(Fault::Chunks));
    let mut pieces = Requests::new(LIMIT);
    let (mut rest, mut passed, mut fine) = (bytes.as_slice(), 0, 0);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(1 + dice.below(rest.len().min(9)));
        if pieces.fault() != Some(Fault::Chunks) {
            passed += pieces.watch(piece);
        }
        assert!(pieces.fine() >= fine);
        (fine, rest) = (pieces.fine(), after);
    }
    // A head that is too long may be seen whole where it comes in one piece: hyper has its own limit.
    if whole.fault() == pieces.fault() || pieces.fault() != Some(Fault::Lost) {
        assert_eq!((whole.fine(), whole.fault()), (pieces.fine(), pieces.fault()), "{bytes:?}");
    }
    if whole.fault() == Some(Fault::Chunks) && pieces.fault() == Some(Fault::Chunks) {
        assert_eq!(good, passed, "{bytes:?}");
    }
}
