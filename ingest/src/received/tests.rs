//! Received sets: intervals against a plain set, the encoding there and back, closing and bounds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const AGE_MAX: Duration = Duration::from_secs(15 * DAY_SECONDS);
const TODAY: i64 = 20_000 * DAY;

fn frame(stream: u8, seq: i64) -> FrameId {
    FrameId { stream: [stream; 16], seq }
}

/// What a set makes of a frame, which it then records.
fn receive(set: &mut ReceivedSet, frame: FrameId, at_us: i64) -> Admission {
    let admission = set.judge(frame);
    match admission {
        Admission::New => set.add(frame, at_us, AGE_MAX),
        Admission::Duplicate => set.add_duplicate(frame, at_us, AGE_MAX),
        Admission::Closed { .. } | Admission::TooMany => set.add_letter(Some(frame), at_us, AGE_MAX),
    }
    admission
}

/// The set that is read back from what was written.
fn again(set: &mut ReceivedSet) -> ReceivedSet {
    let text = set.take_change("d".to_owned()).now;
    ReceivedSet::restore(Some(text)).unwrap()
}

proptest! {
    #[test]
    fn every_frame_is_new_once_whatever_its_order_and_however_often_the_set_is_restored(
        frames in prop::collection::vec((0_u8..3, 1_i64..40, 0_u8..20), 0..150)
    ) {
        let (mut set, mut seen) = (ReceivedSet::default(), BTreeSet::new());
        for (stream, seq, what) in frames {
            let is_new = set.judge(frame(stream, seq)) == Admission::New;
            prop_assert_eq!(is_new, !seen.contains(&(stream, seq)));
            if what == 0 {
                set.add_letter(Some(frame(stream, seq)), TODAY, AGE_MAX);
            } else {
                receive(&mut set, frame(stream, seq), TODAY);
                seen.insert((stream, seq));
            }
            if what < 4 {
                let restored = again(&mut set);
                prop_assert_eq!(&restored, &set);
                set = restored;
            }
        }
    }

    #[test]
    fn no_text_is_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode([&[1][..], &bytes].concat());
        if let Ok(mut set) = ReceivedSet::restore(Some(text.into())) {
            prop_assert_eq!(again(&mut set), set);
        }
    }
}

#[test]
fn duplicates_and_letters_are_counted_by_stream() {
    let mut set = ReceivedSet::default();
    for seq in [1, 2, 4, 2, 2] {
        receive(&mut set, frame(7, seq), TODAY);
    }
    set.add_letter(Some(frame(7, 3)), TODAY, AGE_MAX);
    set.add_letter(None, TODAY, AGE_MAX);
    let set = again(&mut set);
    let (id, stream) = set.streams().next().unwrap();
    assert_eq!(id, "07".repeat(16));
    assert_eq!((stream.received(), stream.letters()), (&[(1, 2), (4, 4)][..], &[(3, 3)][..]));
    assert_eq!((stream.duplicates(), stream.dead_letters(), set.unnamed_letters()), (2, 1, 1));
    assert_eq!(set.judge(frame(7, 3)), Admission::New, "a dead letter that is sent again may be good by then");
}

#[test]
fn a_change_begins_with_the_text_that_the_one_before_it_ended_with() {
    let mut set = ReceivedSet::default();
    receive(&mut set, frame(1, 1), TODAY);
    let first = set.take_change("d".to_owned());
    receive(&mut set, frame(1, 2), TODAY);
    let second = set.take_change("d".to_owned());
    assert_eq!((first.was, second.was), (None, Some(first.now.clone())));
    assert_ne!(first.now, second.now);
}

#[test]
fn a_stream_unseen_for_too_long_is_closed_and_what_may_be_a_replay_is_set_aside() {
    let mut set = ReceivedSet::default();
    for seq in [1, 2, 5] {
        receive(&mut set, frame(1, seq), TODAY);
    }
    receive(&mut set, frame(2, 1), TODAY + 15 * DAY);
    assert_eq!(set.judge(frame(1, 3)), Admission::New, "not yet");
    receive(&mut set, frame(2, 2), TODAY + 16 * DAY);
    let mut set = again(&mut set);
    for seq in [2, 3, 5] {
        assert_eq!(receive(&mut set, frame(1, seq), TODAY + 16 * DAY), Admission::Closed { closed_to: 5 });
    }
    assert_eq!(receive(&mut set, frame(1, 6), TODAY + 16 * DAY), Admission::New, "above the mark it goes on");
    assert_eq!(receive(&mut set, frame(1, 6), TODAY + 16 * DAY), Admission::Duplicate);
    assert_eq!(set.streams().next().unwrap().1.dead_letters(), 3);
    assert_eq!(set.intervals, 2);
}

