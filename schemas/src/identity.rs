//! What identities look like: labels of sites and nodes, ids of streams and devices.

/// Whether a site or node name is one: 1 to 63 of `a-z 0-9 . _ -`.
pub fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    // "." and ".." would be directories of their own in the lake.
    (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.bytes().all(|b| b == b'.')
}

/// Whether a stream id is one: 32 lower-case hex digits.
pub fn is_stream_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The stream id made of 16 random bytes.
pub fn stream_id(random: [u8; 16]) -> String {
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A serial number or MAC address, unless it is a placeholder that many devices share: empty, all digits equal, a
/// running sequence, or the `AA:BB:CC` of documentation.
pub fn real_identifier(text: &str) -> Option<String> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_lowercase()).collect();
    let all_equal = digits.windows(2).all(|pair| pair[0] == pair[1]);
    let running = digits.len() >= 4 && digits.starts_with(b"0123") || digits.starts_with(b"1234");
    let example = digits.starts_with(b"aabbcc") || text.contains('<');
    (!digits.is_empty() && !all_equal && !running && !example).then(|| text.trim().to_owned())
}

/// NVML's `00000000:9B:00.0` and the kernel's `0000:9b:00` in one form, lower case with a four-digit domain.
pub fn pci_bus_id(text: &str) -> String {
    let lower = text.trim().to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() == 8 && domain.starts_with("0000") => format!("{}:{rest}", &domain[4..]),
        _ => lower,
    }
}

/// The partition of a node's frames: Java's default partitioner, murmur2 of the key, so that any client agrees.
pub fn partition_of(node: &str, partitions: i32) -> i32 {
    (murmur2(node.as_bytes()) & 0x7fff_ffff) as i32 % partitions.max(1)
}

/// Kafka's murmur2, 32 bits, seed 0x9747b28c.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_agree_with_the_java_client() {
        // Values of org.apache.kafka.common.utils.Utils.murmur2, from its own unit test.
        assert_eq!(murmur2(b"21") as i32, -973_932_308);
        assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
        assert_eq!(murmur2(b"a-little-bit-long-string") as i32, -985_981_536);
        assert_eq!(murmur2(b"a-little-bit-longer-string") as i32, -1_486_304_829);
        assert_eq!(murmur2(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8") as i32, -58_897_971);
        assert_eq!(murmur2(b"abc") as i32, 479_470_107);
    }

    #[test]
    fn placeholders_are_no_identity() {
        for placeholder in ["", "00000000", "AA:BB:CC:DD:EE:FF", "01234567890123456789012345678901", "<DELETED>"] {
            assert_eq!(real_identifier(placeholder), None, "{placeholder}");
        }
        assert_eq!(real_identifier("02010000cbd2fd6d").as_deref(), Some("02010000cbd2fd6d"));
    }

    #[test]
    fn pci_addresses_have_one_form() {
        assert_eq!(pci_bus_id("00000000:9B:00.0"), "0000:9b:00.0");
        assert_eq!(pci_bus_id("0000:9B:00"), "0000:9b:00");
        assert_eq!(pci_bus_id("00010000:9B:00.0"), "00010000:9b:00.0");
    }

    #[test]
    fn labels_are_safe_directory_names() {
        assert!(is_label("dc-1.rack_2"));
        for bad in ["", ".", "..", "a/b", "Über", "A", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
