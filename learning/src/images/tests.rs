use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use flate2::Crc;
use flate2::write::ZlibEncoder;
use ndarray::arr2;

use super::*;

/// A PNG of one colour.
pub(crate) fn png(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let row = [vec![0], colour.repeat(width as usize)].concat();
    let mut packed = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&row.repeat(height as usize)).unwrap();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, chunk) in [(b"IHDR", header), (b"IDAT", packed.finish().unwrap()), (b"IEND", vec![])] {
        let mut sum = Crc::new();
        sum.update(kind);
        sum.update(&chunk);
        bytes.extend((chunk.len() as u32).to_be_bytes());
        bytes.extend(kind);
        bytes.extend(chunk);
        bytes.extend(sum.sum().to_be_bytes());
    }
    bytes
}

/// A picture that Pillow 12 wrote: 11 rows of 13 pixels, red 18 x, green 22 y, blue 9 (x + y).
fn picture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(name)).unwrap()
}

/// A Parquet file of encoded images and labels in two row groups, as data hubs lay it out.
pub(crate) fn parquet_file(
    folder: &Path,
    rows: &[(Option<&[u8]>, i64)],
    compression: Compression,
) -> PathBuf {
    let schema = "message schema {
        optional group img { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    let path = folder.join("images.parquet");
    let properties = WriterProperties::builder().set_compression(compression).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(rows.len().div_ceil(2).max(1)) {
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<ByteArray> =
            rows.iter().filter_map(|(image, _)| image.map(ByteArray::from)).collect();
        let levels: Vec<i16> = rows.iter().map(|(image, _)| if image.is_some() { 2 } else { 1 }).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let none = vec![1_i16; rows.len()];
        column.typed::<ByteArrayType>().write_batch(&[], Some(&none), None).unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = rows.iter().map(|(_, label)| *label).collect();
        let mut column = group.next_column().unwrap().unwrap();
        let levels = vec![1_i16; rows.len()];
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    path
}

fn wanted(size: [usize; 3]) -> Wanted {
    Wanted { size, scaling: Scaling::plain(), classes: Classes::Numbers(3) }
}

fn columns() -> Format {
    Format::Parquet { image: "img".into(), label: "label".into(), client: None }
}

#[test]
fn every_kind_of_png_and_jpeg_is_decoded() {
    let expected = |at: usize| {
        let (pixel, channel) = (at / 3, at % 3);
        let (x, y) = (pixel % 13, pixel / 13);
        [18 * x, 22 * y, 9 * (x + y)][channel] as f64
    };
    let grey =
        |at: usize| 0.299 * expected(3 * at) + 0.587 * expected(3 * at + 1) + 0.114 * expected(3 * at + 2);
    for (name, furthest) in [
        ("colour.png", 0.0),
        ("alpha.png", 0.0),
        ("palette.png", 64.0),
        ("colour.jpg", 20.0),
        ("progressive.jpg", 20.0),
    ] {
        let bytes = decode(&picture(name), [11, 13, 3]).unwrap();
        let off = bytes.iter().enumerate().map(|(at, &byte)| (f64::from(byte) - expected(at)).abs());
        assert!(off.fold(0.0, f64::max) <= furthest, "{name}");
        let bytes = decode(&picture(name), [11, 13, 1]).unwrap();
        let off = bytes.iter().enumerate().map(|(at, &byte)| (f64::from(byte) - grey(at)).abs());
        assert!(off.fold(0.0, f64::max) <= furthest + 0.5, "{name}");
    }
    for (name, furthest) in
        [("grey.png", 1.0), ("grey-alpha.png", 1.0), ("deep.png", 1.0), ("grey.jpg", 10.0)]
    {
        for channels in [1, 3] {
            let bytes = decode(&picture(name), [11, 13, channels]).unwrap();
            let off =
                bytes.iter().enumerate().map(|(at, &byte)| (f64::from(byte) - grey(at / channels)).abs());
            assert!(off.fold(0.0, f64::max) <= furthest, "{name} in {channels}");
        }
    }
    let bytes = decode(&picture("black-white.png"), [11, 13, 1]).unwrap();
    assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == if grey(at) > 91.0 { 255 } else { 0 } || (grey(at) - 90.5).abs() < 1.0));
    assert_eq!(decode(&picture("colour.png"), [224, 224, 3]).unwrap().len(), 224 * 224 * 3);
}

