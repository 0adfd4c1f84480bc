//! What an upstream answers, in pieces: whatever is accepted, hyper's client takes for the same response, as it came
//! and as it is passed on. The first byte says whether the request was HEAD, and the size of the pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

use vouchsafe_fuzz::http1::{LONGEST_INPUT, Side, check, record};

fuzz_target!(|input: &[u8]| {
    let Some((first, input)) = input.split_first() else { return };
    let side = Side::Responses { to_head: first & 0x80 != 0 };
    let input = &input[..input.len().min(LONGEST_INPUT)];
    record(side, input, &check(side, first & 0x7f, input));
});
