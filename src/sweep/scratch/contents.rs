//! What a file has in it, as a number that is the same whichever scratch directory it speaks of.

use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};

/// So much of a file is looked at.
const LIMIT: u64 = 16 << 20;

/// So much is read at a time.
const CHUNK: usize = 64 << 10;

/// What stands for the directory's path.
const PLACEHOLDER: &[u8] = b"\0scratch directory\0";

/// Hashes contents in which the path of a directory means the same as that of any other of this length.
pub(super) struct Contents<'a> {
    path: &'a [u8],
    buffer: Vec<u8>,
    /// How many bytes were looked at, all in all.
    pub(super) read: u64,
}

impl<'a> Contents<'a> {
    pub(super) fn new(path: &'a [u8]) -> Self {
        Self {
            path,
            buffer: Vec::new(),
            read: 0,
        }
    }

    pub(super) fn hash(&mut self, contents: impl Read) -> io::Result<u64> {
        // The last bytes are only there to complete a path that begins before them.
        let overlap = self.path.len().saturating_sub(1);
        let most = LIMIT + overlap as u64;
        let mut contents = contents.take(most);
        let mut hasher = DefaultHasher::new();
        self.buffer.resize(CHUNK + overlap, 0);
        let (mut kept, mut total) = (0, 0);
        loop {
            let filled = kept + fill(&mut contents, self.buffer.get_mut(kept..).unwrap_or_default())?;
            total += (filled - kept) as u64;
            self.read += (filled - kept) as u64;
            let data = self.buffer.get(..filled).unwrap_or_default();
            let is_end = filled < self.buffer.len();
            // A path may begin in what comes after, unless nothing does.
            let certain = match is_end && total < most {
                true => filled,
                false => filled.saturating_sub(overlap),
            };
            let done = write(&mut hasher, data, self.path, certain);
            if is_end {
                return Ok(hasher.finish());
            }
            self.buffer.copy_within(done..filled, 0);
            kept = filled - done;
        }
    }
}

/// Writes the data to the hasher up to `certain`, or to the end of the path there; gives how far it came.
fn write(hasher: &mut DefaultHasher, data: &[u8], path: &[u8], certain: usize) -> usize {
    let mut done = 0;
    while let Some(at) = find(data.get(done..).unwrap_or_default(), path) {
        hasher.write(data.get(done..done + at).unwrap_or_default());
        hasher.write(PLACEHOLDER);
        done += at + path.len();
    }
    let certain = certain.max(done);
    hasher.write(data.get(done..certain).unwrap_or_default());
    certain
}

/// Where the path is. It begins with a slash, which little else does.
pub(super) fn find(data: &[u8], path: &[u8]) -> Option<usize> {
    let first = path.first()?;
    let mut from = 0;
    loop {
        let rest = data.get(from..)?;
        let at = from + rest.iter().position(|byte| byte == first)?;
        if data.get(at..)?.starts_with(path) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(contents: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match contents.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(path: &str, contents: &[u8]) -> u64 {
        Contents::new(path.as_bytes()).hash(contents).unwrap()
    }

    #[test]
    fn the_path_means_the_same_wherever_it_stands() {
        // Around the seams between what is read at a time, and around the limit.
        let seams = [0, CHUNK, CHUNK + 6, 2 * CHUNK].map(|seam| (seam, 1));
        for (seam, step) in seams.into_iter().chain([(LIMIT as usize, 3)]) {
            for offset in (0..14).step_by(step) {
                let before = vec![b'x'; (seam + offset).saturating_sub(7)];
                let [one, other, third] = ["/tmp/17", "/tmp/18", "/tmp/1x"].map(|path| {
                    let mut contents = before.clone();
                    contents.extend_from_slice(path.as_bytes());
                    contents.extend_from_slice(b"/file");
                    contents
                });
                let place = before.len();
                assert_eq!(hash("/tmp/17", &one), hash("/tmp/18", &other), "{place}");
                if place + 6 < LIMIT as usize {
                    assert_ne!(hash("/tmp/17", &one), hash("/tmp/17", &other), "{place}");
                    assert_ne!(hash("/tmp/17", &one), hash("/tmp/18", &third), "{place}");
                }
            }
        }
    }

    #[test]
    fn every_byte_counts_up_to_the_limit() {
        let mut contents = vec![0; LIMIT as usize + 100];
        let all = hash("/tmp/17", &contents);
        for place in [0, 1, CHUNK - 1, CHUNK, CHUNK + 6, LIMIT as usize - 1] {
            contents[place] = 1;
            assert_ne!(hash("/tmp/17", &contents), all, "{place}");
            contents[place] = 0;
        }
        contents[LIMIT as usize] = 1;
        assert_eq!(hash("/tmp/17", &contents), all);
        assert_ne!(hash("/tmp/17", b""), hash("/tmp/17", b"\0"));
    }

    #[test]
    fn no_more_is_read_than_is_looked_at() {
        let mut contents = Contents::new(b"/tmp/17");
        contents.hash(io::repeat(0)).unwrap();
        assert_eq!(contents.read, LIMIT + 6);
    }
}