#[test]
fn a_damaged_image_is_an_error_or_an_image_and_never_a_panic() {
    let mut refused = 0;
    for name in ["colour.png", "palette.png", "colour.jpg", "progressive.jpg", "grey.jpg"] {
        let whole = picture(name);
        for at in 0..whole.len() {
            let cut = decode(&whole[..at], [11, 13, 3]);
            // The last bytes may be missing where they say nothing but that this is the end.
            assert!(cut.is_err() || at + 16 > whole.len(), "{name} of {at}");
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            refused += usize::from(decode(&changed, [11, 13, 3]).is_err());
        }
    }
    assert!(refused > 300, "{refused}");
    let huge = png(1 << 15, 1, [1, 2, 3]);
    assert!(decode(&huge, [11, 13, 3]).unwrap_err().to_string().contains("is no image that can be read"));
    assert!(decode(b"GIF89a", [1, 1, 3]).unwrap_err().to_string().contains("PNG or JPEG"));
}

#[test]
fn images_of_a_parquet_file_are_decoded_and_made_one_size() {
    let folder = tempfile::tempdir().unwrap();
    let red = png(2, 1, [255, 0, 0]);
    let blue = png(7, 5, [0, 0, 51]);
    let rows: [(Option<&[u8]>, i64); 3] = [(Some(&red), 2), (Some(&blue), 0), (Some(&red), 1)];
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
    ] {
        let path = parquet_file(folder.path(), &rows, compression);
        let data = read(&path, &columns(), &wanted([1, 2, 3])).unwrap();
        let red = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        assert_eq!(data.features(), arr2(&[red, [0.0, 0.0, 0.2, 0.0, 0.0, 0.2], red]));
        assert_eq!(data.labels().to_vec(), [2, 0, 1]);
        let grey = read(&path, &columns(), &wanted([1, 1, 1])).unwrap();
        assert_eq!(grey.inputs(), 1);
    }
}

#[test]
fn an_error_names_file_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let red = picture("colour.jpg");
    let refused = |rows: &[(Option<&[u8]>, i64)], format: Format| {
        let path = parquet_file(folder.path(), rows, Compression::UNCOMPRESSED);
        read(&path, &format, &wanted([2, 2, 3])).unwrap_err().to_string()
    };
    let good: (Option<&[u8]>, i64) = (Some(&red), 0);
    let text = refused(&[good, good, good, (Some(b"hello"), 1)], columns());
    assert!(
        text.ends_with(
            "images.parquet: row 3 (in row group 1), column `img.bytes`: is no image in PNG or JPEG"
        ),
        "{text}"
    );
    let missing = refused(&[good, (None, 1)], columns());
    assert!(
        missing.ends_with("row 1 (in row group 1), column `img.bytes`: the image is missing"),
        "{missing}"
    );
    let cut = refused(&[(Some(&red[..red.len() / 2]), 0), good], columns());
    assert!(
        cut.contains("row 0 (in row group 0), column `img.bytes`: is no image that can be read"),
        "{cut}"
    );
    let label = refused(&[good, (Some(&red), 3)], columns());
    assert!(label.contains("column `label`: `3` is not a label, an integer from 0 to below 3"), "{label}");
    let format = Format::Parquet { image: "picture".into(), label: "label".into(), client: None };
    let column = refused(&[good], format);
    assert!(column.contains("has no column `picture`; there are: img.bytes, img.path, label"), "{column}");
    let other = read(Path::new("Cargo.toml"), &columns(), &wanted([2, 2, 3])).unwrap_err().to_string();
    assert!(other.contains("Cargo.toml: is no Parquet file"), "{other}");
}

