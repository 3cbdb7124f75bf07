//! Noise that is a function of its arguments, so that a simulated unit says the same in every run.

/// A number that differs for every name.
pub(crate) fn seed_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// A number that differs for every pair.
pub(crate) fn draw(seed: u64, n: u64) -> u64 {
    mix(seed ^ mix(n))
}

/// Noise from -1 to 1.
pub(crate) fn noise(seed: u64, n: u64) -> f64 {
    (draw(seed, n) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// The finalizer of splitmix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
