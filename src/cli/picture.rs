//! Small grey images in a terminal: two pixels to a character cell where there is colour, shades of ink where not.

/// Draws `images` (each `side`×`side`, 0 to 1) next to each other, with a line of `captions` below.
pub(crate) fn side_by_side(images: &[&[f32]], side: usize, captions: &[String], color: bool) -> String {
    let mut out = String::new();
    let grey = |x: f32| (x.clamp(0.0, 1.0) * 255.0) as u8;
    let rows = if color { side / 2 } else { side };
    for row in 0..rows {
        for image in images {
            out.push_str("  ");
            for column in 0..side {
                if color {
                    let (top, bottom) =
                        (grey(image[2 * row * side + column]), grey(image[(2 * row + 1) * side + column]));
                    out.push_str(&format!("\x1b[38;2;{top};{top};{top};48;2;{bottom};{bottom};{bottom}m▀"));
                } else {
                    let ink = b" .:-=+*#%@"[(image[row * side + column].clamp(0.0, 1.0) * 9.0) as usize] as char;
                    out.extend([ink, ink]);
                }
            }
            out.push_str(if color { "\x1b[0m" } else { "" });
        }
        out.push('\n');
    }
    let width = if color { side } else { 2 * side };
    for caption in captions {
        out.push_str(&format!("  {caption:<width$}"));
    }
    out.trim_end().to_string() + "\n"
}
