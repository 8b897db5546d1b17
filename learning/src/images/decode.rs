//! PNG and JPEG, of any size, to bytes of one size.

use thiserror::Error;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_png::PngDecoder;

use super::resize::resize;

/// Why bytes are no image.
#[derive(Debug, Error)]
pub enum ImageFault {
    /// They begin as neither PNG nor JPEG does.
    #[error("is no image in PNG or JPEG")]
    Format,
    /// They are damaged, or larger than is taken.
    #[error("is no image that can be read: {0}")]
    Damaged(String),
}

/// An image as it was kept: channels last, 1 (grey) or 3 (colour).
struct Decoded {
    bytes: Vec<u8>,
    height: usize,
    width: usize,
    channels: usize,
}

/// Decodes an image and makes it `[height, width, channels]`, channels last: grey or in colour, without transparency, and
/// scaled where its size is another.
///
/// # Errors
/// [`ImageFault`].
pub fn decode(bytes: &[u8], [height, width, channels]: [usize; 3]) -> Result<Vec<u8>, ImageFault> {
    let decoded = if bytes.starts_with(PNG) {
        png(bytes)?
    } else if bytes.starts_with(JPEG) {
        jpeg(bytes)?
    } else {
        return Err(ImageFault::Format);
    };
    let Decoded { mut bytes, height: from_height, width: from_width, channels: from_channels } = decoded;
    match (from_channels, channels) {
        (3, 1) => bytes = bytes.chunks_exact(3).map(grey).collect(),
        (1, 3) => bytes = bytes.iter().flat_map(|&byte| [byte; 3]).collect(),
        _ => {}
    }
    let same = [from_height, from_width] == [height, width];
    Ok(if same { bytes } else { resize(&bytes, [from_height, from_width], [height, width], channels) })
}

/// Whether bytes begin as PNG or JPEG does.
pub fn is_image(start: &[u8]) -> bool {
    start.starts_with(PNG) || start.starts_with(JPEG)
}

/// The start of a file of each kind.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8\xff";
const END_OF_JPEG: [u8; 2] = [0xff, 0xd9];

/// What is cut short is refused and not filled up.
fn options() -> DecoderOptions {
    DecoderOptions::default().set_strict_mode(true).set_max_width(WIDEST).set_max_height(WIDEST)
}

fn jpeg(bytes: &[u8]) -> Result<Decoded, ImageFault> {
    // The decoder fills up what a file lacks at its end.
    if !bytes.windows(2).any(|pair| pair == END_OF_JPEG) {
        return Err(damaged("it ends too early"));
    }
    let options = options().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let bytes = decoder.decode().map_err(|error| damaged(&format!("{error:?}")))?;
    let Some((width, height)) = decoder.dimensions() else { return Err(damaged("it has no size")) };
    complete(Decoded { bytes, height, width, channels: 3 })
}

fn png(bytes: &[u8]) -> Result<Decoded, ImageFault> {
    let options = options().png_set_strip_to_8bit(true);
    let mut decoder = PngDecoder::new_with_options(ZCursor::new(bytes), options);
    let mut bytes = decoder.decode_raw().map_err(|error| damaged(&format!("{error:?}")))?;
    let (size, colours) = (decoder.dimensions(), decoder.colorspace());
    let (Some((width, height)), Some(colours)) = (size, colours) else {
        return Err(damaged("it has no size"));
    };
    let (channels, kept) = match colours {
        ColorSpace::Luma => (1, 1),
        ColorSpace::LumaA => (2, 1),
        ColorSpace::RGB => (3, 3),
        ColorSpace::RGBA => (4, 3),
        other => return Err(damaged(&format!("it is in {other:?}"))),
    };
    if channels != kept {
        bytes = bytes.chunks_exact(channels).flat_map(|pixel| &pixel[..kept]).copied().collect();
    }
    complete(Decoded { bytes, height, width, channels: kept })
}

/// A decoder that gives less than it says is not believed.
fn complete(decoded: Decoded) -> Result<Decoded, ImageFault> {
    let Decoded { bytes, height, width, channels } = &decoded;
    match bytes.len() == height * width * channels && !bytes.is_empty() {
        true => Ok(decoded),
        false => Err(damaged("it is not complete")),
    }
}

fn damaged(problem: &str) -> ImageFault {
    ImageFault::Damaged(problem.trim().to_owned())
}

/// The brightness of a pixel by Recommendation ITU-R BT.601.
fn grey(pixel: &[u8]) -> u8 {
    let sum: u32 = pixel.iter().zip([299, 587, 114]).map(|(&byte, weight)| u32::from(byte) * weight).sum();
    ((sum + 500) / 1000) as u8
}

/// Widest and highest image.
const WIDEST: usize = 1 << 14;
