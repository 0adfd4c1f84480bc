//! What a client sends, in pieces: whatever is accepted, hyper's server takes for the same requests, as they came and
//! as they are passed on.

#![no_main]

use libfuzzer_sys::fuzz_target;

use vouchsafe_fuzz::http1::{LONGEST_INPUT, Side, check, is_odd, record};

fuzz_target!(|input: &[u8]| {
    let Some((cut, input)) = input.split_first() else { return };
    let input = &input[..input.len().min(LONGEST_INPUT)];
    if is_odd(input) {
        return;
    }
    record(Side::Requests, input, &check(Side::Requests, *cut, input));
});
