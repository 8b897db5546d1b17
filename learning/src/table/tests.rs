//! Tables against examples that were encoded by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use ::parquet::schema::parser::parse_message_type;
use ndarray::{Array2, arr1, arr2};
use serde_json::json;

use super::*;
use crate::{Classes, Dataset, Loss, Target};

fn declared(kind: Kind, missing: Option<Filling>, indicator: bool) -> Declared {
    Declared { kind, missing, indicator }
}

fn colours(other: bool) -> Kind {
    Kind::Category { categories: vec!["red".into(), "green".into()], other }
}

/// Ages, of which some are missing, and colours; whether somebody is sick; by ward.
fn layout(format: Format) -> Layout {
    let age = declared(Kind::Number, Some(Filling::Value(40.0)), true);
    Layout {
        format,
        answer: Answer::Class { column: "sick".into(), classes: Classes::of_labels(["no", "yes"]) },
        client: Some("ward".into()),
        features: Some(["age", "colour", "heat"].map(str::to_owned).to_vec()),
        declared: [("age".into(), age), ("colour".into(), declared(colours(true), None, false))].into(),
    }
}

fn written(text: &str, layout: &Layout) -> Result<Table, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patients");
    std::fs::write(&path, text).unwrap();
    let read = read(&path, layout);
    let name = format!("{}/", directory.path().display());
    read.map_err(|error| error.to_string().replace(&name, ""))
}

fn complaint(text: &str, layout: &Layout) -> String {
    written(text, layout).unwrap_err()
}

/// age, age missing, red, green, other, heat.
fn expected() -> Array2<f32> {
    arr2(&[
        [61.0, 0.0, 1.0, 0.0, 0.0, 38.5],
        [40.0, 1.0, 0.0, 0.0, 1.0, -10.0],
        [7.0, 0.0, 0.0, 1.0, 0.0, 37.0],
    ])
}

fn is_expected(table: &Table) {
    assert_eq!(table.dataset.features(), expected());
    assert_eq!(table.dataset.labels(), arr1(&[1, 0, 1]));
    let owners = table.dataset.owners().unwrap();
    assert_eq!(
        (owners.names(), owners.of_rows()),
        (&["north".to_owned(), "7".to_owned()][..], &[0, 1, 0][..])
    );
    let names = ["age", "age missing", "colour=red", "colour=green", "colour other", "heat"];
    assert_eq!(table.encoder.names(), names);
    assert!(!table.encoder.is_plain() && table.encoder.width() == 6);
}

const CSV: &str = "ward,heat,sick,colour,age,note\n\
    north, 38.5,yes,red,61,fine\n\
    7,-1e1,no,\"deep, dark blue\",,\n\
    north,37,yes,green,7,\n";

#[test]
fn tables_become_the_same_numbers_whatever_they_are_written_as() {
    is_expected(&written(CSV, &layout(Format::Csv)).unwrap());
    let tabs = CSV.replace("\"deep, dark blue\"", "\"deep").replace(',', "\t");
    is_expected(&written(&tabs, &layout(Format::Tsv)).unwrap());
    let objects = [
        json!({ "age": 61, "colour": "red", "heat": 38.5, "sick": "yes", "ward": "north", "note": [1] }),
        json!({ "colour": true, "heat": -10, "sick": "no", "ward": 7, "age": null }),
        json!({ "age": "7", "colour": "green", "heat": 37, "sick": "yes", "ward": "north" }),
    ];
    let lines: String = objects.iter().map(|object| format!("{object}\n\n")).collect();
    is_expected(&written(&lines, &layout(Format::Jsonl)).unwrap());
}

