//! Opening a lake: what is made, what is accepted and what is refused.

use std::collections::BTreeMap;

use racklake_schemas::dictionary;
use racklake_storage::{Lake, Outcome, StorageError};
use serde_json::{Value, json};

use crate::support::{TestLake, batch, read, reading, span};

/// Appends a commit whose metadata is that of the table, changed.
fn change_metadata(test: &TestLake, table: &str, change: impl Fn(&mut Value)) {
    let mut metadata = test.log(table).into_iter().find_map(|action| action.get("metaData").cloned()).unwrap();
    change(&mut metadata);
    let log = test.path(table).join("_delta_log");
    std::fs::write(log.join("00000000000000000001.json"), format!("{}\n", json!({"metaData": metadata}))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_partitioned_and_may_carry_domain_metadata() {
    let test = TestLake::new();
    assert_eq!(test.table("gpu_sample").version(), 0);
    let log = test.log("gpu_sample");
    let action = |name: &str| log.iter().find_map(|action| action.get(name).cloned()).unwrap();
    assert_eq!(action("metaData")["partitionColumns"], json!(["site", "dt"]));
    assert_eq!(action("metaData")["configuration"]["delta.checkpointInterval"], "100");
    assert_eq!(action("protocol")["writerFeatures"], json!(["domainMetadata"]));
    assert_eq!(action("protocol")["readerFeatures"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_create_a_table_at_once_get_the_same_one() {
    let test = TestLake::new();
    let creators: Vec<_> = (0..4)
        .map(|_| {
            let lake = test.lake.clone();
            let table = racklake_schemas::catalog::table("event").unwrap();
            tokio::task::spawn_blocking(move || lake.table(table).map(|table| table.version()))
        })
        .collect();
    for creator in creators {
        assert_eq!(creator.await.unwrap().unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_would_drop_positions_is_refused() {
    let test = TestLake::new();
    let mut open = test.table("gpu_sample");
    change_metadata(&test, "gpu_sample", |metadata| {
        metadata["configuration"]["delta.setTransactionRetentionDuration"] = json!("interval 7 days");
    });
    let table = racklake_schemas::catalog::table("gpu_sample").unwrap();
    for error in [test.lake.table(table).unwrap_err(), open.refresh().unwrap_err()] {
        assert!(matches!(error, StorageError::Stop { .. }), "{error}");
        assert!(error.to_string().contains("UNSET TBLPROPERTIES"), "{error}");
    }
    let rows = batch("gpu_sample", &[reading("d1", 0)]);
    let files = open.write(&[rows], &[]).unwrap();
    assert!(open.commit(&files, &[span("t/0", None, 1)]).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_the_catalog_has_gained_are_added() {
    let test = TestLake::new();
    test.table("gpu_sample");
    let without = |metadata: &mut Value, gone: &str| {
        let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
        schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != gone);
        metadata["schemaString"] = json!(schema.to_string());
    };
    change_metadata(&test, "gpu_sample", |metadata| without(metadata, "power_milliwatts"));
    let mut table = test.table("gpu_sample");
    assert_eq!(table.version(), 2);
    let files = table.write(&[batch("gpu_sample", &[reading("d1", 0)])], &[]).unwrap();
    assert_eq!(table.commit(&files, &[span("t/0", None, 1)]).unwrap(), Outcome::Committed { version: 3 });
    let newest = test.log("gpu_sample").into_iter().filter_map(|action| action.get("metaData").cloned()).next_back();
    assert!(newest.unwrap()["schemaString"].as_str().unwrap().contains("power_milliwatts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_another_type_is_refused_by_name() {
    let test = TestLake::new();
    test.table("gpu_sample");
    change_metadata(&test, "gpu_sample", |metadata| {
        let schema = metadata["schemaString"].as_str().unwrap();
        metadata["schemaString"] =
            json!(schema.replace(
                r#""name":"power_milliwatts","type":"integer""#,
                r#""name":"power_milliwatts","type":"string""#
            ));
    });
    let error = test.lake.table(racklake_schemas::catalog::table("gpu_sample").unwrap()).unwrap_err().to_string();
    assert!(error.contains("gpu_sample: column power_milliwatts is string in the table"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_told_from_a_missing_one() {
    let test = TestLake::new();
    test.table("gpu_sample");
    std::fs::write(test.path("gpu_sample/_delta_log/00000000000000000000.json"), "{\"metaData\": ").unwrap();
    let error = test.lake.table(racklake_schemas::catalog::table("gpu_sample").unwrap()).unwrap_err();
    assert!(matches!(error, StorageError::Stop { .. }), "{error}");
    assert!(error.to_string().contains("gpu_sample"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dictionary_is_written_once_and_again_when_it_differs() {
    let test = TestLake::new();
    assert!(test.lake.write_dictionary().unwrap());
    assert!(!test.lake.write_dictionary().unwrap(), "nothing has changed");
    let add = &test.adds("field_dictionary")[0];
    let file = test.path("field_dictionary").join(add["path"].as_str().unwrap());
    let catalog = dictionary::batch().unwrap();
    assert_eq!(read(&file).columns(), catalog.columns());

    // Another version of racklake has described fewer columns.
    let shorter = catalog.slice(0, catalog.num_rows() - 1);
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&file).unwrap(), shorter.schema(), None).unwrap();
    writer.write(&shorter).unwrap();
    writer.close().unwrap();
    let log = test.path("field_dictionary/_delta_log/00000000000000000001.json");
    let size = std::fs::metadata(&file).unwrap().len();
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replace(&format!("\"size\":{}", add["size"]), &format!("\"size\":{size}"))).unwrap();
    assert!(test.lake.write_dictionary().unwrap());
    let last: Vec<Value> = test.log("field_dictionary");
    assert_eq!(last.iter().filter(|action| action.get("remove").is_some()).count(), 1);
    assert!(!test.lake.write_dictionary().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_scheme_and_an_option_of_a_local_lake_are_refused() {
    let none = BTreeMap::new();
    let error = Lake::open("ftp://host/lake", &none).unwrap_err().to_string();
    assert!(error.contains("s3://"), "{error}");
    let options = BTreeMap::from([("region".to_owned(), "x".to_owned())]);
    let error = Lake::open("/tmp/lake", &options).unwrap_err().to_string();
    assert!(error.contains("unknown option region"), "{error}");
}

#[test]
fn without_a_runtime_a_lake_is_refused() {
    let error = Lake::open("/tmp/lake", &BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("multi-thread tokio runtime"), "{error}");
}