#[test]
fn gaps_beyond_the_bound_close_the_lowest_of_their_stream() {
    let mut set = ReceivedSet::default();
    receive(&mut set, frame(1, 1), TODAY);
    for n in 1..=INTERVALS_MAX as i64 {
        receive(&mut set, frame(2, n * 2), TODAY);
    }
    assert_eq!(set.intervals, INTERVALS_MAX);
    assert_eq!(set.judge(frame(2, 1)), Admission::Closed { closed_to: 2 });
    assert_eq!(set.judge(frame(2, 3)), Admission::New);
    assert_eq!(set.judge(frame(1, 2)), Admission::New, "other streams are left alone");
    assert_eq!(again(&mut set), set);
}

#[test]
fn streams_beyond_the_bound_are_set_aside_and_not_remembered() {
    let mut set = ReceivedSet::default();
    for n in 0..STREAMS_MAX as u128 {
        set.add(FrameId { stream: n.to_be_bytes(), seq: 1 }, TODAY, AGE_MAX);
    }
    assert_eq!(receive(&mut set, frame(0xff, 1), TODAY), Admission::TooMany);
    assert_eq!((set.streams.len(), set.unnamed_letters()), (STREAMS_MAX, 1));
    assert_eq!(receive(&mut set, FrameId { stream: [0; 16], seq: 2 }, TODAY), Admission::New);
}

#[test]
fn a_damaged_text_is_told_from_a_newer_one() {
    let mut set = ReceivedSet::default();
    receive(&mut set, frame(1, 1), TODAY);
    let text = set.take_change("d".to_owned()).now;
    assert!(ReceivedSet::restore(Some(text[..text.len() - 4].into())).unwrap_err().contains("too early"));
    assert!(ReceivedSet::restore(Some("AgAAAA".into())).unwrap_err().contains("upgrade ingest"));
    assert!(ReceivedSet::restore(Some("{}".into())).unwrap_err().contains("base64"));
}

#[test]
fn a_stream_id_is_32_hex_digits() {
    assert_eq!(FrameId::new(&"0a".repeat(16), 3), Some(frame(0x0a, 3)));
    for (id, seq) in [("0a", 3), ("zz0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a", 3), (&*"0a".repeat(16), 0)] {
        assert_eq!(FrameId::new(id, seq), None);
    }
}

/// 10,000 nodes with a stream each, nothing missing: what a commit of all 16 partitions costs in the log. Prints what
/// docs/benchmarks.md says.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_take_less_than_300_kb_of_a_commit_and_are_read_back_from_the_lake() {
    const SEQS: i64 = 1_000_000;
    let mut sets: Vec<ReceivedSet> = vec![ReceivedSet::default(); 16];
    for node in 0..10_000_u128 {
        let stream = (node + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
        let set = &mut sets[node as usize % 16];
        set.add(FrameId { stream, seq: 1 }, TODAY, AGE_MAX);
        set.streams.get_mut(&stream).unwrap().received.clear();
        set.streams.get_mut(&stream).unwrap().received.push(1, SEQS);
    }
    let folder = tempfile::tempdir().unwrap();
    let lake = racklake_storage::Lake::open(&folder.path().display().to_string(), &BTreeMap::new()).unwrap();
    let mut table = lake.table(&racklake_schemas::tables::COVERAGE).unwrap();
    let log = folder.path().join("coverage/_delta_log");
    for version in 1..=5_i64 {
        let begin = std::time::Instant::now();
        let change = |(partition, set): (i32, &mut ReceivedSet)| racklake_storage::Span {
            app_id: format!("racklake.coverage/AAAAAAAAAAAAAAAAAAAAAA/{partition}"),
            began_at: Some(version - 1).filter(|began_at| *began_at > 0),
            next: version,
            domain: Some(set.take_change(domain_name("racklake.coverage", partition))),
        };
        let spans: Vec<_> = (0..).zip(&mut sets).map(change).collect();
        let encoded = begin.elapsed();
        table.commit(&[], &spans).unwrap();
        let took = begin.elapsed();
        let bytes = std::fs::metadata(log.join(format!("{version:020}.json"))).unwrap().len();
        let texts: usize = spans.iter().map(|span| span.domain.as_ref().unwrap().now.len()).sum();
        println!("commit {version}: {bytes} bytes, {texts} of them the sets; encoded in {encoded:?}, all {took:?}");
        assert!(bytes < 300_000, "{bytes} bytes");
    }
    let read = std::time::Instant::now();
    let again = lake.table(&racklake_schemas::tables::COVERAGE).unwrap();
    let of_lake = ReceivedSet::read(&again, &domain_name("racklake.coverage", 3)).unwrap();
    println!("read back in {:?}", read.elapsed());
    assert_eq!(of_lake, sets[3]);
    assert_eq!(of_lake.streams().next().unwrap().1.received(), [(1, SEQS)]);
}