#[test]
fn a_damaged_parquet_file_is_an_error_wherever_it_is_cut_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let red = png(2, 2, [255, 0, 0]);
    let path = parquet_file(folder.path(), &[(Some(&red), 0), (Some(&red), 1)], Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in 0..whole.len() {
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(read(&path, &columns(), &wanted([2, 2, 3])).is_err(), "{at}");
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        std::fs::write(&path, &changed).unwrap();
        // A change may well go unnoticed, in statistics for example; what matters is that nothing panics.
        refused += usize::from(read(&path, &columns(), &wanted([2, 2, 3])).is_err());
    }
    assert!(refused > whole.len() / 4, "{refused} of {}", whole.len());
}

#[test]
fn folders_are_classes_and_files_come_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let put = |class: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(folder.path().join(class)).unwrap();
        std::fs::write(folder.path().join(class).join(name), bytes).unwrap();
    };
    put("dog", "b.PNG", &png(1, 1, [0, 0, 255]));
    put("dog", "a.png", &png(1, 1, [0, 255, 0]));
    put("dog", "notes.txt", b"not looked at");
    put("cat", "c.jpg", &picture("colour.jpg"));
    std::fs::write(folder.path().join("README"), b"not looked at").unwrap();
    let wanted = |names: &[&str]| Wanted {
        classes: Classes::Names(names.iter().map(|&name| name.to_owned()).collect()),
        ..wanted([1, 1, 3])
    };
    let data = read(folder.path(), &Format::Folder, &wanted(&["dog", "cat"])).unwrap();
    assert_eq!(data.labels().to_vec(), [1, 0, 0]);
    assert_eq!(data.features().slice(ndarray::s![1.., ..]), arr2(&[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]));
    let refused =
        |names: &[&str]| read(folder.path(), &Format::Folder, &wanted(names)).unwrap_err().to_string();
    assert!(refused(&["dog", "cow"]).contains("`cat` is no class, one of `dog`, `cow`"));
    put("cat", "d.png", b"hello");
    assert!(refused(&["dog", "cat"]).ends_with("cat/d.png: is no image in PNG or JPEG"));
    let empty = tempfile::tempdir().unwrap();
    let none = read(empty.path(), &Format::Folder, &wanted(&["dog", "cat"])).unwrap_err().to_string();
    assert!(none.contains("holds no folder"), "{none}");
}

#[test]
fn records_of_cifar_have_planes_of_a_colour_each() {
    let folder = tempfile::tempdir().unwrap();
    let record = |label: u8| [vec![label], vec![255; 1024], vec![0; 1024], vec![51; 1024]].concat();
    let wanted = wanted([32, 32, 3]);
    std::fs::write(folder.path().join("data_batch_2.bin"), record(1)).unwrap();
    std::fs::write(folder.path().join("data_batch_1.bin"), [record(2), record(0)].concat()).unwrap();
    std::fs::write(folder.path().join("test_batch.bin"), record(3)).unwrap();
    let data = read(folder.path(), &Format::Cifar10, &wanted).unwrap();
    assert_eq!(data.labels().to_vec(), [2, 0, 1]);
    let first = data.features().row(0).to_vec();
    assert!(first.chunks_exact(3).all(|pixel| pixel == [1.0, 0.0, 0.2]));
    let refused =
        |name: &str| read(&folder.path().join(name), &Format::Cifar10, &wanted).unwrap_err().to_string();
    assert!(refused("test_batch.bin").contains("record 0, counted from 0: 3 is not a label"));
    std::fs::write(folder.path().join("cut.bin"), &[record(0), record(1)].concat()[..4000]).unwrap();
    assert!(refused("cut.bin").ends_with("record 1, counted from 0: has 927 bytes, not 3073"));
}
