//! Columns become a Parquet file, in one row group.

use std::collections::BTreeSet;
use std::sync::Arc;

use ::parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use ::parquet::errors::ParquetError as LibraryError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use ::parquet::schema::types::Type;

/// What stands in a column, row by row; nothing where it is missing.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Whole numbers, of 64 bits with a sign.
    Integers(Vec<Option<i64>>),
    /// Numbers, of 64 bits.
    Numbers(Vec<Option<f64>>),
    /// Texts.
    Texts(Vec<Option<String>>),
}

/// A file of columns, each with its name and as many rows as every other.
///
/// # Errors
/// When there are none, or not all of the same length; what the library says.
pub fn encode(columns: &[(String, Column)]) -> Result<Vec<u8>, LibraryError> {
    let lengths: BTreeSet<usize> = columns.iter().map(|(_, column)| column.rows()).collect();
    if lengths.len() != 1 {
        return Err(LibraryError::General("there are no columns, or not all of the same length".to_owned()));
    }
    let fields = columns.iter().map(|(name, column)| column.described(name).map(Arc::new));
    let schema = Type::group_type_builder("rows").with_fields(fields.collect::<Result<_, _>>()?).build()?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut bytes = Vec::new();
    let mut file = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(properties))?;
    let mut rows = file.next_row_group()?;
    for (_, column) in columns {
        let mut writer =
            rows.next_column()?.ok_or(LibraryError::General("a column is missing".to_owned()))?;
        match column {
            Column::Integers(values) => write::<Int64Type, _>(&mut writer, values, |value| *value),
            Column::Numbers(values) => write::<DoubleType, _>(&mut writer, values, |value| *value),
            Column::Texts(values) => {
                write::<ByteArrayType, _>(&mut writer, values, |value| ByteArray::from(value.as_str()))
            }
        }?;
        writer.close()?;
    }
    rows.close()?;
    file.close()?;
    Ok(bytes)
}

impl Column {
    fn rows(&self) -> usize {
        match self {
            Column::Integers(values) => values.len(),
            Column::Numbers(values) => values.len(),
            Column::Texts(values) => values.len(),
        }
    }

    fn described(&self, name: &str) -> Result<Type, LibraryError> {
        let (physical, logical) = match self {
            Column::Integers(_) => (Physical::INT64, None),
            Column::Numbers(_) => (Physical::DOUBLE, None),
            Column::Texts(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        };
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()
    }
}

fn write<T: DataType, V>(
    writer: &mut SerializedColumnWriter<'_>,
    values: &[Option<V>],
    of: impl Fn(&V) -> T::T,
) -> Result<(), LibraryError> {
    let present: Vec<T::T> = values.iter().flatten().map(of).collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    writer.typed::<T>().write_batch(&present, Some(&levels), None).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parquet::{Parquet, Value};

    #[test]
    fn columns_are_read_as_they_were_written() {
        let columns = [
            ("round".to_owned(), Column::Integers(vec![Some(1), None, Some(-3)])),
            ("a.mean".to_owned(), Column::Numbers(vec![None, Some(0.5), Some(f64::INFINITY)])),
            ("how".to_owned(), Column::Texts(vec![Some("größer".to_owned()), Some(String::new()), None])),
            ("never".to_owned(), Column::Numbers(vec![None; 3])),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rounds.parquet");
        std::fs::write(&path, encode(&columns).unwrap()).unwrap();
        let file = Parquet::open(&path).unwrap();
        assert_eq!((file.rows(), file.columns()), (3, columns.clone().map(|(name, _)| name).to_vec()));
        let read = |column: &str| {
            let mut values = Vec::new();
            file.each(column, |_, value| {
                values.push(value.to_string());
                Ok(())
            })
            .unwrap();
            values
        };
        assert_eq!(read("round"), ["1", "nothing", "-3"]);
        assert_eq!(read("a.mean"), ["nothing", "0.5", "inf"]);
        assert_eq!(read("how"), ["größer", "", "nothing"]);
        assert_eq!(read("never"), ["nothing"; 3]);
        file.each("round", |row, value| {
            assert_eq!(value == Value::Integer(1), row == 0);
            Ok(())
        })
        .unwrap();
        let uneven = [columns[0].clone(), ("short".to_owned(), Column::Integers(vec![Some(1)]))];
        assert!(encode(&uneven).is_err() && encode(&[]).is_err());
    }
}
