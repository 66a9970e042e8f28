//! Mutations that can be repeated: one number gives one file. They know that files hold numbers of two, four and eight
//! bytes, and words of a kind; what libFuzzer finds out by watching the code is replaced by many small changes to files
//! that are almost right.

/// Repeatable noise: splitmix64.
pub struct Die(pub u64);

impl Die {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// A number below `n`; 0 where that is 0.
    pub fn roll(&mut self, n: usize) -> usize {
        (self.word() >> 16) as usize % n.max(1)
    }
    /// Numbers that break things: bounds of types, of signs, of the file.
    fn number(&mut self, length: usize) -> u64 {
        let length = length as u64;
        let near = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 62, length, length / 2];
        let number = near[self.roll(near.len())];
        [number, number.wrapping_add(1), number.wrapping_sub(1), self.word() >> 40][self.roll(4)]
    }
    /// A stretch of a file of this length.
    fn stretch(&mut self, length: usize, longest: usize) -> std::ops::Range<usize> {
        let at = self.roll(length + 1);
        at..(at + 1 + self.roll(longest)).min(length).max(at)
    }
    /// One of `seeds` with one to four changes.
    pub fn mutate(&mut self, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let mut out = seeds[self.roll(seeds.len())].clone();
        for _ in 0..1 + self.roll(4) {
            let at = self.roll(out.len());
            match self.roll(9) {
                0 if !out.is_empty() => out[at] ^= 1 << self.roll(8),
                1 if !out.is_empty() => out[at] = self.word() as u8,
                2 | 3 => {
                    let (number, width) = (self.number(out.len()), [1, 2, 4, 8][self.roll(4)]);
                    let both = [number.to_le_bytes(), number.to_be_bytes()];
                    let bytes = if self.roll(2) == 0 { &both[0][..width] } else { &both[1][8 - width..] };
                    let end = (at + width).min(out.len());
                    out[at..end].copy_from_slice(&bytes[..end - at]);
                }
                4 => {
                    let gone = self.stretch(out.len(), 16);
                    out.drain(gone);
                }
                5 => {
                    let again = self.stretch(out.len(), 32);
                    let piece = out[again].to_vec();
                    out.splice(at..at, piece);
                }
                6 => {
                    let other = &seeds[self.roll(seeds.len())];
                    let piece = other[self.stretch(other.len(), 64)].to_vec();
                    out.splice(at..at, piece);
                }
                7 if self.roll(4) == 0 => out.truncate(at),
                _ if !words.is_empty() => {
                    let word = words[self.roll(words.len())].bytes();
                    let over = if self.roll(2) == 0 { at } else { (at + word.len()).min(out.len()) };
                    out.splice(at..over, word);
                }
                _ => out.truncate(at),
            }
        }
        out
    }
}