/// A Parquet file in two row groups: ages and colours may be missing.
fn parquet_file(path: &Path) {
    let schema = "message schema {
        optional double age; optional binary colour (UTF8); required float heat;
        required binary sick (UTF8); required int64 ward; required binary note (UTF8);
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let rows = [
        (Some(61.0), Some("red"), 38.5, "yes", 1),
        (None, Some("deep blue"), -10.0, "no", 7),
        (Some(7.0), Some("green"), 37.0, "yes", 1),
    ];
    for rows in rows.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let ages: Vec<f64> = rows.iter().filter_map(|row| row.0).collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.0.is_some())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&ages, Some(&levels), None).unwrap();
        column.close().unwrap();
        let colours: Vec<ByteArray> = rows.iter().filter_map(|row| row.1.map(ByteArray::from)).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&colours, Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        let heats: Vec<f32> = rows.iter().map(|row| row.2).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<FloatType>().write_batch(&heats, None, None).unwrap();
        column.close().unwrap();
        let sick: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(row.3)).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&sick, None, None).unwrap();
        column.close().unwrap();
        let wards: Vec<i64> = rows.iter().map(|row| row.4).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&wards, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&sick, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_is_read_column_by_column() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("patients.parquet");
    parquet_file(&path);
    let wards = layout(Format::Parquet);
    let table = read(&path, &wards).unwrap();
    assert_eq!(table.dataset.features(), expected());
    assert_eq!(table.dataset.labels(), arr1(&[1, 0, 1]));
    let owners = table.dataset.owners().unwrap();
    assert_eq!((owners.names(), owners.of_rows()), (&["1".to_owned(), "7".to_owned()][..], &[0, 1, 0][..]));
    let mut strict = wards.clone();
    strict.declared.remove("age");
    let told = read(&path, &strict).unwrap_err().to_string();
    assert!(told.contains("row 1 (in row group 0), column `age`: the value is missing"), "{told}");
    strict.declared.insert("age".into(), wards.declared["age"].clone());
    strict.declared.insert("colour".into(), declared(colours(false), None, false));
    let told = read(&path, &strict).unwrap_err().to_string();
    assert!(
        told.contains("row 1 (in row group 0), column `colour`: `deep blue` is not a category"),
        "{told}"
    );
    let all = Layout { features: None, ..wards };
    let told = read(&path, &all).unwrap_err().to_string();
    assert!(told.contains("column `note`: `yes` is not a finite number"), "{told}");
}

#[test]
fn all_other_columns_are_features_unless_they_are_named() {
    let all = Layout { features: None, declared: BTreeMap::new(), ..layout(Format::Csv) };
    let table = written("age,ward,sick,heat\n61, north,yes,38.5\n7,south,no, -1e1\n", &all).unwrap();
    assert_eq!(table.encoder.names(), ["age", "heat"]);
    assert!(table.encoder.is_plain());
    assert_eq!(table.dataset.features(), arr2(&[[61.0, 38.5], [7.0, -10.0]]));
    let named = Layout { features: Some(vec!["heat".into(), "age".into()]), ..all.clone() };
    let table = written("age,ward,sick,heat,note\n61,north,yes,38.5,fine\n", &named).unwrap();
    assert_eq!(table.dataset.features(), arr2(&[[38.5, 61.0]]));
    let nameless = Layout { format: Format::Jsonl, ..all };
    assert!(complaint("{}", &nameless).contains("name those that hold features"));
    let declared = Layout { features: Some(vec!["heat".into()]), ..layout(Format::Csv) };
    let told = complaint(CSV, &declared);
    assert_eq!(told, "patients: column `age` is declared, but is none of the features");
}

#[test]
fn an_error_names_file_line_and_column() {
    let layout = Layout {
        declared: [("colour".into(), declared(colours(false), None, false))].into(),
        ..layout(Format::Csv)
    };
    let of = |line: &str| complaint(&format!("age,colour,heat,sick,ward\n61,red,37,no,a\n{line}\n"), &layout);
    assert_eq!(
        of(",red,37,no,a"),
        "patients, line 3, column `age`: the value is missing; fill it in, or leave the line out"
    );
    assert_eq!(of("old,red,37,no,a"), "patients, line 3, column `age`: `old` is not a finite number");
    for value in ["inf", "NaN", "1e40"] {
        assert!(of(&format!("{value},red,37,no,a")).contains("is not a finite number"));
    }
    assert_eq!(
        of("7,blue,37,no,a"),
        "patients, line 3, column `colour`: `blue` is not a category; declared are `red`, `green`"
    );
    assert!(of("7,,37,no,a").contains("column `colour`: the value is missing"));
    assert_eq!(
        of("7,red,37,dead,a"),
        "patients, line 3, column `sick`: `dead` is not a label, one of `no`, `yes`"
    );
    assert!(of("7,red,37,no,").contains("column `ward`: the value is missing"));
    assert!(of("7,red").contains("line: 3"));
    let missing = complaint("age,colour,sick,ward\n", &layout);
    assert_eq!(missing, "patients, line 1: no column `heat`; there are: age, colour, sick, ward");
    let twice = complaint("age,age,colour,heat,sick,ward\n", &layout);
    assert_eq!(twice, "patients, line 1: column `age` occurs twice");
    assert!(complaint("age,colour,heat,sick,ward\n", &layout).contains("at least one example"));

    let json = Layout { format: Format::Jsonl, ..layout.clone() };
    assert!(complaint("{\"age\": 1,\n", &json).starts_with("patients, line 1: not a JSON object: EOF"));
    assert_eq!(complaint("\n[1]\n", &json), "patients, line 2: not a JSON object");
    let nested = complaint("{\"sick\": \"no\", \"ward\": 1, \"age\": [1]}", &json);
    assert!(nested.starts_with("patients, line 1, column `age`: holds a list or an object"), "{nested}");
    let gone = read(Path::new("nowhere"), &layout).unwrap_err().to_string();
    assert!(gone.starts_with("nowhere: "), "{gone}");
}

