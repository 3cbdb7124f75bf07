//! Data files: where they lie, what they hold and in which order and encoding.

use std::fs::File;

use arrow::array::{Array as _, AsArray as _, Int8Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use parquet::basic::{Compression, Encoding as Stored};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use racklake_schemas::catalog::table;
use racklake_schemas::{Encoding, tables};
use racklake_storage::Outcome;

use crate::support::{Reading, SECOND, TEN_O_CLOCK, TestLake, batch, reading, span};

#[tokio::test(flavor = "multi_thread")]
async fn every_column_of_every_table_comes_back_as_it_went_in() {
    let test = TestLake::new();
    for table in tables::ALL.iter().filter(|table| !table.bench) {
        let rows = batch(table.name, &[reading("d1", 0), reading("d1", 1), reading("d2", 0)]);
        let mut opened = test.table(table.name);
        let files = opened.write(std::slice::from_ref(&rows), &[]).unwrap();
        assert!(matches!(opened.commit(&files, &[span("t/0", None, 3)]).unwrap(), Outcome::Committed { version: 1 }));
        let read = test.read(table.name, &files[0]);
        let in_file: Vec<_> = table.columns.iter().filter(|column| column.name != "site").collect();
        assert_eq!(read.num_columns(), in_file.len(), "{}", table.name);
        for (index, column) in in_file.into_iter().enumerate() {
            assert_eq!(read.schema().field(index).name(), column.name, "{}", table.name);
            let written = rows.column_by_name(column.name).unwrap();
            assert_eq!(read.column(index), written, "{}.{}", table.name, column.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_flush_are_sorted_by_device_and_time_whatever_batch_they_came_in() {
    let test = TestLake::new();
    let first = batch("gpu_sample", &[reading("d2", 3), reading("d1", 9), reading("d2", 1)]);
    let second = batch("gpu_sample", &[reading("d1", 2), reading("d3", 0), reading("d2", 2)]);
    let files = test.table("gpu_sample").write(&[first.clone(), second.clone()], &[]).unwrap();
    let read = test.read("gpu_sample", &files[0]);
    let devices: Vec<_> = read.column_by_name("device_id").unwrap().as_string::<i32>().iter().flatten().collect();
    let times = read.column_by_name("ts").unwrap().as_primitive::<TimestampMicrosecondType>();
    let seconds: Vec<i64> = times.values().iter().map(|ts| (ts - TEN_O_CLOCK) / SECOND).collect();
    assert_eq!(devices, ["d1", "d1", "d2", "d2", "d2", "d3"]);
    assert_eq!(seconds, [2, 9, 1, 2, 3, 0]);
    // Each row has moved as a whole.
    let all = concat_batches(&first.schema(), [&first, &second]).unwrap();
    let column = |batch: &arrow::array::RecordBatch, name: &str| {
        batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().values().to_vec()
    };
    let pairs = |batch| column(batch, "seq").into_iter().zip(column(batch, "session_id")).collect::<Vec<_>>();
    let (mut written, mut read) = (pairs(&all), pairs(&read));
    written.sort_unstable();
    read.sort_unstable();
    assert_eq!(read, written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_makes_one_file_per_site_and_date_below_hot() {
    let test = TestLake::new();
    let day = 24 * 3600 * SECOND;
    let at = |site, ts, received_at| Reading(site, "d1", ts, received_at, 1);
    let rows = [
        at("b", TEN_O_CLOCK, TEN_O_CLOCK),
        at("a", TEN_O_CLOCK, TEN_O_CLOCK),
        at("a", TEN_O_CLOCK - day, TEN_O_CLOCK), // exactly a day apart: believed
        at("a", TEN_O_CLOCK - day - 1, TEN_O_CLOCK), // more: its date is that of the arrival
        at("a", i64::MIN, TEN_O_CLOCK),
    ];
    let mut table = test.table("gpu_sample");
    let files = table.write(&[batch("gpu_sample", &rows)], &[]).unwrap();
    let seen: Vec<_> = files.iter().map(|file| (file.path().rsplit_once('/').unwrap().0, file.rows())).collect();
    let expected =
        [("_hot/site=a/dt=2026-11-23", 1), ("_hot/site=a/dt=2026-11-24", 3), ("_hot/site=b/dt=2026-11-24", 1)];
    assert_eq!(seen, expected);
    for file in &files {
        let on_disk = std::fs::metadata(test.path("gpu_sample").join(file.path())).unwrap();
        assert_eq!(on_disk.len(), file.bytes(), "{}", file.path());
    }
    table.commit(&files, &[span("t/0", None, 5)]).unwrap();
    let adds = test.adds("gpu_sample");
    let logged: Vec<_> = adds.iter().map(|add| add["path"].as_str().unwrap()).collect();
    assert_eq!(logged, files.iter().map(|file| file.path()).collect::<Vec<_>>());
    assert_eq!(adds[1]["partitionValues"], serde_json::json!({"site": "a", "dt": "2026-11-24"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_rows_go_to_the_date_of_their_reading_however_old_and_others_of_that_age_to_that_of_their_arrival() {
    let test = TestLake::new();
    let day = 24 * 3600 * SECOND;
    let rows = |seq| {
        let at = |ts, seq| Reading("a", "d1", ts, TEN_O_CLOCK, seq);
        batch("gpu_sample", &[at(TEN_O_CLOCK - 3 * day, seq), at(TEN_O_CLOCK, seq + 1)])
    };
    // These have no time that has a date: they can only go to that of their arrival.
    let none = [i64::MIN, i64::MAX].map(|ts| Reading("a", "d2", ts, TEN_O_CLOCK, 9));
    let table = test.table("gpu_sample");
    let files = table.write(&[rows(1)], &[rows(3), batch("gpu_sample", &none)]).unwrap();
    let seen: Vec<_> = files
        .iter()
        .map(|file| {
            let read = test.read("gpu_sample", file);
            let seqs = read.column_by_name("seq").unwrap().as_primitive::<Int64Type>();
            let mut seqs = seqs.values().to_vec();
            seqs.sort_unstable();
            (file.path().rsplit_once('/').unwrap().0.to_owned(), seqs)
        })
        .collect();
    let dated = |date: &str, seqs: &[i64]| (format!("_hot/site=a/dt={date}"), seqs.to_vec());
    assert_eq!(seen, [dated("2026-11-21", &[3]), dated("2026-11-24", &[1, 2, 4, 9, 9])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_with_awkward_letters_is_found_where_the_log_says() {
    let test = TestLake::new();
    let mut table = test.table("gpu_sample");
    let rows = [Reading("be ta/ü%", "d1", TEN_O_CLOCK, TEN_O_CLOCK, 1)];
    let files = table.write(&[batch("gpu_sample", &rows)], &[]).unwrap();
    table.commit(&files, &[span("t/0", None, 1)]).unwrap();
    // Below _hot the directory is Hive-escaped; the log names it percent-encoded on top.
    assert!(test.path("gpu_sample/_hot/site=be ta%2Fü%25").is_dir());
    let add = &test.adds("gpu_sample")[0];
    assert!(add["path"].as_str().unwrap().starts_with("_hot/site=be%20ta%252F%C3%BC%2525/dt="), "{add}");
    assert_eq!(add["partitionValues"]["site"], "be ta/ü%");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statistics_of_a_file_are_in_its_add_action() {
    let test = TestLake::new();
    let mut table = test.table("gpu_sample");
    let files = table.write(&[batch("gpu_sample", &[reading("d1", 0), reading("d2", 7)])], &[]).unwrap();
    table.commit(&files, &[span("t/0", None, 1)]).unwrap();
    let add = &test.adds("gpu_sample")[0];
    let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!(stats["numRecords"], 2);
    assert_eq!(stats["minValues"]["device_id"], "d1");
    assert_eq!(stats["maxValues"]["device_id"], "d2");
    assert_eq!(stats["maxValues"]["seq"], 8);
    assert_eq!(stats["maxValues"]["ts"], "2026-11-24T10:00:07.000Z");
    assert_eq!(add["size"].as_u64().unwrap(), files[0].bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn encodings_compression_and_order_in_the_file_are_the_catalogs() {
    let test = TestLake::new();
    for table in tables::ALL.iter().filter(|table| !table.bench) {
        let rows: Vec<Reading> = (0..200).map(|second| reading("d1", second)).collect();
        let files = test.table(table.name).write(&[batch(table.name, &rows)], &[]).unwrap();
        let file = File::open(test.path(table.name).join(files[0].path())).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let group = reader.metadata().row_group(0);
        for (stored, column) in group.columns().iter().zip(table.columns.iter().filter(|c| c.name != "site")) {
            let name = stored.column_path().string();
            let encodings: Vec<Stored> = stored.encodings().collect();
            let wanted = match column.encoding() {
                Encoding::DeltaBinaryPacked => Stored::DELTA_BINARY_PACKED,
                Encoding::ByteStreamSplit => Stored::BYTE_STREAM_SPLIT,
                Encoding::Dictionary => Stored::RLE_DICTIONARY,
            };
            assert!(encodings.contains(&wanted), "{}.{name}: {encodings:?}", table.name);
            let has_dictionary = stored.dictionary_page_offset().is_some();
            assert_eq!(has_dictionary, wanted == Stored::RLE_DICTIONARY, "{}.{name}", table.name);
            assert!(matches!(stored.compression(), Compression::ZSTD(_)), "{}.{name}", table.name);
            assert!(stored.column_index_offset().is_some() && stored.offset_index_offset().is_some(), "{name}");
        }
        let sorted_by: Vec<String> = group
            .sorting_columns()
            .unwrap()
            .iter()
            .map(|key| group.column(key.column_idx as usize).column_path().string())
            .collect();
        let wanted: Vec<&str> = table.sort_key.iter().map(|index| table.columns[*index].name).collect();
        assert_eq!(sorted_by, wanted, "{}", table.name);
        assert!(reader.metadata().file_metadata().created_by().unwrap().starts_with("racklake version "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eight_bit_column_stays_one() {
    let test = TestLake::new();
    let files = test.table("gpu_sample").write(&[batch("gpu_sample", &[reading("d1", 0)])], &[]).unwrap();
    let read = test.read("gpu_sample", &files[0]);
    let status = read.column_by_name("row_status").unwrap();
    assert!(status.as_any().is::<Int8Array>(), "{:?}", status.data_type());
    let declared = &test.log("gpu_sample").iter().find_map(|action| action.get("metaData").cloned()).unwrap();
    let schema: serde_json::Value = serde_json::from_str(declared["schemaString"].as_str().unwrap()).unwrap();
    let field = schema["fields"].as_array().unwrap().iter().find(|field| field["name"] == "row_status").unwrap();
    assert_eq!(field["type"], "byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_table_are_refused() {
    let test = TestLake::new();
    let rows = batch("miner_sample", &[reading("d1", 0)]);
    let error = test.table("gpu_sample").write(&[rows], &[]).unwrap_err().to_string();
    assert!(error.contains("the rows are not those of the catalog"), "{error}");
    assert!(table("gpu_sample").is_some() && !test.path("gpu_sample/_hot").exists());
}