#[test]
fn a_number_to_predict_is_within_its_bounds() {
    let bounds = Some([0.0, 100.0]);
    let target = Target { column: "price".into(), shift: 50.0, scale: 50.0, bounds, loss: Loss::Squared };
    let layout = Layout {
        format: Format::Csv,
        answer: Answer::Number(target.clone()),
        client: None,
        features: None,
        declared: BTreeMap::new(),
    };
    let table = written("size,price\n1,100\n2,0.5\n", &layout).unwrap();
    assert_eq!(
        table.dataset,
        Dataset::of_numbers(arr2(&[[1.0], [2.0]]), arr1(&[100.0, 0.5]), target).unwrap()
    );
    assert_eq!(
        complaint("size,price\n1,101\n", &layout),
        "patients, line 2, column `price`: `101` is outside of what the target may be, 0 to 100"
    );
    for wrong in ["NaN", "dear", ""] {
        let told = complaint(&format!("size,price\n1,{wrong}\n"), &layout);
        assert!(told.starts_with("patients, line 2, column `price`: "), "{told}");
    }
}

#[test]
fn columns_that_make_no_sense_are_refused() {
    let column = |kind, missing, indicator| Column { name: "c".into(), kind, missing, indicator };
    let category = |name: &str| Some(Filling::Category(name.into()));
    let twice = Kind::Category { categories: vec!["a".into(), "a".into()], other: false };
    for wrong in [
        column(Kind::Number, None, true),
        column(Kind::Number, Some(Filling::Value(f32::NAN)), false),
        column(Kind::Number, category("red"), false),
        column(colours(false), Some(Filling::Value(1.0)), false),
        column(colours(false), category("blue"), false),
        column(Kind::Category { categories: vec![], other: true }, None, false),
        column(twice, None, false),
        column(Kind::Category { categories: vec!["a ".into()], other: false }, None, false),
    ] {
        let told = Encoder::new(vec![wrong.clone()]).unwrap_err().to_string();
        assert!(told.starts_with("column `c`: "), "{wrong:?}: {told}");
    }
    let none = column(colours(false), Some(Filling::NoCategory), true);
    let encoder = Encoder::new(vec![none, column(colours(false), category("green"), false)]).unwrap();
    let numbers = encoder.encode(|_| Ok(Cell::Missing)).unwrap();
    assert_eq!(numbers, [0.0, 0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn standardization_leaves_categories_alone() {
    let table = written(CSV, &layout(Format::Csv)).unwrap();
    let columns = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    let numeric = Standardization::new(columns(["age", "heat"]), vec![40.0, 37.0], vec![10.0, 0.5]).unwrap();
    let spread = table.encoder.spread(&numeric).unwrap();
    let standardized = spread.of_dataset(table.dataset).unwrap();
    assert_eq!(standardized.features().row(0).to_vec(), [2.1, 0.0, 1.0, 0.0, 0.0, 3.0]);
    assert_eq!(standardized.features().row(1).to_vec(), [0.0, 1.0, 0.0, 0.0, 1.0, -94.0]);
    let other = Standardization::new(columns(["heat", "age"]), vec![0.0; 2], vec![1.0; 2]).unwrap();
    let told = table.encoder.spread(&other).unwrap_err().to_string();
    assert!(told.contains("is about the columns"), "{told}");
}

#[test]
fn an_encoder_survives_json() {
    let table = written(CSV, &layout(Format::Csv)).unwrap();
    let text = serde_json::to_string(&table.encoder).unwrap();
    assert_eq!(serde_json::from_str::<Encoder>(&text).unwrap(), table.encoder);
    assert!(
        text.starts_with(r#"[{"name":"age","kind":"number","missing":{"value":40.0},"indicator":true}"#),
        "{text}"
    );
}

/// A Parquet file of one row group whose columns hold what `write` puts into each.
fn written_columns(path: &Path, schema: &str, mut write: impl FnMut(usize, &mut SerializedColumnWriter<'_>)) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut at = 0;
    while let Some(mut column) = group.next_column().unwrap() {
        write(at, &mut column);
        column.close().unwrap();
        at += 1;
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// Rows of an id, whether somebody is sick, a code in floating point, and bytes.
fn coded(ids: &[i64], codes: &[f64], bytes: &[&[u8]], layout: &Layout) -> Result<Table, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("coded.parquet");
    let schema = "message schema {
        required int64 id (UINT_64); required boolean sick; required double code; required binary note;
    }";
    let bytes: Vec<ByteArray> = bytes.iter().map(|&bytes| ByteArray::from(bytes.to_vec())).collect();
    let sick: Vec<bool> = (0..ids.len()).map(|row| row % 2 == 1).collect();
    written_columns(&path, schema, |at, column| {
        match at {
            0 => column.typed::<Int64Type>().write_batch(ids, None, None),
            1 => column.typed::<BoolType>().write_batch(&sick, None, None),
            2 => column.typed::<DoubleType>().write_batch(codes, None, None),
            _ => column.typed::<ByteArrayType>().write_batch(&bytes, None, None),
        }
        .unwrap();
    });
    read(&path, layout).map_err(|error| error.to_string())
}

fn coded_layout() -> Layout {
    let codes = Kind::Category { categories: vec!["7".into()], other: true };
    Layout {
        format: Format::Parquet,
        answer: Answer::Class {
            column: "sick".into(),
            classes: Classes::Names(vec!["false".into(), "true".into()]),
        },
        client: Some("id".into()),
        features: Some(vec!["code".into()]),
        declared: [("code".into(), declared(codes, None, false))].into(),
    }
}

#[test]
fn what_names_something_is_exact_whatever_it_is_written_as() {
    let layout = coded_layout();
    // Two ids that are one number in floating point, and two that have no sign.
    let ids = [1_700_000_000_000_000_001, 1_700_000_000_000_000_000, -1, -2];
    let table = coded(&ids, &[7.0, 8.0, 7.5, 0.0], &[b"".as_slice(); 4], &layout).unwrap();
    let names = [ids[0].to_string(), ids[1].to_string(), u64::MAX.to_string(), (u64::MAX - 1).to_string()];
    assert_eq!(table.dataset.owners().unwrap().names(), names);
    assert_eq!(table.dataset.labels(), arr1(&[0, 1, 0, 1]));
    assert_eq!(table.dataset.features(), arr2(&[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]));
    for wrong in [f64::NAN, f64::INFINITY, 1e16] {
        let told = coded(&[1], &[wrong], &[b""], &layout).unwrap_err();
        assert!(told.contains("row 0") && told.contains("is not exact, so it names nothing"), "{told}");
    }
    let by_note = Layout { client: Some("note".into()), ..layout };
    let told = coded(&[1], &[7.0], &[b"caf\xe9"], &by_note).unwrap_err();
    assert!(told.contains("column `note`: holds bytes that are not UTF-8"), "{told}");

    let json = Layout { format: Format::Jsonl, client: Some("id".into()), ..by_note };
    let line = |id: &str| format!("{{\"id\": {id}, \"sick\": true, \"code\": 7}}\n");
    let text = line("1700000000000000001") + &line("1700000000000000000") + &line("18446744073709551615");
    let table = written(&text, &json).unwrap();
    let names = ["1700000000000000001", "1700000000000000000", "18446744073709551615"];
    assert_eq!(table.dataset.owners().unwrap().names(), names);
    assert!(complaint(&line("18446744073709551616"), &json).contains("is not exact, so it names nothing"));
}

#[test]
fn a_parquet_file_that_names_a_column_twice_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("twice.parquet");
    written_columns(&path, "message schema { required int64 id; required int64 id; }", |_, column| {
        column.typed::<Int64Type>().write_batch(&[1], None, None).unwrap();
    });
    let told = read(&path, &coded_layout()).unwrap_err().to_string();
    assert!(told.ends_with("twice.parquet: column `id` occurs twice"), "{told}");
}
